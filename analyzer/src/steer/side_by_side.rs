//! [`SideBySide`]: a prompt continued without and with interventions, and what they moved.

use harvester::{LanguageModel, Monitor};
use serde::Serialize;

use super::{
    fluency::{Fluency, repetition},
    generate::{GenerateConfig, Generation},
    intervention::SteerEdit,
    shift::{MovedToken, Shift, TokenShift, shift},
    steering::Steering,
    step::{EditCount, LatentMax},
};
use crate::{Error, Facts, FeatureIndex, Result, Workbench, facts::quoted};

/// Tokens listed whose probability moves most.
const MOVED_TOKENS: usize = 8;
/// Smallest change of a probability that is listed.
const VISIBLE: f64 = 0.001;
/// Other latents listed that moved.
const MOVED_LATENTS: usize = 6;

/// A prompt continued without and with interventions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    /// The text that both continue.
    pub prompt: String,
    /// Its tokens, with the BOS that the contexts of the SAE's activations had.
    pub prompt_tokens: Vec<u32>,
    /// The edits.
    pub interventions: Vec<SteerEdit>,
    /// The continuation without them.
    pub without: String,
    /// The continuation with them.
    pub with: String,
    /// How many rows each edit met while `with` was written.
    pub counts: Vec<EditCount>,
    /// What the edits change on the prompt and `without`.
    pub shift: Shift,
    /// What they change on the prompt and `with`.
    pub steered: Shift,
    /// Of `without` and `with`.
    pub fluency: [Fluency; 2],
    /// Why `with` is broken; `None` if it is not.
    pub over_steered: Option<String>,
    /// The latents whose mean activations on the two texts differ most, largest difference first. The texts are read
    /// alone and without the edits.
    pub moved_latents: Vec<MovedLatent>,
    /// Strengths to begin with for each edited latent, from the index if there is one.
    pub suggestions: Vec<String>,
}

/// A latent and its mean activation per token of two texts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MovedLatent {
    /// The latent.
    pub latent: u32,
    /// Without the edits.
    pub without: f64,
    /// With the edits.
    pub with: f64,
}

impl SideBySide {
    /// What the edits moved, below the texts. `index`: labels of latents.
    ///
    /// # Errors
    /// A damaged table of `index`.
    pub fn facts(&self, index: Option<&FeatureIndex>) -> Result<Facts> {
        let Shift { kl_next, kl_mean, kl_written, moved, .. } = &self.shift;
        let mut facts = Facts::default();
        let of_text = kl_written.map(|kl| format!(", over the text without the edit {kl:.3}")).unwrap_or_default();
        let of_prompt = format!("after the prompt: KL {kl_next:.3} nats; mean over the prompt {kl_mean:.3}");
        facts.add("next token", of_prompt + &of_text);
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
        let mut written: Vec<&TokenShift> = self.steered.written.iter().collect();
        written.sort_by(|a, b| b.kl.total_cmp(&a.kl));
        let strongest: Vec<String> =
            written.iter().take(MOVED_TOKENS).map(|t| format!("{} {:.2}", quoted(&t.text), t.kl)).collect();
        if !strongest.is_empty() {
            facts.add("written", format!("with the edit, KL in nats: {}", strongest.join("  ")));
        }
        for (without, with) in self.shift.latents.iter().zip(&self.steered.latents) {
            facts.add("latent", self.fires(without, with));
        }
        for latent in &self.moved_latents {
            let label = index.map(|index| index.label(latent.latent)).transpose()?;
            let label = label.map(|label| format!("  {label}")).unwrap_or_default();
            let MovedLatent { latent, without, with } = latent;
            facts.add("moved latent", format!("{latent}: mean {without:.2} → {with:.2}{label}"));
        }
        let [without, with] = self.fluency;
        let percent = |fluency: Fluency| 100.0 * fluency.repetition;
        facts.add(
            "fluency",
            format!(
                "perplexity without the edit {:.1} → {:.1}; runs of three tokens that repeat {:.0} → {:.0} %",
                without.perplexity,
                with.perplexity,
                percent(without),
                percent(with)
            ),
        );
        self.over_steered.iter().for_each(|why| facts.add("over-steered", why));
        self.suggestions.iter().for_each(|suggestion| facts.add("strength", suggestion));
        Ok(facts)
    }

    /// Where an edited latent fires by itself, and how far it is from what it was set to.
    fn fires(&self, without: &LatentMax, with: &LatentMax) -> String {
        let LatentMax { latent, max_prompt, active_prompt, .. } = without;
        let on = |active: u64, n: usize, max: f32, what: &str| match active {
            0 => format!("none of {n} tokens {what}"),
            _ => format!("{active} of {n} tokens {what} (up to {max:.1})"),
        };
        let written = |of: &LatentMax, shift: &Shift, what: &str| {
            on(of.active_written, shift.written.len(), of.max_written, what)
        };
        let mut said = format!(
            "{latent} fires by itself on {}, {}, {}",
            on(*active_prompt, self.prompt_tokens.len(), *max_prompt, "of the prompt"),
            written(without, &self.shift, "written without the edit"),
            written(with, &self.steered, "written with it")
        );
        if let Some(interference) = with.interference.filter(|off| *off > 0.0) {
            said += &format!("; read again after the edit it is off by up to {interference:.2}");
        }
        said
    }
}

impl Workbench {
    /// Continues `prompt` without and with the edits of `steering`, both with the same random numbers, and measures what
    /// they move. After each token `each` gets the two texts so far.
    ///
    /// # Errors
    /// As [`Steering::hook`], [`Generation`] and [`shift()`].
    pub fn side_by_side(
        &self,
        prompt: &str,
        steering: &Steering,
        config: &GenerateConfig,
        each: &mut dyn FnMut([&str; 2]),
        monitor: &dyn Monitor,
    ) -> Result<SideBySide> {
        let model = self.model_in(config.compute, monitor)?;
        let prompt_tokens = self.prompt(prompt, monitor)?;
        let mut generation = Generation::new(model)?;
        let [plain, edited] = [generation.add(&prompt_tokens, config)?, generation.add(&prompt_tokens, config)?];
        let mut hook = steering.hook(self, model)?.only(edited);
        let mut tokens = [vec![], vec![]];
        monitor.start("writing", 2 * config.max_new_tokens as u64, "tokens");
        while !generation.is_done() {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            for (text, token) in generation.step(&mut hook)? {
                tokens[usize::from(text != plain)].push(token);
                monitor.advance(1);
            }
            let so_far = tokens.each_ref().map(|tokens| decoded_so_far(model, tokens));
            each([&so_far[0], &so_far[1]]);
        }
        monitor.finish();
        let counts = hook.counts();
        let read = |written: &[u32]| {
            let text = [&prompt_tokens[..], written].concat();
            shift(model, steering.hook(self, model)?, &text, prompt_tokens.len(), MOVED_TOKENS)
        };
        let [shift, steered] = [read(&tokens[0])?, read(&tokens[1])?];
        let fluency = |shift: &Shift, tokens: &[u32]| Fluency {
            perplexity: shift.perplexity().map_or(f64::NAN, |[without, _]| without),
            repetition: repetition(tokens),
        };
        let fluency = [fluency(&shift, &tokens[0]), fluency(&steered, &tokens[1])];
        let [without, with] = tokens.map(|tokens| model.tokenizer().decode(&tokens));
        Ok(SideBySide {
            prompt: prompt.to_string(),
            interventions: steering.edits().to_vec(),
            over_steered: fluency[1].broken(&fluency[0]),
            moved_latents: self.moved_latents([&without, &with], monitor)?,
            suggestions: steering.suggestions(self),
            prompt_tokens,
            without,
            with,
            counts,
            shift,
            steered,
            fluency,
        })
    }

    /// The latents whose mean activations on two texts differ most.
    fn moved_latents(&self, texts: [&String; 2], monitor: &dyn Monitor) -> Result<Vec<MovedLatent>> {
        let means = |text: &String| -> Result<Vec<f64>> {
            let encoded = self.encode_texts(&[text], monitor)?;
            let mut sums = vec![0.0; self.sae().sae.d_sae()];
            for (latent, value) in encoded.acts.latents.iter().zip(&encoded.acts.values) {
                sums[*latent as usize] += f64::from(*value);
            }
            let n = encoded.ordinary.iter().filter(|counts| **counts).count().max(1) as f64;
            sums.iter_mut().for_each(|sum| *sum /= n);
            Ok(sums)
        };
        let (without, with) = (means(texts[0])?, means(texts[1])?);
        let both = without.into_iter().zip(with).enumerate();
        let mut moved: Vec<MovedLatent> = both
            .map(|(latent, (without, with))| MovedLatent { latent: latent as u32, without, with })
            .filter(|latent| latent.without != latent.with)
            .collect();
        moved.sort_by(|a, b| (b.with - b.without).abs().total_cmp(&(a.with - a.without).abs()));
        moved.truncate(MOVED_LATENTS);
        Ok(moved)
    }
}

/// The text of the tokens so far, without the begin of a character.
pub(crate) fn decoded_so_far(model: &LanguageModel, tokens: &[u32]) -> String {
    model.tokenizer().decode(tokens).trim_end_matches(char::REPLACEMENT_CHARACTER).to_string()
}
