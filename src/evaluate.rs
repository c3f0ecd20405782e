//! `refract evaluate`: the metrics of an SAE.

use harvester::{LanguageModel, Monitor};

use crate::{cli::EvaluateArgs, settings, terminal::Terminal};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &EvaluateArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let (bench, dataset) = args.sae.source()?.open(model, terminal)?;
    if bench.sae().manifest.is_none() {
        terminal.say("the training data of this SAE are not known: these activations may be part of them");
    }
    let measured = bench.evaluate(&dataset, &settings::config(&args.config)?, terminal)?;
    terminal.facts(&measured.facts());
    terminal.json(&measured)
}
