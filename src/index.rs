//! `refract index`.

use std::path::Path;

use analyzer::{FeaturesManifest, IndexConfig, SaeSource};
use harvester::LanguageModel;

use crate::{
    cli::IndexArgs,
    settings,
    terminal::{Terminal, grouped},
};

pub(crate) fn run(args: &IndexArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let out = settings::required(&args.out, "index", "out")?;
    let manifest = build(&args.sae.source()?, None, &settings::config(&args.config)?, &out, terminal)?;
    terminal.line(format!(
        "{}: {} latents over {} tokens",
        out.display(),
        grouped(manifest.d_sae as u64),
        grouped(manifest.tokens)
    ));
    terminal.json(&serde_json::json!({ "out": out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }))
}

/// Indexes an SAE over the activations named, by default those it was trained on.
pub(crate) fn build(
    source: &SaeSource,
    open: Option<&LanguageModel>,
    config: &IndexConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<FeaturesManifest> {
    let (placed, dataset) = source.open()?;
    Ok(analyzer::index(&placed, open, &dataset, config, out, terminal)?)
}
