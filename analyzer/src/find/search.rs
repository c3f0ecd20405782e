//! [`FeatureIndex::search`]: latents by words: those that fire on them, promote them, or have them in their label.
//!
//! ```text
//! BM25: score = sum over the words w of the query  idf(w) n_w (k + 1) / (n_w + k (1 - b + b len / mean len))
//! idf(w) = ln(1 + (N - N_w + 1/2) / (N_w + 1/2))       N: latents, N_w: those with the word
//! n_w: times that the latent has the word: 3 for its label, 2 for a token that it promotes, 1 for a token it fires on
//! ```
//! A word of three letters or more also finds words that begin with it, at half their weight.

use rayon::prelude::*;
use serde::Serialize;

use crate::{Effect, Facts, FeatureIndex, Label, Result, TokenWeight, facts::quoted, listed::check_density};

/// The usual constants of BM25.
const K: f64 = 1.2;
const B: f64 = 0.75;
const LABEL: f64 = 3.0;
const PROMOTED: f64 = 2.0;
const FIRES_ON: f64 = 1.0;
/// Weight of a word that only begins with the one looked for, and the least letters of that.
const PREFIX: f64 = 0.5;
const LEAST: usize = 3;
/// Tokens of a list in one line.
const LISTED: usize = 6;
/// Words of rules that say nothing of their own.
const OF_RULES: &str = "on after before in words ending and the at it of";

/// A latent that was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchHit {
    /// The latent.
    pub latent: u32,
    /// BM25: larger is better, comparable within one search.
    pub score: f64,
    /// Share of tokens on which it is active.
    pub density: f64,
    /// Its label.
    pub label: Label,
    /// Tokens on which it fires most strongly.
    pub fires_on: Vec<String>,
    /// Tokens that it promotes: measured if the index has effects, otherwise by the logit lens.
    pub promotes: Vec<String>,
}

impl SearchHit {
    /// How often and on what the latent fires, and what it promotes.
    pub fn facts(&self) -> Facts {
        let list = |texts: &[String]| texts.iter().take(LISTED).map(quoted).collect::<Vec<_>>().join("  ");
        let mut facts = Facts::default();
        facts.add("fires on", format!("{:.3} % of tokens: {}", 100.0 * self.density, list(&self.fires_on)));
        facts.add("promotes", list(&self.promotes));
        facts
    }
}

/// The words of a latent, each with its weight.
struct Words(Vec<(String, f64)>);

impl FeatureIndex {
    /// At most `n` latents about `query`, best first, of those that fire on a share of at most `max_density` of the
    /// tokens.
    ///
    /// # Errors
    /// A query without a word, or a damaged table.
    pub fn search(&self, query: &str, n: usize, max_density: f64) -> Result<Vec<SearchHit>> {
        check_density(max_density)?;
        let wanted = words(query);
        if wanted.is_empty() {
            return Err(
                harvester::Error::invalid("search", "a word or a sign to look for", format!("{query:?}")).into()
            );
        }
        let (density, labels) = (self.column::<f64>("density")?, self.labels()?);
        let fires_on = self.column::<Vec<String>>("fires_on")?;
        let promotes = self.promoted_texts()?;
        let documents: Vec<Words> = (0..labels.len())
            .into_par_iter()
            .map(|latent| Words::new(labels[latent].useful_rule(), &promotes[latent], &fires_on[latent]))
            .collect();
        let mean_len = documents.iter().map(Words::len).sum::<f64>() / documents.len().max(1) as f64;
        let idf: Vec<f64> = wanted
            .iter()
            .map(|word| {
                let with = documents.par_iter().filter(|document| document.count(word) > 0.0).count() as f64;
                (1.0 + (documents.len() as f64 - with + 0.5) / (with + 0.5)).ln()
            })
            .collect();
        let score = |document: &Words| -> f64 {
            let scale = K * (1.0 - B + B * document.len() / mean_len.max(1e-9));
            let of_word = |(word, idf): (&String, &f64)| {
                let n = document.count(word);
                idf * n * (K + 1.0) / (n + scale)
            };
            wanted.iter().zip(&idf).map(of_word).sum()
        };
        let mut found: Vec<(usize, f64)> = documents.iter().map(score).enumerate().collect();
        found.retain(|(latent, score)| *score > 0.0 && density[*latent] <= max_density);
        // Of equals, the one whose label predicts better.
        found.sort_by(|a, b| b.1.total_cmp(&a.1).then(labels[b.0].f1.total_cmp(&labels[a.0].f1)).then(a.0.cmp(&b.0)));
        found.truncate(n);
        let hit = |(latent, score): (usize, f64)| SearchHit {
            latent: latent as u32,
            score,
            density: density[latent],
            label: labels[latent].clone(),
            fires_on: fires_on[latent].clone(),
            promotes: promotes[latent].clone(),
        };
        Ok(found.into_iter().map(hit).collect())
    }

    /// The texts of the tokens that each latent promotes, measured if that was done.
    fn promoted_texts(&self) -> Result<Vec<Vec<String>>> {
        let effects = self.effects()?;
        if effects.is_empty() {
            return self.column("promoted_texts");
        }
        let mut texts = vec![vec![]; self.manifest().d_sae];
        for Effect { latent, promoted, .. } in effects {
            texts[latent as usize] = promoted.into_iter().map(|TokenWeight { text, .. }| text).collect();
        }
        Ok(texts)
    }
}

impl Words {
    fn new(rule: &str, promotes: &[String], fires_on: &[String]) -> Self {
        let is_said = |word: &String| !OF_RULES.split(' ').any(|of_rules| of_rules == word);
        let mut all: Vec<(String, f64)> = words(rule).into_iter().filter(is_said).map(|word| (word, LABEL)).collect();
        for (texts, weight) in [(promotes, PROMOTED), (fires_on, FIRES_ON)] {
            all.extend(texts.iter().flat_map(|text| words(text)).map(|word| (word, weight)));
        }
        Self(all)
    }

    /// Sum of the weights of all words.
    fn len(&self) -> f64 {
        self.0.iter().map(|(_, weight)| weight).sum()
    }

    /// Sum of the weights of a word.
    fn count(&self, wanted: &str) -> f64 {
        let is_prefix = |word: &str| wanted.chars().count() >= LEAST && word.starts_with(wanted);
        let of_word = |(word, weight): &(String, f64)| match word {
            word if word == wanted => *weight,
            word if is_prefix(word) => PREFIX * weight,
            _ => 0.0,
        };
        self.0.iter().map(of_word).sum()
    }
}

/// The words of a text in lower case; the signs of a text without letters and digits as one.
fn words(text: &str) -> Vec<String> {
    let words: Vec<String> =
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    match text.trim() {
        signs if words.is_empty() && !signs.is_empty() => vec![signs.to_string()],
        _ => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fall_into_words() {
        assert_eq!(words("on \" When\", \"it's\""), ["on", "when", "it", "s"]);
        assert_eq!(words(" ://"), ["://"]);
        assert!(words("  ").is_empty());
    }

    #[test]
    fn labels_count_most_and_beginnings_half() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let latent = Words::new("on \"whale\" in fiction", &texts(&[" ships", " whale"]), &texts(&["Whale", "on"]));
        assert_eq!(latent.count("whale"), LABEL + PROMOTED + FIRES_ON);
        assert_eq!(latent.count("ship"), PREFIX * PROMOTED);
        assert_eq!((latent.count("wh"), latent.count("in")), (0.0, 0.0));
        assert_eq!(latent.count("on"), FIRES_ON, "the token, not the word of the rule");
        assert_eq!(latent.len(), 2.0 * LABEL + 2.0 * PROMOTED + 2.0 * FIRES_ON);
    }
}
