//! `refract index`.

use harvester::{LanguageModel, human::grouped};

use crate::{
    cli::{IndexArgs, required},
    settings,
    terminal::Terminal,
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &IndexArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let out = required(&args.out, "index", "out")?;
    let (bench, dataset) = args.sae.source()?.open(model, terminal)?;
    let manifest = analyzer::index(&bench, &dataset, &settings::config(&args.config)?, &out, terminal)?;
    let (latents, tokens) = (grouped(manifest.d_sae as u64), grouped(manifest.tokens));
    terminal.line(format!("{}: {latents} latents over {tokens} tokens", out.display()));
    terminal.json(&serde_json::json!({ "out": out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }))
}
