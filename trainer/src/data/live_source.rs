//! [`LiveSource`]: blocks of rows that a model computes while the SAE learns, in the order of the corpus' contexts.
//! Nothing is written to disk. A block mixes only its own rows; the shuffled order of the documents does the rest.
//!
//! ```text
//! contexts:  | held out | block 0 | block 1 | ..         epoch 1 begins again at block 0
//! ```
//!
//! The last block is only as large as what the run still draws, so that the model computes no rows in vain.

use std::path::Path;

use harvester::{ActivationStream, ContextCursor, HookPoint, LiveModel, Monitor};

use crate::{
    Result,
    data::{
        activation_source::{ActivationSource, BlockPlace},
        activations::ordinary_rows,
        rows::Rows,
        shuffle_buffer::Cursor,
    },
};

/// The hook points of the rows, and the rows that are used.
#[derive(Debug, Clone)]
pub(crate) struct LiveRows {
    /// One forward pass computes the activations at all of them.
    pub(crate) hook_points: Vec<HookPoint>,
    /// Width of a row at each hook point.
    pub(crate) widths: Vec<usize>,
    /// Rows whose norm exceeds this at any hook point are dropped, as is position 0.
    pub(crate) sink_norms: Vec<f32>,
    /// Start of an epoch: the first context after those held out.
    pub(crate) first: ContextCursor,
    /// Rows per block: a block ends with the forward pass that reaches this number.
    pub(crate) block_rows: u64,
    /// Rows that the whole run draws.
    pub(crate) rows_drawn: u64,
}

/// Blocks of a running [`ActivationStream`].
pub(crate) struct LiveSource<'a> {
    model: &'a LiveModel,
    rows: LiveRows,
    stream: Option<ActivationStream>,
    /// The block that the stream reaches next, and its start.
    next: (BlockPlace, ContextCursor),
    /// Start of the block loaded last.
    began_at: ContextCursor,
    /// Rows in the blocks before `next`, in all epochs.
    rows_before: u64,
    /// True if the next block had been in memory when the run was stopped.
    again: bool,
    /// The run's folder, named in the error when the user stops the run.
    out: &'a Path,
    monitor: &'a dyn Monitor,
}

impl<'a> LiveSource<'a> {
    /// Starts with the block of `cursor`: the first block, or the one at which a run was stopped. The run has drawn
    /// `drawn` rows, up to `cursor`.
    pub(crate) fn new(
        model: &'a LiveModel,
        rows: LiveRows,
        (cursor, drawn): (Cursor, u64),
        out: &'a Path,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let begins = cursor.began_at.unwrap_or(rows.first);
        let (rows_before, again) = (drawn - cursor.row, cursor.row > 0);
        let next = (cursor.place, begins);
        Self { model, rows, stream: None, next, began_at: begins, rows_before, again, out, monitor }
    }

    /// The stream, positioned at the block `place`.
    fn stream_at(&mut self, place: BlockPlace) -> Result<&mut ActivationStream> {
        if place != self.next.0 {
            assert_eq!(place.block, 0, "blocks are requested in order, except for the first of an epoch");
            self.next = (place, self.rows.first);
            self.stream = None;
        }
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.model.stream(&self.rows.hook_points, self.next.1)?,
        };
        Ok(self.stream.insert(stream))
    }
}

impl ActivationSource for LiveSource<'_> {
    fn widths(&self) -> &[usize] {
        &self.rows.widths
    }

    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool> {
        let left = self.rows.rows_drawn.saturating_sub(self.rows_before).max(1);
        let (block_rows, sink_norms) = (self.rows.block_rows.min(left), self.rows.sink_norms.clone());
        let (out, monitor) = (self.out, self.monitor);
        let again = if std::mem::take(&mut self.again) { " again (it is not kept on disk)" } else { "" };
        rows.clear();
        let stream = self.stream_at(place)?;
        let (mut n_rows, mut end) = (0, None);
        monitor.start(&format!("filling the shuffle buffer{again}"), block_rows, "tokens");
        while n_rows < block_rows {
            if monitor.cancelled() {
                return Err(harvester::Error::Cancelled { place: out.display().to_string() }.into());
            }
            let Some(batch) = stream.next().transpose()? else { break };
            end = Some(batch.next);
            let kept = ordinary_rows(batch.activations, &sink_norms, |_| true);
            monitor.advance((kept.len() as u64).min(block_rows - n_rows));
            n_rows += kept.len() as u64;
            rows.push(kept);
        }
        monitor.finish();
        self.began_at = self.next.1;
        let Some(end) = end else { return Ok(false) };
        self.rows_before += n_rows;
        self.next = (BlockPlace { block: place.block + 1, ..place }, end);
        Ok(true)
    }

    fn began_at(&self) -> Option<ContextCursor> {
        Some(self.began_at)
    }
}
