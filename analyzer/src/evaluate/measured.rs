//! [`Measured`]: an evaluation on the activations that training held out, if it held out any.

use std::ops::Range;

use harvester::{ActivationDataset, Monitor, human};
use serde::Serialize;

use super::{Evaluation, EvaluationConfig, evaluate};
use crate::{Facts, Result, Workbench};

/// An evaluation, and what it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The evaluation.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// True if measured on the contexts that training held out; false if on all of the activations.
    pub held_out: bool,
}

impl Measured {
    /// The metrics and what they mean.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        let Evaluation { reconstruction, fvu_by_hook_point, behavior, d_sae, .. } = &self.evaluation;
        facts.add("L0", format!("{:.1} latents per token", reconstruction.l0));
        let explained = 100.0 * reconstruction.explained_variance;
        facts.add("FVU", format!("{:.3} ({explained:.1} % of the variance explained)", reconstruction.fvu));
        for column in fvu_by_hook_point {
            facts.add("  of it", format!("{:.3} at {}", column.fvu, column.hook_point));
        }
        match behavior {
            Some(behavior) => behavior.add_facts(&mut facts),
            None => {
                facts.add("CE loss", "not measured: its reconstruction cannot replace an activation within one pass");
            }
        }
        let tokens = human::grouped(reconstruction.tokens);
        let which = if self.held_out { "held-out tokens" } else { "tokens, all of the activations" };
        let never_active = 1.0 - reconstruction.frac_alive;
        let n = human::grouped((never_active * *d_sae as f64).round() as u64);
        let (of, share) = (human::grouped(*d_sae), 100.0 * never_active);
        facts.add("never active", format!("{n} of {of} ({share:.1} %) on {tokens} {which}"));
        facts
    }
}

impl Workbench {
    /// Evaluates the SAE on the contexts of `dataset` that its training held out, or on all of activations that it was
    /// not trained on, as far as is known.
    ///
    /// # Errors
    /// As [`evaluate()`]; activations of another model, or of which training held out nothing.
    pub fn evaluate(
        &self,
        dataset: &ActivationDataset,
        config: &EvaluationConfig,
        monitor: &dyn Monitor,
    ) -> Result<Measured> {
        self.sae().check_model(dataset)?;
        let held_out = self.sae().held_out(dataset)?;
        if held_out.as_ref().is_some_and(Range::is_empty) {
            let expected = format!(
                "others than those that {} was trained on: with `held_out_fraction` 0, or of so few contexts, none was \
                 held out",
                self.sae().path.display()
            );
            return Err(harvester::Error::invalid("`activations`", expected, dataset.location.to_string()).into());
        }
        let model = self.sae().site().spliced().map(|_| self.model(monitor)).transpose()?;
        let contexts = held_out.clone().unwrap_or(0..dataset.context_end);
        let evaluation = evaluate(model, self.sae().site(), dataset, contexts, config, monitor)?;
        Ok(Measured { evaluation, held_out: held_out.is_some() })
    }
}
