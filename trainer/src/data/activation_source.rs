//! [`ActivationSource`]: gives an SAE's training rows block by block. There are two sources: files, from a harvest or
//! any other program ([`crate::data::shard_source`]), and a model that computes the rows now
//! ([`crate::data::live_source`]).

use harvester::ContextCursor;
use serde::{Deserialize, Serialize};

use crate::{Result, data::rows::Rows};

/// Rows in blocks that fit in memory. A block is shuffled as a whole, and has the same rows each time it is loaded.
pub(crate) trait ActivationSource {
    /// Number of values in each column of a row.
    fn widths(&self) -> &[usize];

    /// Replaces `rows` by the rows of the block at `place`, or returns `false` if the epoch has no such block. On
    /// entry, `rows` holds the block loaded last, or nothing; a source may keep rows that stay the same.
    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool>;

    /// Position in the stream of contexts at which the block loaded last begins. `None` for a source that can find any
    /// block by its number.
    fn began_at(&self) -> Option<ContextCursor>;
}

/// A block's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct BlockPlace {
    /// Pass over the data, counted from 0.
    pub(crate) epoch: u64,
    /// Block of the epoch, counted from 0.
    pub(crate) block: u64,
}
