//! `refract index`.

use analyzer::Workbench;

use crate::{
    cli::IndexArgs,
    settings,
    terminal::{Terminal, grouped},
};

pub(crate) fn run(args: &IndexArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let out = settings::required(&args.out, "index", "out")?;
    let (sae, dataset) = args.sae.source()?.open()?;
    let bench = Workbench::new(sae, None)?;
    let manifest = analyzer::index(&bench, &dataset, &settings::config(&args.config)?, &out, terminal)?;
    let (latents, tokens) = (grouped(manifest.d_sae as u64), grouped(manifest.tokens));
    terminal.line(format!("{}: {latents} latents over {tokens} tokens", out.display()));
    terminal.json(&serde_json::json!({ "out": out, "d_sae": manifest.d_sae, "tokens": manifest.tokens }))
}
