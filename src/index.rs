//! `refract index`.

use std::path::Path;

use analyzer::{FeaturesManifest, IndexConfig};
use harvester::LanguageModel;
use serde::Deserialize;

use crate::{
    cli::{IndexArgs, SaeArgs},
    settings,
    terminal::{Terminal, grouped},
};

/// [`IndexConfig`] under the names of the flags.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    examples: usize,
    reach: usize,
    logit_tokens: usize,
    neighbours: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let IndexConfig { examples, reach, logit_tokens, neighbours } = IndexConfig::default();
        Self { examples, reach, logit_tokens, neighbours }
    }
}

pub(crate) fn run(args: &IndexArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let Settings { examples, reach, logit_tokens, neighbours } = settings::resolve("index", args, config)?;
    let config = IndexConfig { examples, reach, logit_tokens, neighbours };
    let manifest = build(&args.sae, None, &config, &args.out, terminal)?;
    terminal.line(format!(
        "{}: {} latents over {} tokens",
        args.out.display(),
        grouped(manifest.d_sae as u64),
        grouped(manifest.tokens)
    ));
    terminal.json(&serde_json::json!({ "out": args.out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }))
}

/// Indexes an SAE over the activations named, by default those it was trained on.
pub(crate) fn build(
    sae: &SaeArgs,
    open: Option<&LanguageModel>,
    config: &IndexConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<FeaturesManifest> {
    let (placed, dataset) = sae.open()?;
    Ok(analyzer::index(&placed, open, &dataset, config, out, terminal)?)
}
