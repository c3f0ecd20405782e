//! [`LiveSource`]: blocks of rows that a model computes while the SAE learns, in the order of the corpus' contexts. No
//! disk is involved, and the documents' shuffled order mixes what one block cannot.
//!
//! ```text
//! contexts:  | held out | block 0 | block 1 | ..         epoch 1 begins again after those held out
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

/// Where the rows are and which of them count.
#[derive(Debug, Clone)]
pub(crate) struct LiveRows {
    /// One forward pass computes them all.
    pub(crate) hook_points: Vec<HookPoint>,
    /// Values a row at each hook point.
    pub(crate) widths: Vec<usize>,
    /// Rows of a larger norm at any hook point are dropped, together with position 0.
    pub(crate) sink_norms: Vec<f32>,
    /// Where an epoch begins: after the contexts held out.
    pub(crate) first: ContextCursor,
    /// Rows of a block: it ends with the forward pass that reaches them.
    pub(crate) block_rows: u64,
}

/// Blocks of a running [`ActivationStream`].
pub(crate) struct LiveSource<'a> {
    model: &'a LiveModel,
    rows: LiveRows,
    stream: Option<ActivationStream>,
    /// The block that the stream reaches next, and where it begins.
    next: (BlockPlace, ContextCursor),
    /// Where the block loaded last begins.
    began_at: ContextCursor,
    /// The run's folder, which the error of a stop names.
    out: &'a Path,
    monitor: &'a dyn Monitor,
}

impl<'a> LiveSource<'a> {
    /// Goes on with the block of `cursor`, where a run was stopped; else with the first.
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

    /// The stream, at the block wanted.
    fn stream_at(&mut self, place: BlockPlace) -> Result<&mut ActivationStream> {
        if place != self.next.0 {
            assert_eq!(place.block, 0, "blocks are asked for in order: only the first of an epoch is not the next");
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
