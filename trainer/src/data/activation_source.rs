//! [`ActivationSource`]: where an SAE's training rows come from, a block at a time. Two sources: files, harvested or
//! anybody's ([`crate::data::shard_source`]), and a model that computes the rows now ([`crate::data::live_source`]).

use harvester::ContextCursor;
use serde::{Deserialize, Serialize};

use crate::{Result, data::rows::Rows};

/// Rows in blocks that fit in memory. A block is shuffled as a whole; its rows are the same whenever it is loaded.
pub(crate) trait ActivationSource {
    /// Values of each column of a row.
    fn widths(&self) -> &[usize];

    /// Makes `rows` those of the block at `place`; `false` where the epoch has no such block. `rows` are those of the
    /// block loaded last, or none: a source may keep what is the same.
    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool>;

    /// Where in the stream of contexts the block loaded last begins. `None` for a source that finds any block by its
    /// place.
    fn began_at(&self) -> Option<ContextCursor>;
}

/// A block's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct BlockPlace {
    /// Pass over the data, from 0.
    pub(crate) epoch: u64,
    /// Block of the epoch, from 0.
    pub(crate) block: u64,
}
