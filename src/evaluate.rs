//! `refract evaluate`: the metrics of an SAE.

use analyzer::{Behavior, Measured, Workbench};

use crate::{
    cli::EvaluateArgs,
    settings,
    terminal::{DIM, Terminal, grouped},
};

pub(crate) fn run(args: &EvaluateArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let (sae, dataset) = args.sae.source()?.open()?;
    if sae.manifest.is_none() {
        terminal.say("the training data of this SAE are not known: these activations may be part of them");
    }
    let measured = Workbench::new(sae, None)?.evaluate(&dataset, &settings::config(&args.config)?, terminal)?;
    print(&measured, terminal);
    terminal.json(&measured)
}

pub(crate) fn print(measured: &Measured, terminal: &Terminal) {
    let Measured { evaluation, held_out } = measured;
    let fact = |name: &str, value: String| terminal.line(format!("  {DIM}{name:22}{DIM:#} {value}"));
    fact("L0", format!("{:.1} latents per token", evaluation.reconstruction.l0));
    let explained = 100.0 * evaluation.reconstruction.explained_variance;
    fact("FVU", format!("{:.3} ({explained:.1} % of the variance explained)", evaluation.reconstruction.fvu));
    for column in &evaluation.fvu_by_hook_point {
        fact("  at a hook point", format!("{:.3} at {}", column.fvu, column.hook_point));
    }
    match &evaluation.behavior {
        Some(behavior) => print_behavior(behavior, &fact),
        None => fact("CE loss", "not measured: its reconstruction cannot replace an activation within one pass".into()),
    }
    let tokens = grouped(evaluation.reconstruction.tokens);
    let tokens = if *held_out {
        format!("{tokens} held-out tokens")
    } else {
        format!("{tokens} tokens, all of the activations")
    };
    let never_active = 1.0 - evaluation.reconstruction.frac_alive;
    fact(
        "never active",
        format!(
            "{:.0} of {} ({:.1} %) on {tokens}",
            never_active * evaluation.d_sae as f64,
            grouped(evaluation.d_sae),
            100.0 * never_active,
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
             (nats per token)"
        ),
    );
    fact("KL", format!("{kl:.3} nats from the model's own next token"));
}

/// The score and its meaning. It has none if ablation does not raise the loss.
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
