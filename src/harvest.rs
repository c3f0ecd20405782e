//! `refract harvest`.

use std::path::{Path, PathBuf};

use anyhow::Context;
use harvester::{
    Compute, Corpus, CorpusOptions, CorpusPart, Document, HarvestConfig, HarvestManifest, HookPattern, LanguageModel,
    Layout, Location, LongDocuments, Manifest, ModelConfig, ModelSource, Packing, SpecialToken, StorageDtype,
    TextTokenizer, open_corpus,
};
use serde::Deserialize;

use crate::{
    cli::HarvestArgs,
    settings,
    terminal::{Terminal, grouped, human_bytes, human_flop, human_seconds},
};

/// The flags and the config file, resolved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    pub(crate) model: String,
    pub(crate) corpus: Vec<PathBuf>,
    hook_point: Vec<HookPattern>,
    out: Option<PathBuf>,
    tokens: Option<u64>,
    ctx_len: usize,
    batch: usize,
    compute: Compute,
    dtype: StorageDtype,
    layout: Layout,
    seed: u64,
    no_shuffle: bool,
    separator: SpecialToken,
    bos: SpecialToken,
    document_tokens: Option<usize>,
    part_tokens: usize,
    part: Option<CorpusPart>,
    packing: Packing,
    long_documents: LongDocuments,
    min_document_tokens: usize,
    text_field: String,
    chat_field: Option<String>,
    max_document_mib: u64,
    skip_malformed: bool,
    keep_duplicates: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let (config, options) = (HarvestConfig::default(), CorpusOptions::default());
        Self {
            model: ModelSource::Default.to_string(),
            corpus: vec![],
            hook_point: vec![],
            out: None,
            tokens: config.tokens,
            ctx_len: config.ctx_len,
            batch: config.batch,
            compute: config.compute,
            dtype: config.dtype,
            layout: config.layout,
            seed: config.seed.unwrap_or(0),
            no_shuffle: config.seed.is_none(),
            separator: config.separator,
            bos: config.bos,
            document_tokens: config.document_tokens,
            part_tokens: config.part_tokens,
            part: config.part,
            packing: config.packing,
            long_documents: config.long_documents,
            min_document_tokens: config.min_document_tokens,
            text_field: options.text_field,
            chat_field: options.chat_field,
            max_document_mib: options.max_document_bytes >> 20,
            skip_malformed: options.skip_malformed,
            keep_duplicates: !options.drop_duplicates,
        }
    }
}

impl Settings {
    /// Of two settings that exclude each other, the one given as a flag wins over the file's.
    ///
    /// # Errors
    /// When a flag would have no effect.
    fn settle(&mut self, args: &HarvestArgs) -> anyhow::Result<()> {
        self.no_shuffle &= args.seed.is_none();
        if args.text_field.is_some() {
            self.chat_field = None;
        }
        anyhow::ensure!(
            args.long_documents.is_none() || self.packing == Packing::Document,
            "--long-documents has an effect only with --packing document"
        );
        Ok(())
    }

    /// The model, for computing in the numbers asked for.
    pub(crate) fn open_model(&self, terminal: &Terminal) -> anyhow::Result<LanguageModel> {
        let model = self.model.parse::<ModelSource>()?.resolve(terminal)?;
        Ok(LanguageModel::open(&model, self.compute)?)
    }

    /// How the corpus is read.
    ///
    /// # Errors
    /// When the bound on a document is none.
    pub(crate) fn corpus_options(&self) -> anyhow::Result<CorpusOptions> {
        Ok(CorpusOptions {
            text_field: self.text_field.clone(),
            chat_field: self.chat_field.clone(),
            drop_duplicates: !self.keep_duplicates,
            skip_malformed: self.skip_malformed,
            max_document_bytes: settings::mib("max-document-mib", self.max_document_mib)?,
        })
    }

    /// What is harvested of `model`.
    pub(crate) fn config(&self, model: &ModelConfig) -> anyhow::Result<HarvestConfig> {
        Ok(HarvestConfig {
            hook_points: HookPattern::resolve(&self.hook_point, model)?,
            ctx_len: self.ctx_len,
            batch: self.batch,
            tokens: self.tokens,
            compute: self.compute,
            dtype: self.dtype,
            layout: self.layout,
            seed: (!self.no_shuffle).then_some(self.seed),
            separator: self.separator,
            bos: self.bos,
            document_tokens: self.document_tokens,
            packing: self.packing,
            long_documents: self.long_documents,
            min_document_tokens: self.min_document_tokens,
            part_tokens: self.part_tokens,
            part: self.part,
        })
    }
}

pub(crate) fn run(args: &HarvestArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let mut settings: Settings = settings::resolve("harvest", args, config)?;
    settings.settle(args)?;
    anyhow::ensure!(!settings.corpus.is_empty(), "harvest needs --corpus: text files, .jsonl files or folders of them");
    let out = settings.out.clone().context("harvest needs --out: the folder to write")?;
    let model = settings.open_model(terminal)?;
    let harvest_config = settings.config(model.config())?;
    let manifest = harvest(&model, &settings.corpus, &settings.corpus_options()?, &harvest_config, &out, terminal)?;
    report(&manifest, &out, terminal)
}

/// Reads the corpus, says what will be needed, harvests.
pub(crate) fn harvest(
    model: &LanguageModel,
    corpus: &[PathBuf],
    options: &CorpusOptions,
    config: &HarvestConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<HarvestManifest> {
    config.check(model.config())?;
    let location = Location::named(out)?;
    let corpus = open_corpus(corpus, options, &location, None)?;
    let before = HarvestManifest::read(&location).ok();
    if before.as_ref().is_none_or(|found| !found.complete) {
        terminal.say_when_begun(needs(model, &corpus, config)?);
    }
    let manifest = harvester::harvest(model, &corpus, config, location, terminal)?;
    match before {
        Some(found) if found.complete && found.counts == manifest.counts => {
            terminal.say(format!("{}: finished before", out.display()));
        }
        Some(found) if found.complete => {
            let (from, to) = (grouped(found.counts.tokens), grouped(manifest.counts.tokens));
            terminal.say(format!("{}: extended from {from} to {to} tokens", out.display()));
        }
        _ => {}
    }
    Ok(manifest)
}

/// The first line of a run: what it will take.
fn needs(model: &LanguageModel, corpus: &Corpus, config: &HarvestConfig) -> anyhow::Result<String> {
    let shape = model.config();
    let layers = config.hook_points.iter().map(|point| point.layers_needed()).max().unwrap_or(0);
    let row_bytes: usize = config.hook_points.iter().map(|point| config.dtype.row_bytes(point.width(shape))).sum();
    // What a part of the corpus has, or the whole of it.
    let there = || -> anyhow::Result<u64> {
        let tokens = corpus.bytes() as f64 / bytes_per_token(model.tokenizer(), corpus)?;
        Ok((tokens / config.part.map_or(1.0, |part| part.of() as f64)) as u64)
    };
    let tokens = match config.tokens {
        // No more than there can be: a token has a byte or more.
        Some(tokens) => tokens.min(corpus.bytes().max(1)),
        None => there()?,
    };
    let bytes_per_token = row_bytes + 4 * config.hook_points.len() + 24;
    let flop = tokens as f64 * shape.flop_per_token(layers, config.ctx_len) as f64;
    let seconds = flop / harvester::machine::gemm_flops();
    Ok(format!(
        "{} tokens through {layers} of {} layers of {}: about {}, {} on disk",
        grouped(tokens),
        shape.n_layers,
        model.source(),
        human_seconds(seconds / forward_efficiency(config.compute)),
        human_bytes(tokens * bytes_per_token as u64),
    ))
}

/// How long a token of the corpus is, by a few of its documents.
fn bytes_per_token(tokenizer: &TextTokenizer, corpus: &Corpus) -> anyhow::Result<f64> {
    let (mut bytes, mut tokens) = (1, 1);
    for sample in 0..SAMPLES.min(corpus.n_documents()) {
        let document = sample * corpus.n_documents() / SAMPLES.min(corpus.n_documents());
        let text = match corpus.document(document)? {
            Document::Text(text) => text,
            Document::Chat(messages) | Document::IncompleteChat(messages) => {
                messages.into_iter().map(|message| message.content).collect()
            }
        };
        let text: String = text.chars().take(SAMPLE_CHARACTERS).collect();
        bytes += text.len();
        let encoded = tokenizer.encode(&text);
        tokens += encoded
            .with_context(|| format!("{}: this document cannot be made into tokens", corpus.place_of(document)))?
            .len();
    }
    Ok(bytes as f64 / tokens as f64)
}

/// Documents that the length of a token is estimated by, and characters of each at most.
const SAMPLES: u64 = 8;
const SAMPLE_CHARACTERS: usize = 16_384;

/// Share of the rate of f32 matrix products that a whole forward pass reaches (`just bench`).
pub(crate) fn forward_efficiency(compute: Compute) -> f64 {
    match compute {
        Compute::F32 => 0.8,
        Compute::Int8 => 1.7,
    }
}

pub(crate) fn report(manifest: &HarvestManifest, out: &Path, terminal: &Terminal) -> anyhow::Result<()> {
    let counts = &manifest.counts;
    terminal.line(format!(
        "{}: {} tokens in {} contexts from {} documents, {} layers run, {} a token",
        out.display(),
        grouped(counts.tokens),
        grouped(counts.contexts),
        grouped(counts.documents),
        manifest.layers_run,
        human_flop(manifest.flop_per_token),
    ));
    let left_out = [
        (counts.duplicates + counts.left_out.repeated_documents, "repeated documents"),
        (counts.left_out.empty_documents, "empty documents"),
        (counts.left_out.short_documents, "short documents"),
        (counts.left_out.refused_documents, "conversations that the chat template refuses"),
        (counts.left_out.truncated_tokens, "tokens of long documents"),
        (counts.malformed_lines, "malformed lines (-v names them)"),
        (counts.skipped_files, "files of folders (hidden, not text, .json or .csv, or links)"),
        (counts.dropped_tokens, "tokens after the last whole context"),
    ];
    let said: Vec<_> =
        left_out.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{} {what}", grouped(*n))).collect();
    if !said.is_empty() {
        terminal.say(format!("left out: {}", said.join(", ")));
    }
    terminal.json(&serde_json::json!({ "out": out, "counts": counts, "complete": manifest.complete }))
}
