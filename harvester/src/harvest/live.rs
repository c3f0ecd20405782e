//! [`LiveModel`] and [`ActivationStream`]: activations as they are computed, without a disk. A thread runs the model
//! and waits when a few batches are not taken yet, so memory stays flat; dropping the stream ends it.
//!
//! A stream may begin at any [`ContextCursor`] that another one has passed, and then yields the same bits from there
//! on.

use std::{
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use super::harvester::Harvester;
use crate::{
    ActivationRows, Context, ContextCursor, Contexts, Corpus, Document, DocumentOrder, Error, HarvestConfig, HookPoint,
    Result,
    activations::{StoredBatch, norms},
    source::ResolvedModel,
};

/// Batches computed ahead.
const QUEUE: usize = 2;

/// A model over a corpus, ready to compute activations from any place on.
#[derive(Clone)]
pub struct LiveModel {
    harvester: Arc<Harvester>,
    corpus: Arc<Corpus>,
    order: Arc<DocumentOrder>,
}

/// One forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamedBatch {
    /// The rows of its contexts, at each of the stream's hook points.
    pub activations: Vec<ActivationRows>,
    /// Where the next batch starts.
    pub next: ContextCursor,
}

/// Activations of some hook points, in the order of the corpus' contexts.
#[derive(Debug)]
pub struct ActivationStream {
    batches: Receiver<Result<StreamedBatch>>,
    /// Taken when it has ended.
    thread: Option<thread::JoinHandle<()>>,
}

impl LiveModel {
    /// Loads the model. `config` says what [`crate::harvest()`] would be told; its token budget does not matter here.
    ///
    /// # Errors
    /// When the model cannot be used, or the config does not fit it.
    pub fn open(model: &ResolvedModel, corpus: Corpus, config: &HarvestConfig) -> Result<Self> {
        let harvester = Harvester::open(model, config)?;
        let order = harvester.order(&corpus);
        Ok(Self { harvester: Arc::new(harvester), corpus: Arc::new(corpus), order: Arc::new(order) })
    }

    /// The activations at `hook_points` from `from` on, to the end of the corpus; one forward pass computes them all.
    ///
    /// # Errors
    /// When the config did not name one of them.
    pub fn stream(&self, hook_points: &[HookPoint], from: ContextCursor) -> Result<ActivationStream> {
        let points: Vec<usize> = hook_points.iter().map(|point| self.place_of(*point)).collect::<Result<_>>()?;
        let (sender, batches) = sync_channel(QUEUE);
        let live = self.clone();
        let thread = thread::spawn(move || {
            let send = |batch| sender.send(batch).map_err(drop);
            if let Err(error) = live.compute_all(&points, from, send) {
                let _ = sender.send(Err(error)); // where nobody listens any more, nobody needs to know
            }
        });
        Ok(ActivationStream { batches, thread: Some(thread) })
    }

    /// Place of `hook_point` among those that a pass computes.
    fn place_of(&self, hook_point: HookPoint) -> Result<usize> {
        let points = &self.harvester.config().hook_points;
        points.iter().position(|point| *point == hook_point).ok_or_else(|| {
            let names: Vec<_> = points.iter().map(ToString::to_string).collect();
            Error::invalid("hook point", format!("one of {}", names.join(", ")), hook_point.to_string())
        })
    }

    /// Computes batch after batch until `send` says that nobody wants more.
    fn compute_all(
        &self,
        points: &[usize],
        from: ContextCursor,
        send: impl Fn(Result<StreamedBatch>) -> std::result::Result<(), ()>,
    ) -> Result<()> {
        let config = self.harvester.config();
        let encode = |document: &Document| self.harvester.encode(document);
        let mut contexts = Contexts::new(&self.corpus, &self.order, config.context_options(), from, None, encode)?;
        loop {
            let batch: Vec<Context> = contexts.by_ref().take(config.batch).collect::<Result<_>>()?;
            let Some(last) = batch.last() else { return Ok(()) };
            let next = last.next;
            let activations = self.rows(points, &batch, self.harvester.compute(&batch)?)?;
            if send(Ok(StreamedBatch { activations, next })).is_err() {
                return Ok(());
            }
        }
    }

    /// The batch as a shard would hold it: rounded to the dtype, with the norm of what is left. `computed` has every
    /// hook point of the config; `points` are the places of those wanted.
    fn rows(&self, points: &[usize], contexts: &[Context], mut computed: Vec<Vec<f32>>) -> Result<Vec<ActivationRows>> {
        let config = self.harvester.config();
        let computed: Vec<_> = points.iter().map(|&point| std::mem::take(&mut computed[point])).collect();
        let hook_points = points.iter().map(|&point| config.hook_points[point]);
        let widths: Vec<_> = hook_points.map(|point| (point, point.width(self.harvester.model()))).collect();
        let batch = StoredBatch::round(&widths, config.dtype, contexts, &computed)?;
        let rows = batch.token_rows(config.part);
        let of_point = |(values, (_, d_model))| {
            let norm = norms(&values, d_model);
            ActivationRows { rows: rows.clone(), norm, values, d_model }
        };
        Ok(batch.values.into_iter().zip(widths).map(of_point).collect())
    }
}

impl std::fmt::Debug for LiveModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveModel").field("config", self.harvester.config()).finish_non_exhaustive()
    }
}

impl Iterator for ActivationStream {
    type Item = Result<StreamedBatch>;

    /// Waits for the next batch; `None` after the corpus' last.
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.recv().ok();
        if batch.is_none()
            && let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join)
        {
            // A bug, and not the corpus' end.
            std::panic::resume_unwind(panic);
        }
        batch
    }
}
