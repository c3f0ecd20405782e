//! [`Sweep`]: several prompts written under edits of several strengths, beside the same prompts without them. It shows
//! where an effect begins and where the text breaks.
//!
//! ```text
//! KL       = mean over the prompts of the mean KL divergence over the text without the edits, read with them
//! share    = share of the tokens of the texts on which the latent is active, read alone and without the edits
//! gain     = mean over the prompts of share with - share without, and its 95 % interval (t, prompts as the sample)
//! ```
//! Perplexities are geometric means over the prompts: [`super::fluency`] says what they are of.

use std::collections::BTreeMap;

use harvester::Monitor;
use serde::Serialize;

use super::{
    fluency::{Fluency, repetition},
    prompt::Prompt,
    shift::shift,
    steering::Steering,
    trial::{Baseline, mean_with_interval},
};
use crate::{GenerateConfig, Result, Workbench};

/// Size of the plot in characters.
const ROWS: usize = 12;
const COLUMNS: usize = 56;

/// Edits of several strengths.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sweep {
    /// The latent whose share of the tokens is the effect; `None` if no latent of the workbench's SAE is edited.
    pub latent: Option<u32>,
    /// For each strength: all prompts, then, if there are several sources, those of each.
    pub points: Vec<SweepPoint>,
    /// The texts, strength after strength.
    pub texts: Vec<SweepText>,
}

/// What edits of one strength do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepPoint {
    /// The edits.
    pub edits: String,
    /// The source of the prompts; `None`: all.
    pub source: Option<String>,
    /// Number of prompts.
    pub prompts: usize,
    /// Mean KL divergence in nats per token.
    pub kl: f64,
    /// Share of the tokens on which the latent is active, without and with the edits.
    pub share: Option<[f64; 2]>,
    /// 95 % interval of the gain.
    pub gain_interval: Option<[f64; 2]>,
    /// Without and with the edits.
    pub fluency: [Fluency; 2],
    /// Number of texts that are over-steered.
    pub over_steered: usize,
}

/// A prompt written without and with edits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SweepText {
    /// The edits.
    pub edits: String,
    /// The prompt, before any chat template.
    pub prompt: String,
    /// Its source.
    pub source: String,
    /// The text without the edits.
    pub without: String,
    /// The text with them.
    pub with: String,
    /// Mean KL divergence over the text without the edits.
    pub kl: f64,
    /// Share of the tokens of each on which the latent is active.
    pub share: Option<[f64; 2]>,
    /// Of both texts.
    pub fluency: [Fluency; 2],
    /// Why the second is broken; `None` if it is not.
    pub over_steered: Option<String>,
}

impl Workbench {
    /// Writes every prompt of `baseline` with the edits of `steering`, their strengths multiplied by each of `factors`.
    ///
    /// # Errors
    /// Edits without a strength, if a factor is not 1; or as [`Steering::hook`], [`super::generate()`] and [`shift()`].
    pub fn sweep(
        &self,
        prompts: &[Prompt],
        chat: bool,
        steering: &Steering,
        factors: &[f32],
        config: &GenerateConfig,
        monitor: &dyn Monitor,
    ) -> Result<Sweep> {
        let texts: Vec<&str> = prompts.iter().map(|prompt| &*prompt.text).collect();
        let baseline = self.baseline(&texts, chat, config, monitor)?;
        let latent = steering.own_latents(self).first().copied();
        let scaled =
            factors.iter().map(|factor| if *factor == 1.0 { Ok(steering.clone()) } else { steering.times(*factor) });
        let mut sweep = Sweep { latent, points: vec![], texts: vec![] };
        for steering in scaled.collect::<Result<Vec<_>>>()? {
            let texts = self.sweep_texts(prompts, &baseline, &steering, latent, monitor)?;
            let mut sources: BTreeMap<&str, Vec<&SweepText>> = BTreeMap::new();
            texts.iter().for_each(|text| sources.entry(&text.source).or_default().push(text));
            sweep.points.push(SweepPoint::of(None, &texts.iter().collect::<Vec<_>>()));
            if sources.len() > 1 {
                sweep.points.extend(sources.iter().map(|(source, texts)| SweepPoint::of(Some(*source), texts)));
            }
            sweep.texts.extend(texts);
        }
        Ok(sweep)
    }

    /// The prompts under edits of one strength.
    fn sweep_texts(
        &self,
        prompts: &[Prompt],
        baseline: &Baseline,
        steering: &Steering,
        latent: Option<u32>,
        monitor: &dyn Monitor,
    ) -> Result<Vec<SweepText>> {
        let model = self.model_in(baseline.config.compute, monitor)?;
        let written = self.write(&baseline.prompts, &baseline.config, &mut steering.hook(self, model)?, monitor)?;
        let edits: Vec<String> = steering.edits().iter().map(|edit| edit.what.to_string()).collect();
        let decoded = [&baseline.written, &written]
            .map(|texts| texts.iter().map(|text| model.tokenizer().decode(text)).collect::<Vec<String>>());
        let shares = |texts: &[String]| latent.map(|latent| self.shares(texts, latent, monitor)).transpose();
        let shares = shares(&decoded[0])?.zip(shares(&decoded[1])?);
        let text = |at: usize| -> Result<SweepText> {
            let prompt_tokens = &baseline.prompts[at].1;
            let sides = [&baseline.written[at], &written[at]];
            let read = |tokens: &Vec<u32>| {
                let text = [&prompt_tokens[..], tokens].concat();
                shift(model, steering.hook(self, model)?, &text, prompt_tokens.len(), 0)
            };
            let shifts = [read(sides[0])?, read(sides[1])?];
            let fluency = [0, 1].map(|side| Fluency {
                perplexity: shifts[side].perplexity().map_or(f64::NAN, |[without, _]| without),
                repetition: repetition(sides[side]),
            });
            Ok(SweepText {
                edits: edits.join(", "),
                prompt: prompts[at].text.clone(),
                source: prompts[at].source.clone(),
                without: decoded[0][at].clone(),
                with: decoded[1][at].clone(),
                kl: shifts[0].kl_written.unwrap_or(shifts[0].kl_next),
                share: shares.as_ref().map(|(without, with)| [without[at], with[at]]),
                over_steered: fluency[1].broken(&fluency[0]),
                fluency,
            })
        };
        (0..prompts.len()).map(text).collect()
    }
}

impl SweepPoint {
    /// What texts under one strength say together.
    fn of(source: Option<&str>, texts: &[&SweepText]) -> Self {
        let mean = |of: &dyn Fn(&SweepText) -> f64| texts.iter().map(|text| of(text)).sum::<f64>() / texts.len() as f64;
        let share =
            texts[0].share.map(|_| [0, 1].map(|side| mean(&|text| text.share.map_or(0.0, |share| share[side]))));
        let gains: Option<Vec<f64>> =
            texts.iter().map(|text| text.share.map(|[without, with]| with - without)).collect();
        // Of the texts in which something was written.
        let perplexity = |side: usize| {
            let all = texts.iter().map(|text| text.fluency[side].perplexity.ln()).filter(|log| !log.is_nan());
            let logs: Vec<f64> = all.collect();
            (logs.iter().sum::<f64>() / logs.len() as f64).exp()
        };
        let repetition = |side: usize| mean(&|text| text.fluency[side].repetition);
        Self {
            edits: texts[0].edits.clone(),
            source: source.map(str::to_string),
            prompts: texts.len(),
            kl: mean(&|text| text.kl),
            share,
            gain_interval: gains.filter(|gains| gains.len() > 1).map(|gains| mean_with_interval(&gains).1),
            fluency: [0, 1].map(|side| Fluency { perplexity: perplexity(side), repetition: repetition(side) }),
            over_steered: texts.iter().filter(|text| text.over_steered.is_some()).count(),
        }
    }

    /// The effect of the edits: the latent's share of the tokens, or else KL.
    fn effect(&self) -> f64 {
        self.share.map_or(self.kl, |[_, with]| with)
    }
}

impl Sweep {
    /// A table of the strengths, with its heading.
    pub fn table(&self) -> Vec<String> {
        let latent = self.latent.map_or(String::new(), |latent| format!("   on {latent}, gain (95 %)       "));
        let mut lines = vec![format!("       KL{latent}  perplexity     repeats  broken  edits")];
        for (at, point) in self.points.iter().enumerate() {
            let SweepPoint { kl, share, gain_interval, fluency: [without, with], over_steered, prompts, .. } = point;
            let mark = if point.source.is_none() { self.letter(at) } else { ' ' };
            let share = share.map_or(String::new(), |[without, with]| {
                let points = gain_interval.map(|interval| interval.map(|points| 100.0 * points));
                let interval = points.map_or(String::new(), |[low, high]| format!(" ({low:+.1} to {high:+.1})"));
                format!("  {:5.1} %{:24}", 100.0 * with, format!(" {:+.1}{interval}", 100.0 * (with - without)))
            });
            let name = point.source.as_ref().map_or(point.edits.clone(), |source| format!("  {source}"));
            let perplexity = format!("{:.1} → {:.1}", without.perplexity, with.perplexity);
            let repeats = format!("{:.0} → {:.0} %", 100.0 * without.repetition, 100.0 * with.repetition);
            let broken = format!("{over_steered} of {prompts}");
            lines.push(format!("{mark}  {kl:6.3}{share}  {perplexity:12} {repeats:>11} {broken:>8}  {name}"));
        }
        lines
    }

    /// Effect against perplexity, a letter of the table for each strength. Better is right and low.
    pub fn plot(&self) -> Vec<String> {
        let points: Vec<(char, f64, f64)> = (self.points.iter().enumerate())
            .filter(|(_, point)| point.source.is_none())
            .map(|(at, point)| (self.letter(at), point.effect(), point.fluency[1].perplexity.ln()))
            .filter(|(_, effect, perplexity)| effect.is_finite() && perplexity.is_finite())
            .collect();
        let range = |of: &dyn Fn(&(char, f64, f64)) -> f64| {
            let (low, high) = points
                .iter()
                .map(of)
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)));
            (low, if high > low { high } else { low + 1.0 })
        };
        if points.is_empty() {
            return vec![];
        }
        let ((left, right), (bottom, top)) = (range(&|point| point.1), range(&|point| point.2));
        let mut grid = vec![vec![' '; COLUMNS]; ROWS];
        for (letter, effect, perplexity) in &points {
            let place = |share: f64, n: usize| (share * (n - 1) as f64).round() as usize;
            let (row, column) =
                (place((top - perplexity) / (top - bottom), ROWS), place((effect - left) / (right - left), COLUMNS));
            grid[row][column] = *letter;
        }
        let (what, scale) =
            if self.latent.is_some() { ("tokens with the latent, %", 100.0) } else { ("KL, nats per token", 1.0) };
        let mut lines = vec!["perplexity of the text under the plain model".to_string()];
        for (row, cells) in grid.into_iter().enumerate() {
            let label = match row {
                0 => format!("{:8.1}", top.exp()),
                row if row == ROWS - 1 => format!("{:8.1}", bottom.exp()),
                _ => " ".repeat(8),
            };
            lines.push(format!("{label} │{}", cells.into_iter().collect::<String>()).trim_end().to_string());
        }
        lines.push(format!("{} └{}", " ".repeat(8), "─".repeat(COLUMNS)));
        let (left, right) = (format!("{:.2}", scale * left), format!("{:.2}", scale * right));
        lines.push(format!(
            "{}{left}{what:^width$}{right}",
            " ".repeat(10),
            width = COLUMNS - left.len() - right.len()
        ));
        lines
    }

    /// The letter of a point in table and plot.
    fn letter(&self, at: usize) -> char {
        let before = self.points[..at].iter().filter(|point| point.source.is_none()).count();
        char::from(b'a' + (before % 26) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str, kl: f64, share: [f64; 2], perplexity: [f64; 2]) -> SweepText {
        let fluency = perplexity.map(|perplexity| Fluency { perplexity, repetition: 0.1 });
        SweepText {
            edits: "clamp 3=5".into(),
            prompt: String::new(),
            source: source.into(),
            without: String::new(),
            with: String::new(),
            kl,
            share: Some(share),
            over_steered: fluency[1].broken(&fluency[0]),
            fluency,
        }
    }

    #[test]
    fn a_point_is_the_mean_of_its_texts() {
        let texts = [text("a", 1.0, [0.0, 0.5], [2.0, 8.0]), text("b", 3.0, [0.2, 0.3], [8.0, 128.0])];
        let point = SweepPoint::of(None, &texts.iter().collect::<Vec<_>>());
        assert_eq!((point.kl, point.share, point.over_steered), (2.0, Some([0.1, 0.4]), 1));
        let [without, with] = point.fluency.map(|fluency| fluency.perplexity);
        assert!((without - 4.0).abs() < 1e-9 && (with - 32.0).abs() < 1e-9, "geometric means: {without} {with}");
        let [low, high] = point.gain_interval.unwrap_or_default();
        assert!(low < 0.3 && high > 0.3 && (f64::midpoint(low, high) - 0.3).abs() < 1e-9);
    }

    #[test]
    fn table_and_plot_name_strengths_by_letters() {
        let of = |share: f64, perplexity: f64| {
            let text = text("a", 1.0, [0.0, share], [2.0, perplexity]);
            SweepPoint::of(None, &[&text])
        };
        let sources = SweepPoint { source: Some("code".into()), ..of(0.2, 4.0) };
        let sweep = Sweep { latent: Some(3), points: vec![of(0.1, 2.0), sources, of(0.9, 200.0)], texts: vec![] };
        let table = sweep.table();
        assert!(table[1].starts_with("a ") && table[2].ends_with("  code") && table[3].starts_with("b "), "{table:?}");
        assert!(table[3].contains("90.0 %") && table[3].contains("1 of 1"), "{table:?}");
        let plot = sweep.plot();
        // The strongest is at the top right, the weakest at the bottom left.
        assert!(plot[1].ends_with('b') && plot[1].contains("200.0"), "{plot:?}");
        assert!(plot[ROWS].ends_with("│a") && plot[ROWS].contains("2.0"), "{plot:?}");
        assert!(plot[ROWS + 2].contains("10.00") && plot[ROWS + 2].ends_with("90.00"), "{plot:?}");
    }
}
