//! [`harvest`]: the loop that turns a model and a corpus into a folder of activations. Three threads in a row,
//! connected by short channels, so that tokenizing and writing overlap with computing, and memory stays constant:
//!
//! ```text
//! contexts -> [batch] -> forward pass up to the last hook point -> [activations] -> parts and manifest
//! ```
//!
//! Batches end where parts end. So the same contexts share a forward pass however often the run was interrupted, and
//! every computed bit is the same.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{self, ScopedJoinHandle},
};

use candle_core::DType;

use super::estimate::HarvestEstimate;
use crate::{
    ActivationDataset, Batch, Context, Corpus, CorpusOptions, Error, HarvestConfig, HarvestManifest, HookPoint,
    HookPointSummary, LanguageModel, Location, Monitor, Result, ShardWriter, TextTokenizer,
    activations::{Counts, Reached, begin_harvest, write_documents},
    human,
    model::{Capture, Transformer},
    numbers::HookPointStatistics,
    source::HubSettings,
    store::{Manifest, OutputFolder},
    text::{Contexts, Document, Encoded, LeftOut},
};

/// Most batches waiting between two threads.
const QUEUE: usize = 2;

/// Opens the corpus of a harvest into `out`. Results of opening it in an earlier run into `out` are used as long as no
/// file has changed. Datasets on the Hub are read at the commits of that run, even if it has finished.
///
/// # Errors
/// As for [`Corpus::open`].
pub fn open_corpus(paths: &[PathBuf], options: &CorpusOptions, out: &Location) -> Result<Corpus> {
    open_corpus_from(paths, options, out, None)
}

/// Like [`open_corpus`], with datasets from the Hub that `hub` describes; `None`: from the environment's Hub.
pub(super) fn open_corpus_from(
    paths: &[PathBuf],
    options: &CorpusOptions,
    out: &Location,
    hub: Option<&HubSettings>,
) -> Result<Corpus> {
    // A manifest that cannot be read is refused when the folder is opened for writing.
    let earlier = HarvestManifest::read(out).map_or_else(|_| vec![], |manifest| manifest.corpus);
    Corpus::open_saved(paths, options, &OutputFolder::at(out)?.resume().join(SAVED_CORPUS), &earlier, hub)
}

/// Harvests the activations of `model` over `corpus` into the folder `out`. If it holds an unfinished run with the same
/// inputs and settings, that run is continued after its last finished batch; a finished one is left unchanged. A larger
/// token budget extends a finished folder. `out` may be in an object store.
///
/// # Errors
/// If an input or the config cannot be used, `out` holds something else, a value does not fit the dtype, a file cannot
/// be written, or the user asked to stop. Finished parts are kept in every case.
pub fn harvest(
    model: &LanguageModel,
    corpus: &Corpus,
    config: &HarvestConfig,
    out: impl Into<Location>,
    monitor: &dyn Monitor,
) -> Result<HarvestManifest> {
    let out = out.into();
    let config = settle(config, model)?;
    let wanted = begin(model, corpus, &config, &out)?;
    let folder = OutputFolder::open(&out)?;
    let finished = folder.find::<HarvestManifest>()?.filter(|earlier| earlier.complete).map(|earlier| earlier.counts);
    let manifest = begin_harvest(&folder, wanted, &[])?;
    if manifest.complete {
        ActivationDataset::open(out.clone())?; // checks that every part has its recorded size
        monitor.say(&format!("{out}: finished before"));
        manifest.counts.left_out_in_words().iter().for_each(|line| monitor.say(line));
        return Ok(manifest);
    }
    folder.keep_command(monitor.command())?;
    corpus.save(&folder.unfinished(SAVED_CORPUS)?)?;
    let harvester = Harvester::new(model, &config)?;
    let log = folder.unfinished(READ_DOCUMENTS)?;
    let writer = ShardWriter::resume(folder, manifest, corpus.document_sources())?;
    if writer.tokens() == 0 || config.tokens.is_some() {
        // Without a budget it reads some documents, which a run that goes on need not do.
        monitor.say(&HarvestEstimate::new(model, corpus, &config, writer.tokens())?.to_string());
    }
    let total = config.tokens.map_or(0, |_| config.context_budget() * config.ctx_len as u64);
    monitor.start("harvest", total, "tokens");
    if writer.tokens() > 0 {
        tracing::info!(
            "continuing after {} tokens, {} of them in a journal",
            writer.tokens(),
            writer.journaled_tokens()
        );
    }
    monitor.skip(writer.tokens());
    let manifest = harvester.run(corpus, &log, writer, &out, monitor)?;
    monitor.finish();
    match finished.map(|counts| counts.tokens) {
        Some(tokens) if tokens == manifest.counts.tokens => monitor.say(&format!("{out}: finished before")),
        Some(tokens) => {
            let (from, to) = (human::grouped(tokens), human::grouped(manifest.counts.tokens));
            monitor.say(&format!("{out}: extended from {from} to {to} tokens"));
        }
        None => {}
    }
    manifest.counts.left_out_in_words().iter().for_each(|line| monitor.say(line));
    Ok(manifest)
}

/// The corpus of an unfinished harvest, saved by [`harvest`] in its folder of unfinished files for [`open_corpus`].
const SAVED_CORPUS: &str = "corpus.parquet";

/// The log of documents that were read, for [`Contexts`] and the table of documents.
const READ_DOCUMENTS: &str = "documents.log";

/// Checks `config` against the model and resolves its special tokens.
pub(crate) fn settle(config: &HarvestConfig, model: &LanguageModel) -> Result<HarvestConfig> {
    config.check(model.config())?;
    if config.compute != model.compute() {
        let expected = format!("{}, for which the model was opened", model.compute());
        return Err(Error::invalid("compute", expected, config.compute.to_string()));
    }
    config.resolve(model.tokenizer(), model.config())
}

/// The manifest of a run into `out` that has not finished a part yet.
pub(super) fn begin(
    model: &LanguageModel,
    corpus: &Corpus,
    config: &HarvestConfig,
    out: &Location,
) -> Result<HarvestManifest> {
    let shape = model.config();
    let points = &config.hook_points;
    let layers_run = points.iter().map(|point| point.layers_needed()).max().unwrap_or(0);
    let nothing_seen = |point: &HookPoint| HookPointStatistics::new(point.width(shape), f32::MAX);
    Ok(HarvestManifest {
        format: HarvestManifest::FORMAT.into(),
        version: HarvestManifest::VERSION,
        refract_version: env!("CARGO_PKG_VERSION").into(),
        complete: false,
        model: model.identity()?.seen_from(out),
        corpus: corpus.sources().to_vec(),
        sources: corpus.named_sources().to_vec(),
        corpus_options: corpus.options().clone(),
        config: config.clone(),
        merged_from: None,
        layers_run,
        flop_per_token: shape.flop_per_token(layers_run, config.ctx_len),
        counts: Counts {
            duplicates: corpus.sources().iter().map(|source| source.duplicates).sum(),
            skipped_files: corpus.sources().iter().map(|source| source.skipped_files).sum(),
            malformed_lines: corpus.sources().iter().map(|source| source.malformed_lines).sum(),
            ..Counts::default()
        },
        hook_points: points.iter().map(|point| HookPointSummary::new(*point, &nothing_seen(point))).collect(),
        parts: vec![],
        documents: None,
        roles: corpus.options().chat_field.is_some(),
    })
}

/// A model with its weights, and the config of what to compute with it.
pub(crate) struct Harvester<'a> {
    transformer: &'a Transformer,
    tokenizer: &'a TextTokenizer,
    config: &'a HarvestConfig,
}

/// Messages of the tokenizing thread.
enum FromText {
    /// Contexts of one forward pass.
    Batch(Vec<Context>),
    /// All requested contexts were sent.
    End(Leftover),
}

/// Counts of what was read of the corpus but is in no context.
#[derive(Debug, Clone, Copy, Default)]
struct Leftover {
    /// Tokens at the end of the corpus that did not fill a context.
    dropped_tokens: u64,
    /// Documents and parts of them.
    left_out: LeftOut,
    /// Documents read, in the harvest's order.
    read: u64,
}

/// The reasons, for messages about a corpus that is too short.
impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tokens in all", self.dropped_tokens)?;
        self.left_out.reasons().try_for_each(|reason| write!(f, ", and {reason}"))
    }
}

/// Messages of the computing thread: a batch's contexts, and for each hook point their values `[rows, width]`.
type Activations = (Vec<Context>, Vec<Vec<f32>>);

impl<'a> Harvester<'a> {
    /// Reads the model's weights if they are not read yet. `config` must come from [`settle`].
    pub(crate) fn new(model: &'a LanguageModel, config: &'a HarvestConfig) -> Result<Self> {
        Ok(Self { transformer: model.transformer()?, tokenizer: model.tokenizer(), config })
    }

    /// The token ids of a document, with their roles in a conversation.
    pub(crate) fn encode(&self, document: &Document) -> Result<Encoded> {
        match document {
            Document::Text(text) => self.tokenizer.encode(text).map(Encoded::of_text),
            Document::Chat(messages) if messages.is_empty() => Ok(Encoded::default()),
            Document::Chat(messages) => self.tokenizer.encode_chat(self.config.chat_date, messages),
            Document::IncompleteChat(messages) => {
                self.tokenizer.encode_incomplete_chat(self.config.chat_date, messages)
            }
        }
    }

    /// Runs the three threads to the end of the corpus or of the budget.
    fn run(
        &self,
        corpus: &Corpus,
        log: &Path,
        writer: ShardWriter,
        out: &Location,
        monitor: &dyn Monitor,
    ) -> Result<HarvestManifest> {
        let order = corpus.order(self.config.seed).of_part(self.config.part);
        let options = self.config.context_options();
        let encode = |document: &Document| self.encode(document);
        let contexts = Contexts::new(corpus, &order, options, writer.next(), Some(log), encode)?;
        thread::scope(|scope| {
            let (to_model, from_text) = sync_channel(QUEUE);
            // No queue here: a batch that is computed but not yet in the journal is lost if the process is killed.
            let (to_writer, from_model) = sync_channel(0);
            let reading = scope.spawn(|| send_batches(contexts, self.config, to_model));
            let writing = scope.spawn(|| write_all(writer, from_model));
            let computed = self.compute_all(from_text, to_writer, out, monitor);
            // A thread that stops early makes its neighbors stop; its own error is the cause and is reported first.
            let written = join(writing);
            let read = join(reading);
            let (mut writer, leftover) = match (written, read, computed) {
                (Err(error), _, _) | (_, Err(error), _) | (_, _, Err(error)) => return Err(error),
                (Ok(writer), Ok(()), Ok(leftover)) => (writer, leftover),
            };
            if writer.next().contexts == 0 {
                let expected = format!("enough text for one context of {} tokens", self.config.ctx_len);
                let found = leftover.to_string();
                return Err(Error::invalid("corpus", expected, found));
            }
            let next = writer.next();
            let reached = Reached { read: leftover.read, used: next.documents + u64::from(next.tokens > 0) };
            writer.add_documents(|path| write_documents(path, corpus, &order, log, reached))?;
            writer.finish_leaving_out(leftover.dropped_tokens, leftover.left_out)
        })
    }

    /// Runs the forward passes. Returns the counts of the leftover text.
    fn compute_all(
        &self,
        from_text: Receiver<FromText>,
        to_writer: SyncSender<Activations>,
        out: &Location,
        monitor: &dyn Monitor,
    ) -> Result<Leftover> {
        for message in from_text {
            let contexts = match message {
                FromText::Batch(contexts) => contexts,
                FromText::End(leftover) => return Ok(leftover),
            };
            if monitor.cancelled() {
                return Err(Error::Cancelled { place: out.to_string() });
            }
            let values = self.compute(&contexts)?;
            monitor.advance(contexts.iter().map(|context| context.tokens.len() as u64).sum());
            if to_writer.send((contexts, values)).is_err() {
                break; // the writer has failed and returns the error
            }
        }
        Ok(Leftover::default())
    }

    /// One forward pass. For each hook point: `[rows, width]`, row-major, the rows of all contexts concatenated.
    pub(crate) fn compute(&self, contexts: &[Context]) -> Result<Vec<Vec<f32>>> {
        let batch = Batch::of(contexts.iter().map(|context| &context.tokens));
        self.check_tokens(batch.tokens())?;
        let mut capture = Capture::new(self.config.hook_points.clone());
        self.transformer.run(&batch, &mut capture)?;
        let points = self.config.hook_points.iter();
        points
            .map(|point| {
                let values = capture.take(*point).expect("the pass runs up to the last captured point");
                Ok(values.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
            })
            .collect()
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<()> {
        let d_vocab = self.transformer.config().d_vocab;
        match tokens.iter().find(|token| **token as usize >= d_vocab) {
            None => Ok(()),
            Some(token) => {
                let expected = format!("a tokenizer for this model, whose vocabulary ends at {}", d_vocab - 1);
                Err(Error::invalid("tokenizer", expected, format!("one that gives token {token}")))
            }
        }
    }
}

/// The reading thread: contexts up to the budget, one batch at a time. A batch never crosses the end of its part.
fn send_batches<E: FnMut(&Document) -> Result<Encoded>>(
    mut contexts: Contexts<'_, E>,
    config: &HarvestConfig,
    to_model: SyncSender<FromText>,
) -> Result<()> {
    loop {
        let wanted = config.batch_contexts(contexts.cursor().contexts) as usize;
        let batch: Vec<Context> = contexts.by_ref().take(wanted).collect::<Result<_>>()?;
        let ended = wanted == 0 || batch.len() < wanted;
        if !batch.is_empty() && to_model.send(FromText::Batch(batch)).is_err() {
            return Ok(()); // the other threads have stopped and return the reason
        }
        if ended {
            let (dropped_tokens, left_out) = (contexts.dropped_tokens(), contexts.cursor().left_out);
            let read = contexts.end_log()?;
            // If the receiver is gone, the other threads return the reason.
            let _ = to_model.send(FromText::End(Leftover { dropped_tokens, left_out, read }));
            return Ok(());
        }
    }
}

/// The writing thread: writes all batches until the computing thread ends. Finished parts are then on disk.
fn write_all(mut writer: ShardWriter, from_model: Receiver<Activations>) -> Result<ShardWriter> {
    for (contexts, values) in from_model {
        writer.write(&contexts, &values)?;
    }
    Ok(writer)
}

/// The result of a thread; if it panicked, which is a bug, the panic continues in this thread.
fn join<T>(handle: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Compute, ContextCursor, ModelSource, Silent};

    /// Bit for bit where matrix products are our own; elsewhere the order of a sum depends on the number of rows.
    #[test]
    fn a_context_is_what_it_is_alone() {
        for family in ["llama", "gpt2", "gpt_neox"].into_iter().filter(|_| Compute::F32.has_own_products()) {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny").join(family);
            let model = ModelSource::Folder(path);
            let config = HarvestConfig {
                hook_points: vec![HookPoint::Embed, HookPoint::resid_post(1)],
                ctx_len: 16,
                ..HarvestConfig::default()
            };
            let model = LanguageModel::open(&model, config.compute, &Silent).unwrap();
            let harvester = Harvester::new(&model, &config).unwrap();
            let context = |index: u64, length: u32| Context {
                index,
                tokens: (0..length).map(|i| (7 * i + index as u32) % 40 + 1).collect(),
                documents: vec![0; length as usize],
                roles: vec![],
                next: ContextCursor::default(),
            };
            let contexts = [context(0, 5), context(1, 16), context(2, 1)];
            let batch = harvester.compute(&contexts).unwrap();
            let alone = contexts.map(|context| harvester.compute(&[context]).unwrap());
            for (point, batch) in batch.iter().enumerate() {
                let alone: Vec<f32> = alone.iter().flat_map(|context| &context[point]).copied().collect();
                assert!(*batch == alone, "{family}");
            }
        }
    }
}
