//! Selects the latents to show first: their strongest examples agree with each other, and each latent is about
//! something else.
//!
//! A latent's *agreement* is the share of its strongest examples whose peak is the same word (ignoring case and
//! surrounding space). If the words differ, it is the share from the most common source of the corpus. Only latents
//! that fire neither rarely nor everywhere are considered. No language model is used as a judge.

use std::{
    collections::{HashMap, HashSet},
    fmt,
};

use serde::Serialize;

use crate::{Example, Feature, FeatureIndex};

/// The fact on which the strongest examples of a latent agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// They have this word at their peak.
    Word(String),
    /// They are from this source of the corpus, with different words.
    Source(String),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Word(word) => write!(f, "on \"{word}\""),
            Self::Source(source) => write!(f, "in {source}"),
        }
    }
}

/// A latent to show, and the reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pick {
    /// The latent.
    pub latent: u32,
    /// Agreement of its strongest examples, 0 to 1.
    pub agreement: f32,
    /// The fact on which they agree.
    pub about: About,
    /// Number of documents with its strongest examples: an agreement between many documents is worth more.
    pub documents: usize,
    /// Share of tokens on which it is active.
    pub density: f64,
}

/// Rarer latents have too few examples to agree on anything; more frequent ones are not specific.
const DENSITY: std::ops::Range<f64> = 2e-4..3e-2;

impl FeatureIndex {
    /// At most `n` latents, half of them about a word and half about a kind of text, highest agreement first.
    pub fn most_interpretable(&self, n: usize) -> Vec<Pick> {
        let enough = |feature: &&Feature| {
            DENSITY.contains(&feature.density) && self.examples(feature.latent).len() >= 8 // to agree on something
        };
        let (mut words, mut kinds) = (vec![], vec![]);
        for feature in self.features().iter().filter(enough) {
            let examples = self.examples(feature.latent);
            let (word, count) = most_common(examples.iter().filter_map(peak_word));
            let agreement = count as f32 / examples.len() as f32;
            // One context may repeat a word; several documents make it a feature.
            let documents = examples.iter().map(|example| example.document).collect::<HashSet<_>>().len();
            let pick = |agreement, about| Pick {
                latent: feature.latent,
                agreement,
                about,
                documents,
                density: feature.density,
            };
            if agreement >= 0.6 && documents * 3 >= examples.len() {
                words.push(pick(agreement, About::Word(word)));
            } else if let Some((source, agreement)) = self.source_of_feature(feature) {
                kinds.push(pick(agreement, About::Source(source)));
            }
        }
        let words = distinct(words, n - n / 2, 1);
        let kinds = distinct(kinds, n - words.len(), 2);
        words.into_iter().chain(kinds).collect()
    }

    /// The source in which a latent fires far more than its density elsewhere explains, on many different words, and the
    /// share of its examples that are from there.
    fn source_of_feature(&self, feature: &Feature) -> Option<(String, f32)> {
        let examples = self.examples(feature.latent);
        let names = examples.iter().filter_map(|example| self.source_of(example.document));
        let (source, count) = most_common(names.map(String::from));
        let agreement = count as f32 / examples.len() as f32;
        let sources = self.source_names();
        let place = sources.iter().position(|name| *name == source)?;
        let here = feature.density_by_source.get(place).copied().unwrap_or(0.0);
        let elsewhere = feature.density_by_source.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, d)| *d);
        // If there is only one source, being from it has no meaning.
        let specific = sources.len() > 1 && agreement >= 0.9 && here > 4.0 * elsewhere.fold(0.0, f32::max);
        specific.then_some((source, agreement))
    }
}

/// The word at the peak, in lower case and without surrounding space. `None` if the token is not a word: a latent that
/// fires on a bracket is not informative.
fn peak_word(example: &Example) -> Option<String> {
    let word = example.texts.get(example.peak as usize)?.trim().to_lowercase();
    (word.chars().count() >= 3 && word.chars().all(char::is_alphabetic)).then_some(word)
}

/// The most common item and its count; among equals, the first in alphabetical order.
fn most_common(items: impl Iterator<Item = String>) -> (String, usize) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for item in items {
        *counts.entry(item).or_default() += 1;
    }
    let best = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)));
    best.unwrap_or_default()
}

/// The `n` picks with the highest agreement, at most `each` of them about the same thing.
fn distinct(mut picks: Vec<Pick>, n: usize, each: usize) -> Vec<Pick> {
    picks.sort_by(|a, b| {
        let most_agreeing = b.agreement.total_cmp(&a.agreement).then(b.documents.cmp(&a.documents));
        // With equal agreement, the rarer latent is more specific.
        most_agreeing.then(a.density.total_cmp(&b.density)).then(a.latent.cmp(&b.latent))
    });
    let mut seen: HashMap<About, usize> = HashMap::new();
    picks.retain(|pick| {
        let count = seen.entry(pick.about.clone()).or_default();
        *count += 1;
        *count <= each
    });
    picks.truncate(n);
    picks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commonest_item_does_not_depend_on_hashing() {
        let items = ["b", "a", "b", "a", "c"].map(String::from);
        assert_eq!(most_common(items.into_iter()), ("a".to_string(), 2));
    }
}
