//! `refract harvest`.

use std::path::{Path, PathBuf};

use harvester::{
    Corpus, CorpusOptions, HarvestConfig, HarvestEstimate, HarvestManifest, HookPattern, LanguageModel, Location,
    Manifest, ModelConfig, ModelSource, open_corpus,
};
use serde_json::Value;

use crate::{
    cli::HarvestArgs,
    settings::{given, required},
    terminal::{Terminal, grouped, human_bytes, human_flop, human_seconds},
};

impl HarvestArgs {
    /// Finds or fetches the model, and opens it for the requested compute.
    pub(crate) fn model(&self, terminal: &Terminal) -> anyhow::Result<LanguageModel> {
        let source = self.model.as_deref().map_or(Ok(ModelSource::Default), str::parse)?;
        Ok(LanguageModel::open(&source.resolve(terminal)?, self.config.compute.unwrap_or_default())?)
    }

    /// Options with which the corpus is read.
    pub(crate) fn corpus_options(&self) -> anyhow::Result<CorpusOptions> {
        let mut settings = given(&self.corpus_options)?;
        if settings.remove("keep_duplicates").is_some() {
            settings.insert("drop_duplicates".into(), Value::Bool(false));
        }
        Ok(harvester::config_of(&settings)?)
    }

    /// Settings of harvesting `model`.
    pub(crate) fn config(&self, model: &ModelConfig) -> anyhow::Result<HarvestConfig> {
        let mut settings = given(&self.config)?;
        if settings.remove("no_shuffle").is_some() {
            settings.insert("seed".into(), Value::Null);
        }
        let hook_points = HookPattern::resolve(&self.hook_points, model)?;
        Ok(HarvestConfig { hook_points, ..HarvestConfig::from_settings(&settings)? })
    }
}

pub(crate) fn run(args: HarvestArgs, terminal: &Terminal) -> anyhow::Result<()> {
    anyhow::ensure!(!args.corpus.is_empty(), "harvest needs `corpus`: text files, .jsonl files or folders of them");
    let out = required(&args.out, "harvest", "out")?;
    let model = args.model(terminal)?;
    let config = args.config(model.config())?;
    let manifest = harvest(&model, &args.corpus, &args.corpus_options()?, &config, &out, terminal)?;
    report(&manifest, &out, terminal)
}

/// Reads the corpus, shows the estimate, and harvests.
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
    let corpus = open_corpus(corpus, options, &location)?;
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

/// The first line of a run: its estimate.
fn needs(model: &LanguageModel, corpus: &Corpus, config: &HarvestConfig) -> anyhow::Result<String> {
    let HarvestEstimate { tokens, layers, seconds, bytes } = HarvestEstimate::new(model, corpus, config)?;
    Ok(format!(
        "{} tokens through {layers} of {} layers of {}: about {}, {} on disk",
        grouped(tokens),
        model.config().n_layers,
        model.source(),
        human_seconds(seconds),
        human_bytes(bytes),
    ))
}

pub(crate) fn report(manifest: &HarvestManifest, out: &Path, terminal: &Terminal) -> anyhow::Result<()> {
    let counts = &manifest.counts;
    terminal.line(format!(
        "{}: {} tokens in {} contexts from {} documents, {} layers run, {} per token",
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
