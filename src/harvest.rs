//! `refract harvest`.

use harvester::{Corpus, HarvestConfig, HookPattern, LanguageModel, Location, ModelConfig, ModelSource, open_corpus};
use serde_json::Value;

use crate::{
    cli::{HarvestArgs, required, usage},
    settings::of_args,
    terminal::Terminal,
};

impl HarvestArgs {
    /// Finds or fetches the model, and opens it for the requested compute.
    pub(crate) fn model(&self, terminal: &Terminal) -> anyhow::Result<LanguageModel> {
        let source = self.model.as_deref().map_or(Ok(ModelSource::Default), str::parse)?;
        Ok(LanguageModel::open(&source, self.config.compute.unwrap_or_default(), terminal)?)
    }

    /// The corpus, as an earlier harvest into `out` read it.
    pub(crate) fn corpus(&self, out: &Location) -> anyhow::Result<Corpus> {
        let mut settings = of_args(&self.corpus_options)?;
        if settings.remove("keep_duplicates").is_some() {
            settings.insert("drop_duplicates".into(), Value::Bool(false));
        }
        Ok(open_corpus(&self.corpus, &harvester::config_of(&settings)?, out)?)
    }

    /// Settings of harvesting `model`.
    pub(crate) fn config(&self, model: &ModelConfig) -> anyhow::Result<HarvestConfig> {
        let mut settings = of_args(&self.config)?;
        if settings.remove("shuffle").is_some() {
            settings.insert("seed".into(), Value::Null);
        }
        let hook_points = HookPattern::resolve(&self.hook_points, model)?;
        Ok(HarvestConfig { hook_points, ..HarvestConfig::from_settings(&settings)? })
    }
}

/// Returns the model, which need not be opened again.
pub(crate) fn run(args: &HarvestArgs, terminal: &Terminal) -> anyhow::Result<LanguageModel> {
    anyhow::ensure!(
        !args.corpus.is_empty(),
        usage("harvest needs `corpus`: text files, .jsonl files or folders of them")
    );
    let out = Location::named(&required(&args.out, "harvest", "out")?)?;
    let model = args.model(terminal)?;
    let config = args.config(model.config())?;
    config.check(model.config())?;
    let manifest = harvester::harvest(&model, &args.corpus(&out)?, &config, out.clone(), terminal)?;
    terminal.report(&out, &[manifest.to_string()]);
    let (counts, complete) = (&manifest.counts, manifest.complete);
    terminal.json(&serde_json::json!({ "out": out.to_string(), "counts": counts, "complete": complete }))?;
    Ok(model)
}
