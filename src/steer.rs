//! `refract steer`.

use analyzer::GenerateConfig;
use harvester::LanguageModel;

use crate::{
    cli::{SteerArgs, required, usage},
    settings::of_args,
    terminal::Terminal,
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &SteerArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let config = GenerateConfig::from_settings(&of_args(&args.config)?)?;
    let interventions = [&args.clamp[..], &args.scale].concat();
    anyhow::ensure!(!interventions.is_empty(), usage("steer needs `clamp` LATENT=VALUE or `scale` LATENT=FACTOR"));
    let prompt = required(&args.prompt, "steer", "prompt")?;
    let bench = args.sae.source()?.workbench(model, terminal)?;
    let prompt = if args.chat { bench.chat_prompt(&prompt, terminal)? } else { prompt };
    let result = bench.side_by_side(&prompt, &interventions, &config, terminal)?;
    terminal.facts(&result.facts());
    terminal.json(&result)
}
