//! [`SideBySide`]: a prompt continued without and with interventions.

use harvester::{Hook, LanguageModel, Monitor, NoHook};
use serde::Serialize;

use super::{
    generate::{GenerateConfig, generate},
    intervention::{Intervention, Interventions},
    shift::{Shift, shift},
};
use crate::{Result, Workbench};

/// Tokens listed whose probability moves most.
const MOVED_TOKENS: usize = 8;

/// A prompt continued without and with interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    /// The text that both continue.
    pub prompt: String,
    /// Its tokens, with the BOS that the contexts of the SAE's activations had.
    pub prompt_tokens: Vec<u32>,
    /// The edits.
    pub interventions: Vec<Intervention>,
    /// The continuation without them.
    pub without: String,
    /// The continuation with them.
    pub with: String,
    /// The change of the model's next-token distribution on the prompt, and on `without`.
    pub shift: Shift,
}

impl Workbench {
    /// Continues `prompt` without and with `interventions`, and measures how far they move the model on the prompt.
    ///
    /// # Errors
    /// An SAE of another width than its hook point, or of several; as [`generate()`] and [`shift()`].
    pub fn side_by_side(
        &self,
        prompt: &str,
        interventions: &[Intervention],
        config: &GenerateConfig,
        monitor: &dyn Monitor,
    ) -> Result<SideBySide> {
        let site = self.sae().site();
        let mut hook = Interventions::new(site, interventions.to_vec())?;
        let model = self.model(monitor)?;
        self.check_width(model)?;
        let tokens = self.prompt(prompt, monitor)?;
        let write = |hook: &mut dyn Hook| -> Result<Vec<u32>> {
            Ok(generate(model, &[&tokens], config, hook, monitor)?.concat())
        };
        let (without, with) = (write(&mut NoHook)?, write(&mut hook)?);
        Ok(SideBySide {
            prompt: prompt.to_string(),
            interventions: interventions.to_vec(),
            without: model.tokenizer().decode(&without),
            with: model.tokenizer().decode(&with),
            shift: shift(model, site, interventions, &[&tokens[..], &without].concat(), tokens.len(), MOVED_TOKENS)?,
            prompt_tokens: tokens,
        })
    }

    /// Refuses an SAE that reads another width than its hook point has.
    fn check_width(&self, model: &LanguageModel) -> Result<()> {
        let (point, d_in) = (self.sae().hook_point, self.sae().sae.d_in());
        point.check(model.config())?;
        let width = point.width(model.config());
        if d_in == width {
            return Ok(());
        }
        let expected = format!("one that reads {width} values per token, as {point} of {} has", model.source());
        Err(harvester::Error::invalid("SAE", expected, format!("one that reads {d_in}")).into())
    }
}
