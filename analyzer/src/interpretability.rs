//! Which latents to show first: those whose strongest examples agree with each other, each about something else.
//!
//! A latent's *agreement* is the share of its strongest examples whose peak is the same word (case and surrounding
//! space aside), or, where the words differ, the share that the commonest source of the corpus has in excess of chance.
//! Only latents that fire neither rarely nor everywhere are considered. No language model judges anything here.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::{Example, Feature};

/// A latent worth showing and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pick {
    /// The latent.
    pub latent: u32,
    /// Agreement of its strongest examples, 0 to 1.
    pub agreement: f32,
    /// What they agree on: a word, or a source of the corpus.
    pub about: String,
}

/// Latents rarer than this have too few examples to agree on anything; more frequent ones are not specific.
const DENSITY: std::ops::Range<f64> = 2e-4..3e-2;

/// At most `n` latents, half of them about a word and half about a kind of text, most agreeing first.
///
/// `examples_of(latent)` gives a latent's examples; `source_of(document)` an index into `sources`, the sources' names.
pub fn most_interpretable<'a>(
    features: &[Feature],
    examples_of: impl Fn(u32) -> &'a [Example],
    source_of: impl Fn(u64) -> Option<usize>,
    sources: &[String],
    n: usize,
) -> Vec<Pick> {
    let enough = |feature: &&Feature| DENSITY.contains(&feature.density) && examples_of(feature.latent).len() >= 8;
    let mut words = vec![];
    let mut kinds = vec![];
    for feature in features.iter().filter(enough) {
        let examples = examples_of(feature.latent);
        let (word, agreement) = commonest(examples.iter().filter_map(peak_word));
        // One context may repeat a word; several documents make it a feature.
        let documents: HashSet<_> = examples.iter().map(|example| example.document).collect();
        if agreement >= 0.6 && documents.len() * 3 >= examples.len() {
            words.push(Pick { latent: feature.latent, agreement, about: word });
        } else if let Some(pick) = about_a_source(feature, examples, &source_of, sources) {
            kinds.push(pick);
        }
    }
    let words = distinct(words, n - n / 2, 1);
    let kinds = distinct(kinds, n - words.len(), 2);
    words.into_iter().chain(kinds).collect()
}

/// A latent that fires in one source far more than its density elsewhere explains, on many different words.
fn about_a_source(
    feature: &Feature,
    examples: &[Example],
    source_of: impl Fn(u64) -> Option<usize>,
    sources: &[String],
) -> Option<Pick> {
    let names = examples.iter().filter_map(|example| source_of(example.document)).filter_map(|s| sources.get(s));
    let (source, agreement) = commonest(names.cloned());
    let place = sources.iter().position(|name| *name == source)?;
    let here = feature.density_by_source.get(place).copied().unwrap_or(0.0);
    let most_elsewhere =
        feature.density_by_source.iter().enumerate().filter(|(i, _)| *i != place).map(|(_, d)| *d).fold(0.0, f32::max);
    (agreement >= 0.9 && here > 4.0 * most_elsewhere).then_some(Pick {
        latent: feature.latent,
        agreement,
        about: source,
    })
}

/// The word at the peak, lower-case, without surrounding space; `None` where the token is only space.
fn peak_word(example: &Example) -> Option<String> {
    let word = example.texts.get(example.peak as usize)?.trim().to_lowercase();
    (!word.is_empty()).then_some(word)
}

/// The commonest item and its share; the first in alphabetical order among equals.
fn commonest(items: impl Iterator<Item = String>) -> (String, f32) {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut total = 0;
    for item in items {
        *counts.entry(item).or_default() += 1;
        total += 1;
    }
    let best = counts.into_iter().max_by(|a, b| a.1.cmp(&b.1).then(b.0.cmp(&a.0)));
    best.map_or((String::new(), 0.0), |(item, count)| (item, count as f32 / total as f32))
}

/// The `n` most agreeing picks, at most `each` of them about the same thing.
fn distinct(mut picks: Vec<Pick>, n: usize, each: usize) -> Vec<Pick> {
    picks.sort_by(|a, b| b.agreement.total_cmp(&a.agreement).then(a.latent.cmp(&b.latent)));
    let mut seen: HashMap<String, usize> = HashMap::new();
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
        assert_eq!(commonest(items.into_iter()), ("a".to_string(), 0.4));
    }
}
