//! [`Baseline`]: several prompts, and what the model writes after them. A [`Trial`] writes the same with a latent edited.
//! Then the model reads both texts without the edit: does the latent fire on them by itself, and is it still text?
//!
//! ```text
//! score   = share of the written tokens on which the latent is active when the text is read without the edit
//! gain    = mean over the prompts of score with - score without, and its 95 % interval (t, prompts as the sample)
//! ```

use harvester::{Hook, Monitor, NoHook};
use serde::Serialize;

use super::{
    fluency::repetition,
    generate::{GenerateConfig, generate},
    intervention::Intervention,
    steering::Steering,
};
use crate::{Facts, Result, Workbench};

/// Text repeats itself if more of its runs of three tokens than this occurred in it before.
const REPETITIVE: f64 = 0.2;
/// Quantiles 0.975 of Student's t for 1 to 30 degrees of freedom (any table of it).
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// Prompts, and what the model writes after each without an edit.
#[derive(Debug, Clone)]
pub struct Baseline {
    pub(super) prompts: Vec<(String, Vec<u32>)>,
    pub(super) written: Vec<Vec<u32>>,
    pub(super) config: GenerateConfig,
}

/// What the model writes after a prompt without and with an edit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrialText {
    /// The prompt, before any chat template.
    pub prompt: String,
    /// The text without the edit.
    pub without: String,
    /// The text with it.
    pub with: String,
    /// Share of the tokens of each on which the latent is active, read without the edit.
    pub scores: [f64; 2],
}

/// A clamp tried on several prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The latent.
    pub latent: u32,
    /// The activation to which it is set.
    pub value: f32,
    /// The texts.
    pub texts: Vec<TrialText>,
    /// Mean difference of the two shares.
    pub gain: f64,
    /// 95 % interval of the gain over prompts.
    pub interval: [f64; 2],
    /// Share of the runs of three tokens that occurred before in the same text, without and with the edit.
    pub repetition: [f64; 2],
}

impl Trial {
    /// Logarithm of the factor by which the share of tokens with the latent grows: a latent that fires anyway needs more
    /// of them than a rare one. One token in a hundred is added to both, so that 0 has a logarithm.
    fn log_ratio(&self) -> f64 {
        let [before, after] = self.shares();
        ((after + 0.01) / (before + 0.01)).ln()
    }

    /// Mean over the prompts of the two scores.
    fn shares(&self) -> [f64; 2] {
        [0, 1].map(|side| self.texts.iter().map(|text| text.scores[side]).sum::<f64>() / self.texts.len() as f64)
    }

    /// The first `n` texts without and with the edit, one below the other.
    pub fn facts(&self, n: usize) -> Facts {
        let mut facts = Facts::default();
        for TrialText { prompt, without, with, .. } in self.texts.iter().take(n) {
            facts.add("prompt", prompt);
            facts.add("  without", without);
            facts.add("  with", with);
        }
        facts
    }

    /// How much more often the latent fires on the steered texts, and how much they repeat themselves, in lines.
    pub fn summary(&self) -> [String; 2] {
        let Self { gain, interval: [low, high], repetition, texts, .. } = self;
        let [without, with] = self.shares().map(|share| 100.0 * share);
        let [before, after] = repetition.map(|share| 100.0 * share);
        let (n, gain, low, high) = (texts.len(), 100.0 * gain, 100.0 * low, 100.0 * high);
        [
            format!(
                "read again without the edit, the latent fires on {with:.1} % of the steered tokens and {without:.1} % of \
                 the others: {gain:+.1} points over {n} prompts (95 % interval {low:+.1} to {high:+.1})"
            ),
            format!("runs of three tokens that repeat: {before:.1} % without, {after:.1} % with it"),
        ]
    }

    /// True if the texts repeat themselves.
    pub fn is_repetitive(&self) -> bool {
        self.repetition[1] > REPETITIVE.max(self.repetition[0])
    }
}

impl Workbench {
    /// What the model writes after each prompt, or with `chat` in answer to it.
    ///
    /// # Errors
    /// As [`generate()`] and [`Self::chat_prompt`].
    pub fn baseline(
        &self,
        prompts: &[&str],
        chat: bool,
        config: &GenerateConfig,
        monitor: &dyn Monitor,
    ) -> Result<Baseline> {
        let tokens = |prompt: &&str| -> Result<(String, Vec<u32>)> {
            let text = if chat { self.chat_prompt(prompt, monitor)? } else { (*prompt).to_string() };
            Ok((prompt.to_string(), self.prompt(&text, monitor)?))
        };
        let prompts = prompts.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let written = self.write(&prompts, config, &mut NoHook, monitor)?;
        Ok(Baseline { prompts, written, config: config.clone() })
    }

    /// Writes the texts of `baseline` again with a latent clamped to a value, and reads them without it.
    ///
    /// # Errors
    /// As [`generate()`], [`Steering::hook`] and [`Self::encode_texts`].
    pub fn trial(&self, baseline: &Baseline, latent: u32, value: f32, monitor: &dyn Monitor) -> Result<Trial> {
        let steering = Steering::open(self, vec![Intervention::clamp(latent, value).into()], None)?;
        let mut hook = steering.hook(self, self.model(monitor)?)?;
        let written = self.write(&baseline.prompts, &baseline.config, &mut hook, monitor)?;
        let model = self.model(monitor)?;
        let decoded = [&baseline.written, &written]
            .map(|texts| texts.iter().map(|text| model.tokenizer().decode(text)).collect::<Vec<String>>());
        let [without, with] = &decoded;
        let scores = [self.shares(without, latent, monitor)?, self.shares(with, latent, monitor)?];
        let texts = baseline.prompts.iter().enumerate().map(|(at, (prompt, _))| TrialText {
            prompt: prompt.clone(),
            without: without[at].clone(),
            with: with[at].clone(),
            scores: [scores[0][at], scores[1][at]],
        });
        let texts: Vec<TrialText> = texts.collect();
        let gains: Vec<f64> = texts.iter().map(|text| text.scores[1] - text.scores[0]).collect();
        let (gain, interval) = mean_with_interval(&gains);
        let repetition = [&baseline.written, &written]
            .map(|texts| texts.iter().map(|text| repetition(text)).sum::<f64>() / texts.len().max(1) as f64);
        Ok(Trial { latent, value, texts, gain, interval, repetition })
    }

    /// The share of the tokens of each text on which a latent is active.
    pub(super) fn shares(&self, texts: &[String], latent: u32, monitor: &dyn Monitor) -> Result<Vec<f64>> {
        let encoded = self.encode_texts(texts, monitor)?;
        let mut counts = vec![[0usize; 2]; texts.len()];
        for row in (0..encoded.len()).filter(|row| encoded.ordinary[*row]) {
            let [active, all] = &mut counts[encoded.rows.document[row] as usize];
            *active += usize::from(encoded.acts.get(row, latent) > 0.0);
            *all += 1;
        }
        Ok(counts.into_iter().map(|[active, all]| active as f64 / all.max(1) as f64).collect())
    }

    /// The trial in which the latent's share of the tokens grows by the largest factor, among those whose texts do not
    /// repeat themselves. Each latent is clamped to its own maximum; if no trial is left, to 1.5 times that. `None` if
    /// none is left then either.
    ///
    /// # Errors
    /// As [`Self::trial`].
    pub fn best_trial(
        &self,
        baseline: &Baseline,
        latents: &[(u32, f32)],
        monitor: &dyn Monitor,
    ) -> Result<Option<Trial>> {
        for strength in [1.0, 1.5] {
            let mut best: Option<Trial> = None;
            for &(latent, max) in latents {
                let trial = self.trial(baseline, latent, strength * max, monitor)?;
                let is_better = best.as_ref().is_none_or(|best| trial.log_ratio() > best.log_ratio());
                if is_better && !trial.is_repetitive() && trial.gain > 0.0 {
                    best = Some(trial);
                }
            }
            if best.is_some() {
                return Ok(best);
            }
        }
        Ok(None)
    }

    pub(super) fn write(
        &self,
        prompts: &[(String, Vec<u32>)],
        config: &GenerateConfig,
        hook: &mut dyn Hook,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<u32>>> {
        let tokens: Vec<&[u32]> = prompts.iter().map(|(_, tokens)| &tokens[..]).collect();
        generate(self.model_in(config.compute, monitor)?, &tokens, config, hook, monitor)
    }
}

/// Quantile 0.975 of Student's t. Beyond the table from its expansion (Cornish and Fisher), within 0.0001: `z + (z^3 + z)
/// / 4n + (5 z^5 + 16 z^3 + 3 z) / 96 n^2`.
fn student(freedom: usize) -> f64 {
    let n = freedom as f64;
    STUDENT.get(freedom - 1).copied().unwrap_or_else(|| 1.959_964 + (2.372_271 + 2.822_5 / n) / n)
}

/// Mean of a sample, and the 95 % interval of the mean: `mean ± t s / sqrt(n)`.
pub(super) fn mean_with_interval(sample: &[f64]) -> (f64, [f64; 2]) {
    let n = sample.len();
    let mean = sample.iter().sum::<f64>() / n.max(1) as f64;
    let Some(freedom) = n.checked_sub(1).filter(|freedom| *freedom > 0) else {
        return (mean, [f64::NEG_INFINITY, f64::INFINITY]);
    };
    let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / freedom as f64;
    let t = student(freedom);
    let reach = t * (variance / n as f64).sqrt();
    (mean, [mean - reach, mean + reach])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_beyond_the_table_are_those_of_student() {
        // scipy.stats.t.ppf(0.975, [30, 31, 40, 60, 120, 1000])
        let known =
            [(30, 2.042_272), (31, 2.039_513), (40, 2.021_075), (60, 2.000_298), (120, 1.979_930), (1000, 1.962_339)];
        for (freedom, t) in known {
            assert!((student(freedom) - t).abs() < 3e-4, "{freedom}: {} {t}", student(freedom));
        }
    }

    #[test]
    fn the_interval_is_that_of_student() {
        // scipy.stats.t.interval(0.95, 4, loc=3, scale=scipy.stats.sem([1, 2, 3, 4, 5]))
        let (mean, [low, high]) = mean_with_interval(&[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(mean, 3.0);
        assert!((low - 1.036_756_8).abs() < 1e-3 && (high - 4.963_243_2).abs() < 1e-3, "{low} {high}");
        assert_eq!(mean_with_interval(&[2.0]).1, [f64::NEG_INFINITY, f64::INFINITY]);
    }
}
