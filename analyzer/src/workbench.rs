//! [`Workbench`]: an SAE with its hook point and its model, opened once. Evaluation, the index and steering start from
//! it, in a command, a server or a notebook.

use std::sync::OnceLock;

use harvester::{Compute, LanguageModel, Monitor};

use crate::{Error, PlacedSae, Result};

/// An SAE and its model.
#[derive(Debug)]
pub struct Workbench {
    sae: PlacedSae,
    model: OnceLock<LanguageModel>,
    /// The same model with products of the other type.
    other: OnceLock<LanguageModel>,
}

impl Workbench {
    /// An SAE with its model if that is open already; otherwise the model is opened when it is first needed.
    ///
    /// # Errors
    /// When the SAE belongs to another model.
    pub fn new(sae: PlacedSae, model: Option<&LanguageModel>) -> Result<Self> {
        model.map_or(Ok(()), |model| model.check(&sae.model))?;
        Ok(Self { sae, model: model.cloned().map(OnceLock::from).unwrap_or_default(), other: OnceLock::new() })
    }

    /// The SAE.
    pub fn sae(&self) -> &PlacedSae {
        &self.sae
    }

    /// The model.
    ///
    /// # Errors
    /// When it no longer exists, or its files have changed.
    pub fn model(&self, monitor: &dyn Monitor) -> Result<&LanguageModel> {
        if let Some(model) = self.model.get() {
            return Ok(model);
        }
        let moved = |error: harvester::Error| match error {
            harvester::Error::Cancelled { .. } => Error::from(error),
            error => Error::ModelMoved(self.sae.path.clone(), error.into()),
        };
        let found = LanguageModel::find(&self.sae.model, monitor).map_err(moved)?;
        Ok(self.model.get_or_init(|| found))
    }

    /// The model with matrix products in `compute`.
    ///
    /// # Errors
    /// As [`Self::model`].
    pub(crate) fn model_in(&self, compute: Compute, monitor: &dyn Monitor) -> Result<&LanguageModel> {
        let model = self.model(monitor)?;
        Ok(if model.compute() == compute { model } else { self.other.get_or_init(|| model.computing_in(compute)) })
    }

    /// The tokens of a text that the model continues, with the BOS that the contexts of the SAE's activations had.
    ///
    /// # Errors
    /// As [`Self::model`]; or the tokenizer refuses the text.
    pub fn prompt(&self, text: &str, monitor: &dyn Monitor) -> Result<Vec<u32>> {
        let tokenizer = self.model(monitor)?.tokenizer();
        Ok(tokenizer.prompt(self.sae.prompt_bos(), text)?)
    }
}
