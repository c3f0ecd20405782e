//! [`ShuffleBuffer`]: batches of rows in random order, from more rows than fit in memory.
//!
//! ```text
//! epoch:  the groups in an order drawn from (seed, epoch), cut into blocks that fit the budget
//! block:  its rows in an order drawn from (seed, epoch, block)
//! batch:  the next rows; it may begin in one block and end in the next
//! ```
//!
//! Every order is drawn from the seed and a place, never from a generator that runs along. So a [`Cursor`] is all that
//! a checkpoint needs in order to go on with exactly the next row.

use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    activations::{RowSource, Rows},
};

/// Block number that stands for the order of groups in a generator's stream; no epoch has so many blocks.
const GROUP_ORDER: u64 = u32::MAX as u64;

/// The next row to be taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// Pass over the data, from 0.
    pub(crate) epoch: u64,
    /// Block of the epoch.
    pub(crate) block: u64,
    /// Place in the block's order.
    pub(crate) row: u64,
}

/// Draws batches from a [`RowSource`].
pub(crate) struct ShuffleBuffer<'a, S> {
    source: &'a S,
    seed: u64,
    budget_bytes: u64,
    cursor: Cursor,
    block: Option<Block>,
    /// The groups of each block of an epoch.
    blocks: Option<(u64, Vec<Vec<usize>>)>,
    /// Rows that counted in the epoch so far, to notice that there are none.
    rows_of_epoch: u64,
}

/// Some groups in memory, and the order of their rows.
struct Block {
    /// Ascending, so that blocks of the same groups are the same.
    groups: Vec<usize>,
    rows: Vec<Rows>,
    /// Which block of which epoch `order` is for.
    place: (u64, u64),
    /// (index in `rows`, row)
    order: Vec<(u32, u32)>,
}

impl<'a, S: RowSource> ShuffleBuffer<'a, S> {
    pub(crate) fn new(source: &'a S, seed: u64, budget_bytes: u64, cursor: Cursor) -> Self {
        Self { source, seed, budget_bytes, cursor, block: None, blocks: None, rows_of_epoch: 0 }
    }

    /// Where the next batch begins.
    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Fills `x` `[n, d_in]` with the next n rows, times `scale`.
    pub(crate) fn next_batch(&mut self, scale: f32, x: &mut [f32]) -> Result<()> {
        let d_in = self.source.d_in();
        let mut filled = 0;
        while filled < x.len() {
            self.load_block()?;
            let Some(block) = &self.block else { continue };
            let first = self.cursor.row as usize;
            let n = (block.order.len() - first).min((x.len() - filled) / d_in);
            block.copy(first..first + n, scale, &mut x[filled..filled + n * d_in], d_in);
            self.cursor.row += n as u64;
            filled += n * d_in;
        }
        Ok(())
    }

    /// Makes the cursor's block the one in memory, and moves on while it has no rows left.
    fn load_block(&mut self) -> Result<()> {
        loop {
            let Some(groups) = self.groups() else {
                self.next_epoch()?;
                continue;
            };
            self.read(&groups)?;
            let n_rows = self.block.as_ref().map_or(0, |block| block.order.len() as u64);
            if self.cursor.row < n_rows {
                return Ok(());
            }
            self.rows_of_epoch += n_rows;
            self.cursor.block += 1;
            self.cursor.row = 0;
        }
    }

    fn next_epoch(&mut self) -> Result<()> {
        // A resumed run may enter at an epoch's end; only one that began an epoch can say that it is empty.
        if self.rows_of_epoch == 0 && self.block.as_ref().is_none_or(|block| block.order.is_empty()) {
            let expected = "at least one row that is not at position 0 and not an attention sink";
            return Err(Error::invalid("activations to train on", expected, "none"));
        }
        self.rows_of_epoch = 0;
        self.cursor = Cursor { epoch: self.cursor.epoch + 1, block: 0, row: 0 };
        Ok(())
    }

    /// The groups of the cursor's block; `None` after the epoch's last.
    fn groups(&mut self) -> Option<Vec<usize>> {
        let epoch = self.cursor.epoch;
        if self.blocks.as_ref().is_none_or(|(of, _)| *of != epoch) {
            self.blocks = Some((epoch, self.blocks_of(epoch)));
        }
        self.blocks.as_ref()?.1.get(self.cursor.block as usize).cloned()
    }

    /// Cuts an epoch into blocks that fit the budget.
    fn blocks_of(&self, epoch: u64) -> Vec<Vec<usize>> {
        let sizes = self.source.group_sizes();
        let mut groups: Vec<usize> = (0..sizes.len()).collect();
        groups.shuffle(&mut self.random(epoch, GROUP_ORDER));
        let (mut blocks, mut bytes): (Vec<Vec<usize>>, u64) = (Vec::new(), 0);
        for group in groups {
            let size = (sizes[group] * self.source.row_bytes()) as u64;
            match blocks.last_mut() {
                Some(block) if bytes + size <= self.budget_bytes => block.push(group),
                _ => {
                    blocks.push(vec![group]);
                    bytes = 0;
                }
            }
            bytes += size;
        }
        blocks.iter_mut().for_each(|block| block.sort_unstable());
        blocks
    }

    /// Reads `groups` unless they are in memory, and draws the order for the cursor's place.
    fn read(&mut self, groups: &[usize]) -> Result<()> {
        let place = (self.cursor.epoch, self.cursor.block);
        if self.block.as_ref().is_some_and(|block| block.place == place) {
            return Ok(());
        }
        // The old block goes before the new one comes: the budget is for one.
        let same = self.block.take().filter(|block| block.groups == groups);
        let rows = match same {
            Some(block) => block.rows,
            None => groups.par_iter().map(|&group| self.source.read(group)).collect::<Result<_>>()?,
        };
        let places = rows.iter().enumerate();
        let mut order: Vec<(u32, u32)> =
            places.flat_map(|(at, rows)| (0..rows.len() as u32).map(move |row| (at as u32, row))).collect();
        order.shuffle(&mut self.random(place.0, place.1));
        self.block = Some(Block { groups: groups.to_vec(), rows, place, order });
        Ok(())
    }

    fn random(&self, epoch: u64, block: u64) -> ChaCha8Rng {
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        random.set_stream(epoch << 32 | block);
        random
    }
}

impl Block {
    fn copy(&self, places: std::ops::Range<usize>, scale: f32, x: &mut [f32], d_in: usize) {
        x.par_chunks_exact_mut(d_in)
            .zip(&self.order[places])
            .with_min_len(64)
            .for_each(|(x, &(at, row))| self.rows[at as usize].copy_row(row as usize, scale, x));
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use harvester::Values;

    use super::*;

    /// Groups of the given sizes; every row holds its number, once in each of two dimensions.
    struct Numbered {
        sizes: Vec<usize>,
        reads: AtomicUsize,
    }

    impl Numbered {
        fn new(sizes: &[usize]) -> Self {
            Self { sizes: sizes.to_vec(), reads: AtomicUsize::new(0) }
        }

        fn total(&self) -> usize {
            self.sizes.iter().sum()
        }
    }

    impl RowSource for Numbered {
        fn d_in(&self) -> usize {
            2
        }

        fn row_bytes(&self) -> usize {
            8
        }

        fn group_sizes(&self) -> Vec<usize> {
            self.sizes.clone()
        }

        fn read(&self, group: usize) -> Result<Rows> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let first: usize = self.sizes[..group].iter().sum();
            let values = (first..first + self.sizes[group]).flat_map(|row| [row as f32; 2]).collect();
            Ok(Rows::new(Values::F32(values), 2))
        }
    }

    /// The row numbers of the next `n` rows.
    fn take(buffer: &mut ShuffleBuffer<'_, Numbered>, n: usize) -> Vec<usize> {
        let mut x = vec![f32::NAN; n * 2];
        buffer.next_batch(1.0, &mut x).unwrap();
        x.chunks(2).map(|row| if row[0] == row[1] { row[0] as usize } else { usize::MAX }).collect()
    }

    #[test]
    fn an_epoch_has_every_row_once_and_epochs_differ() {
        let source = Numbered::new(&[5, 7, 3, 6]);
        for budget in [1, 80, 1 << 20] {
            let mut buffer = ShuffleBuffer::new(&source, 1, budget, Cursor::default());
            let (first, second) = (take(&mut buffer, 21), take(&mut buffer, 21));
            assert_ne!(first, second);
            for mut epoch in [first, second] {
                epoch.sort_unstable();
                assert_eq!(epoch, (0..21).collect::<Vec<_>>(), "budget {budget}");
            }
        }
    }

    #[test]
    fn any_cursor_continues_exactly() {
        let source = Numbered::new(&[5, 7, 3, 6]);
        let mut whole = ShuffleBuffer::new(&source, 1, 80, Cursor::default());
        let rows = take(&mut whole, 60);
        for n in [1, 4, 20, 21, 22, 41, 42, 59] {
            let mut before = ShuffleBuffer::new(&source, 1, 80, Cursor::default());
            take(&mut before, n);
            let mut after = ShuffleBuffer::new(&source, 1, 80, before.cursor());
            assert_eq!(take(&mut after, 60 - n), rows[n..], "cut after {n} rows");
        }
    }

    #[test]
    fn what_fits_is_read_once() {
        let source = Numbered::new(&[5, 7, 3, 6]);
        let mut buffer = ShuffleBuffer::new(&source, 1, 1 << 20, Cursor::default());
        take(&mut buffer, 5 * source.total());
        assert_eq!(source.reads.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn the_seed_decides_the_order() {
        let source = Numbered::new(&[50]);
        let order = |seed| take(&mut ShuffleBuffer::new(&source, seed, 1 << 20, Cursor::default()), 50);
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn no_rows_at_all_is_an_error_and_not_a_loop() {
        for sizes in [&[][..], &[0, 0]] {
            let source = Numbered::new(sizes);
            let mut buffer = ShuffleBuffer::new(&source, 1, 1 << 20, Cursor::default());
            assert!(buffer.next_batch(1.0, &mut [0.0; 2]).is_err());
        }
    }
}
