//! [`Feature`]: the facts about one latent, a row of `features.parquet`; [`Example`]: a place where it fires.

use std::{fmt, ops::Range};

use serde::Serialize;

use super::histogram::Histogram;
use crate::{TokenWeight, on_one_line};

/// Another latent that fires on the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct FiresWith {
    /// The other latent.
    pub latent: u32,
    /// Share of this latent's tokens in the sample on which the other fires too.
    pub share: f32,
    /// That share over the share of all tokens on which the other fires: 1 if the two are independent.
    pub lift: f32,
}

/// The facts about one latent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Feature {
    /// Number of the latent.
    pub latent: u32,
    /// Tokens on which it is active.
    pub n_active: u64,
    /// Share of tokens on which it is active.
    pub density: f64,
    /// Largest activation.
    pub max: f32,
    /// Mean activation over the tokens on which it is active.
    pub mean: f32,
    /// Quantiles of the activation over those tokens: 50 %, 90 %, 99 % and 99.9 %.
    pub quantiles: [f32; 4],
    /// Number of tokens per bin of activation.
    pub histogram: Histogram,
    /// Sum of its activations, in units of 2^-24: a whole number, so that the order of adding does not matter.
    pub activation_sum: u64,
    /// [`Feature::n_active`] within each source of the corpus, in the manifest's order.
    pub n_active_by_source: Vec<u64>,
    /// [`Feature::density`] within each source of the corpus.
    pub density_by_source: Vec<f32>,
    /// Texts of the tokens at the peaks of its examples, without case and spaces, most frequent first.
    pub fires_on: Vec<String>,
    /// The tokens whose logits it raises more than other latents do, largest difference first, among the tokens in the
    /// indexed text.
    pub promoted: Vec<TokenWeight>,
    /// The tokens whose logits it lowers more than other latents do, largest difference first.
    pub suppressed: Vec<TokenWeight>,
    /// Latents with similar decoder directions, nearest first, with their cosine.
    pub nearest: Vec<(u32, f32)>,
    /// Latents that fire on the same tokens, most correlated first.
    pub fires_with: Vec<FiresWith>,
    /// Rows of the sample in whose window the latent is not active, drawn at random.
    pub silent_rows: Vec<u32>,
    /// Row of its first example in `examples.parquet`.
    pub first_example: u64,
    /// Number of its examples.
    pub n_examples: u32,
}

/// The reason why an example was kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExampleKind {
    /// One of the strongest.
    #[default]
    Top,
    /// Drawn from a tenth of the latent's activations in the sample.
    Sampled,
}

impl ExampleKind {
    /// The kind with this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Top, Self::Sampled].into_iter().find(|kind| kind.to_string() == name)
    }
}

impl fmt::Display for ExampleKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Top => "top",
            Self::Sampled => "sampled",
        })
    }
}

/// An example of a latent's activity in the text. A row of `examples.parquet`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Example {
    /// The latent.
    pub latent: u32,
    /// The reason why it was kept.
    pub kind: ExampleKind,
    /// 0 for the strongest of its kind.
    pub rank: u32,
    /// Share of the latent's activations in the sample that are smaller; 1 for the strongest examples.
    pub quantile: f32,
    /// The latent's activation at the peak.
    pub activation: f32,
    /// Document of the peak.
    pub document: u64,
    /// Context of the peak.
    pub context: u64,
    /// Position of the peak in its context.
    pub position: u32,
    /// Index of the peak in the window.
    pub peak: u32,
    /// Token ids around the peak.
    pub tokens: Vec<u32>,
    /// Text of each token.
    pub texts: Vec<String>,
    /// The latent's activation on each token; 0 if it is not active, and on attention sinks, on which no SAE is
    /// trained.
    pub activations: Vec<f32>,
}

impl Example {
    /// The tokens around the peak that fit into `width` characters.
    pub fn around_peak(&self, width: usize) -> Range<usize> {
        let peak = self.peak as usize;
        let (mut part, mut free) = (peak..peak + 1, width.saturating_sub(self.width(peak)));
        loop {
            let before = part.start.checked_sub(1).filter(|&token| self.width(token) <= free);
            free -= before.map_or(0, |token| self.width(token));
            part.start = before.unwrap_or(part.start);
            let after = Some(part.end).filter(|&token| token < self.texts.len() && self.width(token) <= free);
            free -= after.map_or(0, |token| self.width(token));
            part.end += usize::from(after.is_some());
            if before.is_none() && after.is_none() {
                return part;
            }
        }
    }

    /// All tokens, in lines of at most `width` characters.
    pub fn lines(&self, width: usize) -> Vec<Range<usize>> {
        let (mut lines, mut start, mut len) = (vec![], 0, 0);
        for token in 0..self.texts.len() {
            if len + self.width(token) > width && token > start {
                lines.push(start..token);
                (start, len) = (token, 0);
            }
            len += self.width(token);
        }
        lines.push(start..self.texts.len());
        lines
    }

    /// A part of the tokens on one line. `paint` paints those on which the latent is active; its second argument is the
    /// share of `max`, from 0 to 1.
    pub fn lit(&self, part: Range<usize>, max: f32, paint: impl Fn(&str, f32) -> String) -> String {
        let mut line = String::new();
        let mut of_character = 0f32;
        for (text, &activation) in self.texts[part.clone()].iter().zip(&self.activations[part]) {
            // A character of several tokens is shown at its last one, lit by the strongest of them.
            let activation = activation.max(of_character);
            of_character = if text.is_empty() { activation } else { 0.0 };
            let share = if max > 0.0 { (activation / max).clamp(0.0, 1.0) } else { 0.0 };
            match on_one_line(text) {
                text if text.is_empty() => {}
                text if activation > 0.0 => line += &paint(&text, share),
                text => line += &text,
            }
        }
        line
    }

    /// Characters of a token as it is shown: active ones may have brackets.
    fn width(&self, token: usize) -> usize {
        let is_lit = self.activations[token] > 0.0;
        self.texts[token].chars().count() + if is_lit { 2 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_of_several_tokens_is_lit_by_the_strongest_of_them() {
        let texts = ["a", "", "", "é", "\n"].map(String::from).to_vec();
        let example = Example { texts, activations: vec![0.0, 4.0, 1.0, 2.0, 0.0], ..Example::default() };
        assert_eq!(example.lit(0..5, 8.0, |text, share| format!("[{text} {share}]")), "a[é 0.5]⏎");
    }

    #[test]
    fn an_example_is_cut_around_its_peak_or_broken_into_lines() {
        let texts = ["one", " two", " three", " four"].map(String::from).to_vec();
        let example = Example { peak: 2, texts, activations: vec![0.0, 0.0, 1.0, 0.0], ..Example::default() };
        assert_eq!(example.around_peak(100), 0..4);
        assert_eq!(example.around_peak(13), 1..3);
        assert_eq!(example.around_peak(1), 2..3, "the peak itself is always there");
        assert_eq!(example.lines(100).len(), 1);
        assert_eq!(example.lines(8), [0..2, 2..3, 3..4]);
        assert_eq!(example.lines(1).len(), 4);
    }
}
