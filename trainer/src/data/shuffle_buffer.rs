//! [`ShuffleBuffer`]: batches of rows in random order, from more rows than fit in memory.
//!
//! ```text
//! epoch:  the source's blocks, one after the other
//! block:  its rows in an order drawn from (seed, epoch, block)
//! batch:  the next rows; a batch may begin in one block and end in the next
//! ```
//!
//! Every order depends only on the seed and the numbers of epoch and block, not on a generator's running state. So a
//! [`Cursor`] is all that a checkpoint needs to continue with exactly the next row.

use harvester::ContextCursor;
use rand::seq::SliceRandom;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    data::{
        activation_source::{ActivationSource, BlockPlace, StreamPosition},
        rows::Rows,
        shard_source::random,
    },
};

/// Position of the next row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cursor {
    /// The block.
    #[serde(flatten)]
    pub(crate) place: BlockPlace,
    /// Index in the block's order.
    pub(crate) row: u64,
    /// Position in the stream of contexts at which the block begins. `None` if the block's number is enough to find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) began_at: Option<ContextCursor>,
}

/// Draws batches from an [`ActivationSource`].
pub(crate) struct ShuffleBuffer<S> {
    source: S,
    seed: u64,
    cursor: Cursor,
    rows: Vec<Rows>,
    /// The block in `rows`, and the order in which its rows are taken: (index in `rows`, row).
    order: Option<(BlockPlace, Vec<(u32, u32)>)>,
    /// The first rows of a batch that was begun when the run was stopped, in training units.
    begun: Vec<f32>,
    /// Usable rows in the epoch so far, to detect an epoch without any.
    rows_of_epoch: u64,
}

/// State of a buffer that was stopped, beside its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stopped {
    /// Position of the next row after those of the batch that was begun.
    cursor: Cursor,
    /// Rows of the cursor's block; `None` if the block is not complete.
    block_rows: Option<u64>,
    /// Position of the source.
    source: StreamPosition,
}

/// What a buffer had in memory when it was stopped.
pub(crate) struct InMemory<R> {
    pub(crate) state: Stopped,
    /// The first rows of the next batch, in training units.
    pub(crate) begun: Vec<f32>,
    /// The rows that were not drawn: in the order of drawing if their block is complete, else in that of the source.
    pub(crate) rows: Vec<R>,
}

impl<S: ActivationSource> ShuffleBuffer<S> {
    pub(crate) fn new(source: S, seed: u64, cursor: Cursor) -> Self {
        Self { source, seed, cursor, rows: Vec::new(), order: None, begun: Vec::new(), rows_of_epoch: 0 }
    }

    /// Number of values in each column of a row.
    pub(crate) fn widths(&self) -> &[usize] {
        self.source.widths()
    }

    /// Position at which the next batch begins.
    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Fills `x` with the next n rows, each column multiplied by its scale.
    ///
    /// # Shapes
    /// `scales` `[columns]`, `x` `[n, sum of widths]`.
    pub(crate) fn next_batch(&mut self, scales: &[f32], x: &mut [f32]) -> Result<()> {
        let width: usize = self.source.widths().iter().sum();
        let mut filled = self.begun.len();
        x[..filled].copy_from_slice(&self.begun);
        while filled < x.len() {
            if let Err(error) = self.load_block() {
                self.begun = x[..filled].to_vec();
                return Err(error);
            }
            let (_, order) = self.order.as_ref().expect("load_block leaves a block in memory");
            let first = self.cursor.row as usize;
            let n = (order.len() - first).min((x.len() - filled) / width);
            copy(&self.rows, &order[first..first + n], scales, &mut x[filled..filled + n * width], width);
            self.cursor.row += n as u64;
            filled += n * width;
        }
        self.begun.clear();
        Ok(())
    }

    /// What is in memory, with each row as its index in some rows. `None` if the source loads any block quickly.
    pub(crate) fn stopped(&self) -> Option<InMemory<(&Rows, usize)>> {
        let source = self.source.position()?;
        let order = self.order.as_ref().map(|(_, order)| order);
        let state = Stopped { cursor: self.cursor, block_rows: order.map(|order| order.len() as u64), source };
        let rows = match order {
            Some(order) => {
                let left = &order[self.cursor.row as usize..];
                left.iter().map(|&(at, row)| (&self.rows[at as usize], row as usize)).collect()
            }
            None => self.rows.iter().flat_map(|rows| (0..rows.len()).map(move |row| (rows, row))).collect(),
        };
        Some(InMemory { state, begun: self.begun.clone(), rows })
    }

    /// Goes on where another buffer was [stopped](Self::stopped).
    pub(crate) fn go_on_from(&mut self, InMemory { state, begun, rows }: InMemory<Rows>) {
        self.source.go_on_from(state.source);
        self.order = state.block_rows.map(|_| {
            // The rows before the cursor are never drawn again, so they were not kept.
            let drawn = std::iter::repeat_n((0, 0), state.cursor.row as usize);
            (state.cursor.place, drawn.chain(places(&rows)).collect())
        });
        (self.cursor, self.begun, self.rows) = (state.cursor, begun, rows);
    }

    /// Loads the cursor's block into memory, and moves on to the next one while it has no rows left.
    fn load_block(&mut self) -> Result<()> {
        loop {
            if !self.read()? {
                self.next_epoch()?;
                continue;
            }
            let n_rows = self.order.as_ref().map_or(0, |(_, order)| order.len() as u64);
            if self.cursor.row < n_rows {
                return Ok(());
            }
            self.rows_of_epoch += n_rows;
            self.cursor.place.block += 1;
            self.cursor.row = 0;
        }
    }

    fn next_epoch(&mut self) -> Result<()> {
        // A resumed run may start at the end of an epoch. Only a run that read the whole epoch can tell that it is
        // empty.
        if self.rows_of_epoch == 0 && self.order.as_ref().is_none_or(|(_, order)| order.is_empty()) {
            let expected = "at least one row that is not at position 0 and not an attention sink";
            return Err(Error::invalid("activations to train on", expected, "none"));
        }
        self.rows_of_epoch = 0;
        self.cursor =
            Cursor { place: BlockPlace { epoch: self.cursor.place.epoch + 1, block: 0 }, ..Cursor::default() };
        Ok(())
    }

    /// Reads the cursor's block, unless it is in memory, and draws its order. Returns `false` if the epoch has no such
    /// block.
    fn read(&mut self) -> Result<bool> {
        let place = self.cursor.place;
        if self.order.as_ref().is_some_and(|(of, _)| *of == place) {
            return Ok(true);
        }
        self.order = None; // while the source replaces the rows
        if !self.source.load(place, &mut self.rows)? {
            return Ok(false);
        }
        let mut order: Vec<(u32, u32)> = places(&self.rows).collect();
        order.shuffle(&mut random(self.seed, place.epoch, place.block));
        self.order = Some((place, order));
        self.cursor.began_at = self.source.began_at();
        Ok(true)
    }
}

/// (index in `rows`, row) of every row.
fn places(rows: &[Rows]) -> impl Iterator<Item = (u32, u32)> {
    rows.iter().enumerate().flat_map(|(at, rows)| (0..rows.len() as u32).map(move |row| (at as u32, row)))
}

fn copy(rows: &[Rows], places: &[(u32, u32)], scales: &[f32], x: &mut [f32], width: usize) {
    x.par_chunks_exact_mut(width)
        .zip(places)
        .with_min_len(64)
        .for_each(|(x, &(at, row))| rows[at as usize].copy_row(row as usize, scales, x));
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use harvester::Values;

    use super::*;
    use crate::data::{
        rows::{Column, RowSource},
        shard_source::ShardSource,
    };

    /// Groups of the given sizes. Every row holds its own number in both of its dimensions.
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
        fn widths(&self) -> &[usize] {
            &[2]
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
            let column = Column { values: Values::F32(values), width: 2 };
            Ok(Rows::kept(vec![column], &vec![true; self.sizes[group]]))
        }
    }

    fn shuffled(source: &Numbered, seed: u64, budget: u64, cursor: Cursor) -> ShuffleBuffer<ShardSource<'_, Numbered>> {
        ShuffleBuffer::new(ShardSource::new(source, seed, budget), seed, cursor)
    }

    /// The row numbers of the next `n` rows.
    fn take(buffer: &mut ShuffleBuffer<ShardSource<'_, Numbered>>, n: usize) -> Vec<usize> {
        let mut x = vec![f32::NAN; n * 2];
        buffer.next_batch(&[1.0], &mut x).unwrap();
        x.chunks(2).map(|row| if row[0] == row[1] { row[0] as usize } else { usize::MAX }).collect()
    }

    #[test]
    fn an_epoch_has_every_row_once_and_epochs_differ() {
        let source = Numbered::new(&[5, 7, 3, 6]);
        for budget in [1, 80, 1 << 20] {
            let mut buffer = shuffled(&source, 1, budget, Cursor::default());
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
        let mut whole = shuffled(&source, 1, 80, Cursor::default());
        let rows = take(&mut whole, 60);
        for n in [1, 4, 20, 21, 22, 41, 42, 59] {
            let mut before = shuffled(&source, 1, 80, Cursor::default());
            take(&mut before, n);
            let mut after = shuffled(&source, 1, 80, before.cursor());
            assert_eq!(take(&mut after, 60 - n), rows[n..], "cut after {n} rows");
        }
    }

    #[test]
    fn what_fits_is_read_once() {
        let source = Numbered::new(&[5, 7, 3, 6]);
        let mut buffer = shuffled(&source, 1, 1 << 20, Cursor::default());
        take(&mut buffer, 5 * source.total());
        assert_eq!(source.reads.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn the_seed_decides_the_order() {
        let source = Numbered::new(&[50]);
        let order = |seed| take(&mut shuffled(&source, seed, 1 << 20, Cursor::default()), 50);
        assert_eq!(order(1), order(1));
        assert_ne!(order(1), order(2));
    }

    #[test]
    fn no_rows_at_all_is_an_error_and_not_a_loop() {
        for sizes in [&[][..], &[0, 0]] {
            let source = Numbered::new(sizes);
            let mut buffer = shuffled(&source, 1, 1 << 20, Cursor::default());
            assert!(buffer.next_batch(&[1.0], &mut [0.0; 2]).is_err());
        }
    }
}
