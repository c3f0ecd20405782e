//! [`Baseline`]: several prompts, and what the model writes after them. A [`Trial`] writes the same with a latent edited,
//! and measures whether the text becomes more like a kind of text, and whether it is still text.
//!
//! ```text
//! r_t     = ln((a_t + 1/2) / (A + V/2)) - ln((b_t + 1/2) / (B + V/2))     a_t, b_t: times that token t occurs in texts
//!                                                                         of the kind and in others; A, B: all tokens
//! score   = mean of r_t over the written tokens, in nats per token        V: tokens that occur in either
//! gain    = mean over the prompts of score with - score without, and its 95 % interval (t, prompts as the sample)
//! ```

use std::collections::HashMap;

use harvester::{Hook, Monitor, NoHook};
use serde::Serialize;

use super::{
    generate::{GenerateConfig, generate},
    intervention::{Intervention, Interventions},
};
use crate::{Result, Sample, Workbench, labels::STRONG};

/// Text repeats itself if more of its runs of three tokens than this occurred in it before.
const REPETITIVE: f64 = 0.2;
/// Tokens on each side of a firing that are of its text.
const AROUND: usize = 12;
/// Length of the runs that are looked at.
const RUN: usize = 3;
/// Quantiles 0.975 of Student's t for 1 to 30 degrees of freedom (any table of it); beyond, the normal 1.96.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// How typical each token is of a kind of text, against other texts.
#[derive(Debug, Clone)]
pub struct TextKind {
    log_ratios: HashMap<u32, f64>,
}

impl TextKind {
    /// The tokens of texts of the kind, and of others.
    pub fn new(tokens: impl IntoIterator<Item = u32>, others: impl IntoIterator<Item = u32>) -> Self {
        let mut counts: HashMap<u32, [f64; 2]> = HashMap::new();
        tokens.into_iter().for_each(|token| counts.entry(token).or_default()[0] += 1.0);
        others.into_iter().for_each(|token| counts.entry(token).or_default()[1] += 1.0);
        let half = counts.len() as f64 / 2.0;
        let all = [0, 1].map(|side| counts.values().map(|n| n[side]).sum::<f64>() + half);
        let log = |n: f64, all: f64| ((n + 0.5) / all).ln();
        let ratio = |(token, [a, b]): (u32, [f64; 2])| (token, log(a, all[0]) - log(b, all[1]));
        Self { log_ratios: counts.into_iter().map(ratio).collect() }
    }

    /// The text around the strong firings of a latent in a sample, above 0.3 of its maximum, against all other text.
    pub fn of_latent(sample: &Sample, latent: u32, max: f32) -> Self {
        let encoded = &sample.encoded;
        let mut near = vec![false; sample.len()];
        for context in encoded.rows.contexts() {
            for row in context.clone().filter(|&row| encoded.acts.get(row, latent) > STRONG * max) {
                let window = row.saturating_sub(AROUND).max(context.start)..(row + AROUND + 1).min(context.end);
                near[window].fill(true);
            }
        }
        let tokens = |is_near: bool| {
            let rows = encoded.rows.token.iter().zip(&near).filter(move |(_, near)| **near == is_near);
            rows.map(|(token, _)| *token)
        };
        Self::new(tokens(true), tokens(false))
    }

    /// Mean log ratio of a text's tokens, in nats per token; tokens that occur in neither kind count 0.
    pub fn score(&self, tokens: &[u32]) -> f64 {
        let sum: f64 = tokens.iter().filter_map(|token| self.log_ratios.get(token)).sum();
        sum / tokens.len().max(1) as f64
    }
}

/// Prompts, and what the model writes after each without an edit.
#[derive(Debug, Clone)]
pub struct Baseline {
    prompts: Vec<(String, Vec<u32>)>,
    written: Vec<Vec<u32>>,
    config: GenerateConfig,
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
    /// Scores of the two.
    pub scores: [f64; 2],
}

/// An edit tried on several prompts.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The edit.
    pub intervention: Intervention,
    /// The texts.
    pub texts: Vec<TrialText>,
    /// How much more the texts are like the kind with the edit than without, in nats per token.
    pub gain: f64,
    /// 95 % interval of the gain over prompts.
    pub interval: [f64; 2],
    /// Share of the runs of three tokens that occurred before in the same text, without and with the edit.
    pub repetition: [f64; 2],
}

impl Trial {
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

    /// Writes the texts of `baseline` again with an edit, and measures how much more they are like `kind`.
    ///
    /// # Errors
    /// As [`generate()`] and [`Interventions::new`].
    pub fn trial(
        &self,
        baseline: &Baseline,
        intervention: Intervention,
        kind: &TextKind,
        monitor: &dyn Monitor,
    ) -> Result<Trial> {
        let mut hook = Interventions::new(self.sae().site(), vec![intervention])?;
        let written = self.write(&baseline.prompts, &baseline.config, &mut hook, monitor)?;
        let model = self.model(monitor)?;
        let texts =
            baseline.prompts.iter().zip(&baseline.written).zip(&written).map(|(((prompt, _), without), with)| {
                TrialText {
                    prompt: prompt.clone(),
                    without: model.tokenizer().decode(without),
                    with: model.tokenizer().decode(with),
                    scores: [kind.score(without), kind.score(with)],
                }
            });
        let texts: Vec<TrialText> = texts.collect();
        let gains: Vec<f64> = texts.iter().map(|text| text.scores[1] - text.scores[0]).collect();
        let (gain, interval) = mean_with_interval(&gains);
        let repetition = [&baseline.written, &written]
            .map(|texts| texts.iter().map(|text| repetition(text)).sum::<f64>() / texts.len().max(1) as f64);
        Ok(Trial { intervention, texts, gain, interval, repetition })
    }

    /// The trial with the largest gain toward the latent's own text in `sample`, of those whose texts do not repeat
    /// themselves. Each latent is driven to its own maximum; half as much again is tried only if that moves none of them.
    /// `None` if nothing moves the text.
    ///
    /// # Errors
    /// As [`Self::trial`].
    pub fn best_trial(
        &self,
        baseline: &Baseline,
        latents: &[(u32, f32)],
        sample: &Sample,
        monitor: &dyn Monitor,
    ) -> Result<Option<Trial>> {
        for strength in [1.0, 1.5] {
            let mut best: Option<Trial> = None;
            for &(latent, max) in latents {
                let edit = Intervention::Clamp { latent, value: strength * max };
                let trial = self.trial(baseline, edit, &TextKind::of_latent(sample, latent, max), monitor)?;
                let is_better = best.as_ref().is_none_or(|best| trial.gain > best.gain);
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

    fn write(
        &self,
        prompts: &[(String, Vec<u32>)],
        config: &GenerateConfig,
        hook: &mut dyn Hook,
        monitor: &dyn Monitor,
    ) -> Result<Vec<Vec<u32>>> {
        let tokens: Vec<&[u32]> = prompts.iter().map(|(_, tokens)| &tokens[..]).collect();
        generate(self.model(monitor)?, &tokens, config, hook, monitor)
    }
}

/// Share of a text's runs of tokens that occurred in it before.
fn repetition(tokens: &[u32]) -> f64 {
    let mut seen = std::collections::HashSet::new();
    let repeated = tokens.windows(RUN).filter(|run| !seen.insert(*run)).count();
    repeated as f64 / tokens.windows(RUN).count().max(1) as f64
}

/// Mean of a sample, and the 95 % interval of the mean: `mean ± t s / sqrt(n)`.
fn mean_with_interval(sample: &[f64]) -> (f64, [f64; 2]) {
    let n = sample.len();
    let mean = sample.iter().sum::<f64>() / n.max(1) as f64;
    let Some(freedom) = n.checked_sub(1).filter(|freedom| *freedom > 0) else {
        return (mean, [f64::NEG_INFINITY, f64::INFINITY]);
    };
    let variance = sample.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / freedom as f64;
    let t = STUDENT.get(freedom - 1).copied().unwrap_or(1.96);
    let reach = t * (variance / n as f64).sqrt();
    (mean, [mean - reach, mean + reach])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_is_the_mean_log_ratio() {
        let kind = TextKind::new([1, 1, 1, 2], [2, 2, 3]);
        // V = 3: ln(3.5 / 5.5) - ln(0.5 / 4.5), and so on.
        let ratio = |a: f64, b: f64| ((a + 0.5) / 5.5f64).ln() - ((b + 0.5) / 4.5f64).ln();
        assert!((kind.score(&[1]) - ratio(3.0, 0.0)).abs() < 1e-12);
        assert!((kind.score(&[2, 3, 9]) - (ratio(1.0, 2.0) + ratio(0.0, 1.0)) / 3.0).abs() < 1e-12);
        assert_eq!(kind.score(&[]), 0.0);
    }

    #[test]
    fn repeated_runs_are_counted() {
        assert_eq!(repetition(&[1, 2, 3, 4, 5]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 1, 2, 3, 1, 2, 3]), 4.0 / 7.0);
        assert_eq!(repetition(&[1]), 0.0);
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
