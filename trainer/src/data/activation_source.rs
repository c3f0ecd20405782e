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
    /// entry, `rows` holds the block loaded last, or nothing, or after [`Self::go_on_from`] the first rows of this
    /// block; a source may keep rows that stay the same.
    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool>;

    /// Position in the stream of contexts at which the block loaded last begins. `None` for a source that can find any
    /// block by its number.
    fn began_at(&self) -> Option<ContextCursor>;

    /// Where the rows come from next, for a source whose blocks take long to load again: what is in memory is then
    /// kept when the run is stopped.
    fn position(&self) -> Option<StreamPosition> {
        None
    }

    /// Goes on at a [`Self::position`].
    fn go_on_from(&mut self, _position: StreamPosition) {}
}

/// Position in a stream of rows that is cut into blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamPosition {
    /// The block that the next rows belong to.
    pub(crate) place: BlockPlace,
    /// Start of that block.
    pub(crate) began_at: ContextCursor,
    /// Start of the next rows.
    pub(crate) next: ContextCursor,
    /// Rows of that block so far.
    pub(crate) n_rows: u64,
    /// Rows in the blocks before it, in all epochs.
    pub(crate) rows_before: u64,
}

/// A block's number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct BlockPlace {
    /// Pass over the data, counted from 0.
    pub(crate) epoch: u64,
    /// Block of the epoch, counted from 0.
    pub(crate) block: u64,
}
