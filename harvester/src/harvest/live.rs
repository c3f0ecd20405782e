//! [`LiveModel`]: activations as they are computed, without a disk. A thread runs the model
//! and waits while a few batches have not been taken, so memory stays constant; dropping the stream ends it.
//!
//! A stream may start at any [`ContextCursor`] that another one has passed, and then yields the same bits from there
//! on.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    thread,
};

use super::{
    estimate::HarvestEstimate,
    harvester::{Harvester, begin, settle},
};
use crate::{
    ActivationRows, Context, ContextCursor, Corpus, DocumentRecord, Error, HarvestConfig, HarvestManifest, HookPoint,
    LanguageModel, Location, Result,
    activations::{StoredBatch, norms},
    text::{Contexts, Document, DocumentOrder},
};

/// Number of batches computed ahead.
const QUEUE: usize = 2;

/// A model and a corpus, ready to compute activations from any position on.
#[derive(Clone)]
pub struct LiveModel {
    model: LanguageModel,
    /// The config, with its special tokens resolved.
    config: Arc<HarvestConfig>,
    corpus: Arc<Corpus>,
    order: Arc<DocumentOrder>,
}

/// One forward pass.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamedBatch {
    /// The rows of its contexts, for each of the stream's hook points.
    pub activations: Vec<ActivationRows>,
    /// Position at which the next batch starts.
    pub next: ContextCursor,
}

/// Activations at some hook points, in the order of the corpus' contexts.
#[derive(Debug)]
struct ActivationStream {
    batches: Receiver<Result<StreamedBatch>>,
    /// `None` once the thread was joined.
    thread: Option<thread::JoinHandle<()>>,
}

impl LiveModel {
    /// `config` has the same meaning as for [`crate::harvest()`], except that its token budget is ignored.
    ///
    /// # Errors
    /// If the config does not fit the model.
    pub fn new(model: &LanguageModel, corpus: impl Into<Arc<Corpus>>, config: &HarvestConfig) -> Result<Self> {
        let corpus = corpus.into();
        let config = settle(config, model)?;
        let order = corpus.order(config.seed).of_part(config.part);
        Ok(Self { model: model.clone(), config: config.into(), corpus, order: order.into() })
    }

    /// The manifest that a harvest into `out` would begin with: it describes the model, the corpus and the config.
    ///
    /// # Errors
    /// If the model's files cannot be read.
    pub fn manifest(&self, out: &Location) -> Result<HarvestManifest> {
        begin(&self.model, &self.corpus, &self.config, out)
    }

    /// A function that finds the source of a document by its number, as an index into the manifest's source names.
    pub fn source_of(&self) -> impl Fn(u64) -> Option<usize> + use<> {
        let sources = self.corpus.document_sources();
        move |document| sources.of(document)
    }

    /// Documents of the corpus, by number: their files, lines and rows.
    ///
    /// # Errors
    /// If the corpus cannot be read.
    pub fn documents(&self, numbers: &HashSet<u64>) -> Result<Vec<DocumentRecord>> {
        let mut numbers: Vec<u64> = numbers.iter().copied().collect();
        numbers.sort_unstable();
        numbers.into_iter().map(|document| DocumentRecord::of(&self.corpus, document)).collect()
    }

    /// The token budget of the config in contexts; `None` without one. [`Self::stream`] goes on after it.
    pub fn n_contexts(&self) -> Option<u64> {
        self.config.tokens.map(|_| self.config.context_budget())
    }

    /// Number of documents of the corpus, or of the config's part of it.
    pub fn n_documents(&self) -> u64 {
        self.order.n_documents()
    }

    /// Number of tokens of all contexts, estimated from a few documents if the config has no token budget.
    ///
    /// # Errors
    /// A document that cannot be read or tokenized.
    pub fn estimated_tokens(&self) -> Result<u64> {
        Ok(HarvestEstimate::new(&self.model, &self.corpus, &self.config, 0)?.tokens)
    }

    /// The activations at `hook_points` from `from` on, to the end of the corpus; one forward pass computes all of
    /// them.
    ///
    /// # Errors
    /// If the config does not include one of them, or the weights cannot be read.
    pub fn stream(
        &self,
        hook_points: &[HookPoint],
        from: ContextCursor,
    ) -> Result<impl Iterator<Item = Result<StreamedBatch>> + use<>> {
        let points: Vec<usize> = hook_points.iter().map(|point| self.place_of(*point)).collect::<Result<_>>()?;
        self.model.transformer()?; // here, so that this call can return an error
        let (sender, batches) = sync_channel(QUEUE);
        let live = self.clone();
        let thread = thread::spawn(move || {
            let send = |batch| sender.send(batch).map_err(drop);
            if let Err(error) = live.compute_all(&points, from, send) {
                let _ = sender.send(Err(error)); // if the receiver is gone, nobody needs the error
            }
        });
        Ok(ActivationStream { batches, thread: Some(thread) })
    }

    /// Index of `hook_point` among those that a pass computes.
    fn place_of(&self, hook_point: HookPoint) -> Result<usize> {
        let points = &self.config.hook_points;
        points.iter().position(|point| *point == hook_point).ok_or_else(|| {
            let names: Vec<_> = points.iter().map(ToString::to_string).collect();
            Error::invalid("hook point", format!("one of {}", names.join(", ")), hook_point.to_string())
        })
    }

    /// Computes batch after batch until `send` reports that the receiver is gone.
    fn compute_all(
        &self,
        points: &[usize],
        from: ContextCursor,
        send: impl Fn(Result<StreamedBatch>) -> std::result::Result<(), ()>,
    ) -> Result<()> {
        let harvester = Harvester::new(&self.model, &self.config)?;
        let encode = |document: &Document| harvester.encode(document);
        let options = self.config.context_options();
        let mut contexts = Contexts::new(&self.corpus, &self.order, options, from, None, encode)?;
        loop {
            let batch: Vec<Context> = contexts.by_ref().take(self.config.batch).collect::<Result<_>>()?;
            let Some(last) = batch.last() else { return Ok(()) };
            let next = last.next;
            let activations = self.rows(points, &batch, harvester.compute(&batch)?)?;
            if send(Ok(StreamedBatch { activations, next })).is_err() {
                return Ok(());
            }
        }
    }

    /// The batch as in a shard: rounded to the dtype, with the norms of the rounded rows. `computed` has every hook
    /// point of the config; `points` are the indices of the requested ones.
    fn rows(&self, points: &[usize], contexts: &[Context], mut computed: Vec<Vec<f32>>) -> Result<Vec<ActivationRows>> {
        let config = &self.config;
        let computed: Vec<_> = points.iter().map(|&point| std::mem::take(&mut computed[point])).collect();
        let hook_points = points.iter().map(|&point| config.hook_points[point]);
        let widths: Vec<_> = hook_points.map(|point| (point, point.width(self.model.config()))).collect();
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
        f.debug_struct("LiveModel").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Iterator for ActivationStream {
    type Item = Result<StreamedBatch>;

    /// Waits for the next batch; `None` after the corpus' last batch.
    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.batches.recv().ok();
        if batch.is_none()
            && let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join)
        {
            // A panic is a bug, not the end of the corpus.
            std::panic::resume_unwind(panic);
        }
        batch
    }
}
