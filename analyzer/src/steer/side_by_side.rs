//! [`SideBySide`]: a prompt continued without and with interventions.

use harvester::{Hook, LanguageModel, Monitor, NoHook};
use serde::Serialize;

use super::{
    generate::{GenerateConfig, generate},
    intervention::{Intervention, Interventions, LatentMax},
    shift::{MovedToken, Shift, shift},
};
use crate::{Facts, Result, Workbench, facts::quoted};

/// Tokens listed whose probability moves most.
const MOVED_TOKENS: usize = 8;

/// Smallest change of a probability that is listed.
const VISIBLE: f64 = 0.001;

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

impl SideBySide {
    /// The texts, and how far the model moves.
    pub fn facts(&self) -> Facts {
        let Shift { kl_next, kl_mean, kl_written, latents, moved } = &self.shift;
        let mut facts = Facts::default();
        facts.add("prompt", &self.prompt);
        facts.add("without", &self.without);
        facts.add("with", &self.with);
        let of_text = kl_written.map(|kl| format!(", over the text without the edit {kl:.3}")).unwrap_or_default();
        let of_prompt = format!("after the prompt: KL {kl_next:.3} nats; mean over the prompt {kl_mean:.3}");
        facts.add("next token", of_prompt + &of_text);
        for LatentMax { latent, max } in latents {
            let said = if *max > 0.0 { format!("reaches {max:.1}") } else { "is never active".into() };
            facts.add("latent", format!("{latent} {said} without the edit, on prompt and text"));
        }
        let percent =
            |m: &MovedToken| format!("{} {:.1} → {:.1} %", quoted(&m.text), 100.0 * m.before, 100.0 * m.after);
        let visible: Vec<_> = moved.iter().filter(|m| (m.before - m.after).abs() >= VISIBLE).map(percent).collect();
        facts.add(
            "moved",
            match visible.is_empty() {
                true => format!("no token's probability by {:.1} % or more", 100.0 * VISIBLE),
                false => visible.join("  "),
            },
        );
        facts
    }
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
        let model = self.model_in(config.compute, monitor)?;
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
