//! [`LiveSource`]: blocks of rows that a model computes while the SAE learns, in the order of the corpus' contexts.
//! No activations are written to disk, unless the run is stopped. A block mixes only its own rows; the shuffled order of the documents does the rest.
//!
//! ```text
//! contexts:  | held out | block 0 | block 1 | ..         epoch 1 begins again at block 0
//! ```
//!
//! The last block is only as large as what the run still draws, so that the model computes no rows in vain.

use std::path::Path;

use harvester::{ContextCursor, HookPoint, LiveModel, Monitor, StreamedBatch};

use crate::{
    Result,
    data::{
        activation_source::{ActivationSource, BlockPlace, StreamPosition},
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

/// Batches as the model computes them.
type Stream = Box<dyn Iterator<Item = harvester::Result<StreamedBatch>>>;

/// Blocks of a running stream.
pub(crate) struct LiveSource<'a> {
    model: &'a LiveModel,
    rows: LiveRows,
    stream: Option<Stream>,
    at: StreamPosition,
    /// Start of the block loaded last.
    began_at: ContextCursor,
    /// True if the next block had been in memory when the run was stopped, and was not kept.
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
        let at = StreamPosition {
            place: cursor.place,
            began_at: begins,
            next: begins,
            n_rows: 0,
            rows_before: drawn - cursor.row,
        };
        Self { model, rows, stream: None, at, began_at: begins, again: cursor.row > 0, out, monitor }
    }

    /// The stream, positioned at the block `place`.
    fn stream_at(&mut self, place: BlockPlace) -> Result<&mut Stream> {
        if place != self.at.place {
            assert_eq!(place.block, 0, "blocks are requested in order, except for the first of an epoch");
            let first = self.rows.first;
            self.at = StreamPosition { place, began_at: first, next: first, n_rows: 0, ..self.at };
            self.stream = None;
        }
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => Box::new(self.model.stream(&self.rows.hook_points, self.at.next)?),
        };
        Ok(self.stream.insert(stream))
    }
}

impl ActivationSource for LiveSource<'_> {
    fn widths(&self) -> &[usize] {
        &self.rows.widths
    }

    fn load(&mut self, place: BlockPlace, rows: &mut Vec<Rows>) -> Result<bool> {
        let left = self.rows.rows_drawn.saturating_sub(self.at.rows_before).max(1);
        let block_rows = self.rows.block_rows.min(left);
        let (out, monitor) = (self.out, self.monitor);
        let again = if std::mem::take(&mut self.again) { " again" } else { "" };
        self.stream_at(place)?;
        if self.at.n_rows == 0 {
            rows.clear();
        }
        monitor.start(&format!("filling the shuffle buffer{again}"), block_rows, "tokens");
        monitor.skip(self.at.n_rows);
        while self.at.n_rows < block_rows {
            if monitor.cancelled() {
                return Err(harvester::Error::Cancelled { place: out.display().to_string() }.into());
            }
            let Some(batch) = self.stream_at(place)?.next().transpose()? else { break };
            let kept = ordinary_rows(batch.activations, &self.rows.sink_norms, |_| true);
            let n_rows = kept.len() as u64;
            monitor.advance(n_rows.min(block_rows - self.at.n_rows));
            rows.push(kept);
            self.at = StreamPosition { next: batch.next, n_rows: self.at.n_rows + n_rows, ..self.at };
        }
        monitor.finish();
        let StreamPosition { began_at, next, n_rows, rows_before, .. } = self.at;
        self.began_at = began_at;
        if next == began_at {
            return Ok(false);
        }
        let place = BlockPlace { block: place.block + 1, ..place };
        self.at = StreamPosition { place, began_at: next, next, n_rows: 0, rows_before: rows_before + n_rows };
        Ok(true)
    }

    fn began_at(&self) -> Option<ContextCursor> {
        Some(self.began_at)
    }

    fn position(&self) -> Option<StreamPosition> {
        Some(self.at)
    }

    fn go_on_from(&mut self, position: StreamPosition) {
        (self.at, self.stream, self.again) = (position, None, false);
    }
}
