//! `refract evaluate`: what an SAE keeps, in numbers.

use analyzer::{Behavior, Evaluation, EvaluationConfig, SaeSource};
use harvester::LanguageModel;
use serde::{Deserialize, Serialize};

use crate::{
    cli::EvaluateArgs,
    settings,
    terminal::{DIM, Terminal, grouped},
};

pub(crate) fn run(args: &EvaluateArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let measured = measure(&args.sae.source()?, None, &settings::config(&args.config)?, terminal)?;
    print(&measured, terminal);
    terminal.json(&measured)
}

/// An evaluation, and which part of the activations it is on.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    #[serde(flatten)]
    evaluation: Evaluation,
    /// Whether on what training held out of them; else on all.
    held_out: bool,
}

/// Evaluates an SAE on the contexts that its manifest holds out; on all of activations that its manifest says nothing
/// of: others than it was trained on, and any where another tool trained it. The model is `open`, where that is given.
pub(crate) fn measure(
    source: &SaeSource,
    open: Option<&LanguageModel>,
    config: &EvaluationConfig,
    terminal: &Terminal,
) -> anyhow::Result<Measured> {
    let (placed, dataset) = source.open()?;
    placed.check_model(&dataset)?;
    let held_out = placed.held_out(&dataset)?;
    anyhow::ensure!(
        held_out.as_ref().is_none_or(|contexts| !contexts.is_empty()),
        "{} was trained with `held_out_fraction` 0 or so few contexts that none was held out: name other `activations`",
        placed.path.display()
    );
    if placed.manifest.is_none() {
        terminal.say("what this SAE was trained on is not known: these activations may be among it");
    }
    anyhow::ensure!(config.ce_tokens > 0, "`ce_tokens`: expected 1 or more, found 0");
    let site = placed.site();
    let model = match site.spliced() {
        Some(_) => Some(placed.language_model(open, terminal)?),
        None => None,
    };
    let contexts = held_out.clone().unwrap_or(0..dataset.context_end());
    let evaluation = analyzer::evaluate(model.as_ref(), site, &dataset, contexts, config, terminal)?;
    Ok(Measured { evaluation, held_out: held_out.is_some() })
}

pub(crate) fn print(measured: &Measured, terminal: &Terminal) {
    let Measured { evaluation, held_out } = measured;
    let fact = |name: &str, value: String| terminal.line(format!("  {DIM}{name:22}{DIM:#} {value}"));
    fact("L0", format!("{:.1} latents a token", evaluation.reconstruction.l0));
    let explained = 100.0 * evaluation.reconstruction.explained_variance;
    fact("FVU", format!("{:.3} ({explained:.1} % of the variance explained)", evaluation.reconstruction.fvu));
    for column in &evaluation.fvu_by_hook_point {
        fact("  at a place", format!("{:.3} at {}", column.fvu, column.hook_point));
    }
    match &evaluation.behavior {
        Some(behavior) => print_behavior(behavior, &fact),
        None => fact("CE loss", "not measured: nothing of one pass can be replaced by what this SAE rebuilds".into()),
    }
    let tokens = grouped(evaluation.reconstruction.tokens);
    let tokens = if *held_out {
        format!("{tokens} held-out tokens")
    } else {
        format!("{tokens} tokens, all of the activations")
    };
    let silent = 1.0 - evaluation.reconstruction.frac_alive;
    fact(
        "silent latents",
        format!(
            "{:.0} of {} ({:.1} %) on {tokens}",
            silent * evaluation.d_sae as f64,
            grouped(evaluation.d_sae),
            100.0 * silent,
        ),
    );
}

fn print_behavior(behavior: &Behavior, fact: &impl Fn(&str, String)) {
    let Behavior { ce_loss_without_sae, ce_loss_with_sae, ce_loss_with_ablation, ce_loss_score, kl, .. } = *behavior;
    fact("CE loss score", score_note(ce_loss_score, ce_loss_without_sae, ce_loss_with_ablation));
    fact(
        "CE loss",
        format!(
            "{ce_loss_without_sae:.3} without the SAE, {ce_loss_with_sae:.3} with it, {ce_loss_with_ablation:.2} ablated \
             (nats a token)"
        ),
    );
    fact("KL", format!("{kl:.3} nats from the model's own next token"));
}

/// The score and what it says, which is nothing where the loss does not rise without the activation.
fn score_note(score: Option<f64>, without: f64, ablated: f64) -> String {
    match score {
        Some(score) if ablated > without => format!("{score:.3} of what zero ablation destroys is kept"),
        Some(_) => "none: zero ablation lowers the loss here, so nothing is destroyed".to_string(),
        None => "none: zero ablation changes nothing here".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_where_ablation_does_no_harm_is_none() {
        let note = |without: f64, with: f64, ablated: f64| {
            score_note((ablated != without).then(|| (ablated - with) / (ablated - without)), without, ablated)
        };
        assert_eq!(note(3.0, 4.0, 13.0), "0.900 of what zero ablation destroys is kept");
        assert!(note(3.0, 3.5, 2.0).starts_with("none: zero ablation lowers the loss"));
        assert!(note(3.0, 3.5, 3.0).starts_with("none: zero ablation changes nothing"));
    }
}
