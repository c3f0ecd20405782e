//! `refract evaluate`: the metrics of an SAE.

use analyzer::Workbench;
use harvester::{LanguageModel, Monitor};

use crate::{cli::EvaluateArgs, settings, terminal::Terminal};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &EvaluateArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<()> {
    let (sae, dataset) = args.sae.source()?.open()?;
    if sae.manifest.is_none() {
        terminal.say("the training data of this SAE are not known: these activations may be part of them");
    }
    let measured = Workbench::new(sae, model)?.evaluate(&dataset, &settings::config(&args.config)?, terminal)?;
    terminal.facts(measured.facts().iter());
    terminal.json(&measured)
}
