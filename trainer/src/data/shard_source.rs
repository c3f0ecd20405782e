//! [`ShardSource`]: blocks of row groups from files, of a harvest or any other program. Each epoch has the groups in a
//! random order.

use harvester::ContextCursor;
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::{
    Result,
    data::{
        activation_source::{ActivationSource, BlockPlace},
        rows::{RowSource, Rows},
    },
};

/// Stream number of the generator that orders an epoch's groups. No epoch has so many blocks.
const GROUP_ORDER: u64 = u32::MAX as u64;

/// Blocks of the groups of a [`RowSource`].
pub(crate) struct ShardSource<'a, S: ?Sized> {
    source: &'a S,
    seed: u64,
    budget_bytes: u64,
    /// The groups of each block of an epoch.
    blocks: Option<(u64, Vec<Vec<usize>>)>,
    /// The groups loaded last, ascending.
    loaded: Option<Vec<usize>>,
}

impl<'a, S: RowSource + ?Sized> ShardSource<'a, S> {
    /// Blocks of at most `budget_bytes`, or of a single group that is larger than that. The order of the groups is
    /// drawn from `seed`.
    pub(crate) fn new(source: &'a S, seed: u64, budget_bytes: u64) -> Self {
        Self { source, seed, budget_bytes, blocks: None, loaded: None }
    }

    /// The groups of a block; `None` after the epoch's last.
    fn groups(&mut self, place: BlockPlace) -> Option<Vec<usize>> {
        if self.blocks.as_ref().is_none_or(|(of, _)| *of != place.epoch) {
            self.blocks = Some((place.epoch, self.blocks_of(place.epoch)));
        }
        self.blocks.as_ref()?.1.get(place.block as usize).cloned()
    }

    /// Cuts an epoch into blocks that fit the budget.
    fn blocks_of(&self, epoch: u64) -> Vec<Vec<usize>> {
        let sizes = self.source.group_sizes();
        let mut groups: Vec<usize> = (0..sizes.len()).collect();
        groups.shuffle(&mut random(self.seed, epoch, GROUP_ORDER));
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
}

impl<S: RowSource + ?Sized> ActivationSource for ShardSource<'_, S> {
    fn widths(&self) -> &[usize] {
        self.source.widths()
    }

    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool> {
        let Some(groups) = self.groups(place) else { return Ok(false) };
        if self.loaded.as_ref() != Some(&groups) {
            rows.clear(); // frees the old block before the new one is read: the budget is for one block
            *rows = groups.par_iter().map(|&group| self.source.read(group)).collect::<Result<_>>()?;
            self.loaded = Some(groups);
        }
        Ok(true)
    }

    fn began_at(&self) -> Option<ContextCursor> {
        None
    }
}

/// The generator for one block of one epoch. It depends only on the seed and these numbers, not on a generator's
/// running state.
pub(crate) fn random(seed: u64, epoch: u64, block: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch << 32 | block);
    random
}
