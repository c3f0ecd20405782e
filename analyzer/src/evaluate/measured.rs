//! [`Measured`]: an evaluation on the activations that training held out, if it held out any.

use std::ops::Range;

use harvester::{ActivationDataset, Monitor};
use serde::Serialize;

use super::{Evaluation, EvaluationConfig, evaluate};
use crate::{Result, Workbench};

/// An evaluation, and what it was measured on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// The evaluation.
    #[serde(flatten)]
    pub evaluation: Evaluation,
    /// True if measured on the contexts that training held out; false if on all of the activations.
    pub held_out: bool,
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
            return Err(
                harvester::Error::invalid("`activations`", expected, dataset.dir().display().to_string()).into()
            );
        }
        let model = self.sae().site().spliced().map(|_| self.model(monitor)).transpose()?;
        let contexts = held_out.clone().unwrap_or(0..dataset.context_end());
        let evaluation = evaluate(model, self.sae().site(), dataset, contexts, config, monitor)?;
        Ok(Measured { evaluation, held_out: held_out.is_some() })
    }
}
