//! [`LiveSource`]: blocks of rows that a model computes while the SAE learns, in the order of the corpus' contexts.
//! Nothing is written to disk. A block mixes only its own rows; the shuffled order of the documents does the rest.
//!
//! ```text
//! contexts:  | held out | block 0 | block 1 | ..         epoch 1 begins again at block 0
//! ```

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
    /// The run's folder, named in the error when the user stops the run.
    out: &'a Path,
    monitor: &'a dyn Monitor,
}

impl<'a> LiveSource<'a> {
    /// Starts with the block of `cursor`: the first block, or the one at which a run was stopped.
    pub(crate) fn new(
        model: &'a LiveModel,
        rows: LiveRows,
        cursor: Cursor,
        out: &'a Path,
        monitor: &'a dyn Monitor,
    ) -> Self {
        let begins = cursor.began_at.unwrap_or(rows.first);
        Self { model, rows, stream: None, next: (cursor.place, begins), began_at: begins, out, monitor }
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
        let (block_rows, sink_norms) = (self.rows.block_rows, self.rows.sink_norms.clone());
        let (out, monitor) = (self.out, self.monitor);
        rows.clear();
        let stream = self.stream_at(place)?;
        let (mut n_rows, mut end) = (0, None);
        monitor.start("filling the shuffle buffer", block_rows, "tokens");
        while n_rows < block_rows {
            if monitor.cancelled() {
                return Err(harvester::Error::Cancelled { path: out.to_path_buf() }.into());
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
        self.next = (BlockPlace { block: place.block + 1, ..place }, end);
        Ok(true)
    }

    fn began_at(&self) -> Option<ContextCursor> {
        Some(self.began_at)
    }
}
