//! [`Portrait`]: everything that is known about one latent, for a terminal, a page or a notebook; and the latents to show
//! first.

use std::collections::{BTreeSet, HashSet};

use harvester::DocumentRecord;
use serde::Serialize;

use super::{
    feature::{Example, ExampleKind, Feature},
    folder::FeatureIndex,
};
use crate::{Effect, Facts, Label, Result, facts::tokens, labels::two_digits};

/// Latents that fire on a larger share of the tokens are not shown first: they are not specific.
const MOST_DENSE: f64 = 0.03;
/// Sources, and latents of a list, in one line.
const LISTED: usize = 4;
/// Tokens of a short list, and of a long one.
const FEW: usize = 6;
const ALL: usize = usize::MAX;

/// Everything that is known about one latent.
#[derive(Debug, Clone, Serialize)]
pub struct Portrait {
    /// Counts, logit lens, nearest latents.
    pub feature: Feature,
    /// The rule that predicts it.
    pub label: Label,
    /// What it does to the next token; `None` if it never fires, or that was not measured.
    pub effect: Option<Effect>,
    /// Its strongest examples.
    pub examples: Vec<Example>,
    /// Their documents, each once.
    pub documents: Vec<DocumentRecord>,
}

impl FeatureIndex {
    /// A latent with its `n` strongest examples.
    ///
    /// # Errors
    /// A number that the SAE does not have, or a damaged table.
    pub fn portrait(&self, latent: u32, n: usize) -> Result<Portrait> {
        let feature = self.feature(latent)?;
        let mut examples = self.examples_of(&feature, ExampleKind::Top)?;
        examples.truncate(n);
        let numbers: BTreeSet<u64> = examples.iter().map(|example| example.document).collect();
        let documents = numbers.into_iter().filter_map(|number| self.document(number)).cloned().collect();
        Ok(Portrait { label: self.label(latent)?, effect: self.effect(latent)?, feature, examples, documents })
    }

    /// At most `n` latents whose labels predict best, of different kinds in turn, each about something else.
    ///
    /// # Errors
    /// A damaged table.
    pub fn best_labeled(&self, n: usize) -> Result<Vec<u32>> {
        let density = self.column::<f64>("density")?;
        let mut labels = self.labels()?;
        // Nobody can read a token that is a part of a letter.
        let is_readable = |label: &Label| label.is_explained() && label.is_sure() && !label.has_loose_bytes();
        labels.retain(|label| is_readable(label) && density[label.latent as usize] < MOST_DENSE);
        // Among equals, the label of more firings is surer still.
        labels.sort_by(|a, b| b.f1.total_cmp(&a.f1).then(b.firings.cmp(&a.firings)).then(a.latent.cmp(&b.latent)));
        let mut seen = HashSet::new();
        labels.retain(|label| seen.insert(about(&label.rule)));
        let mut kinds: Vec<Vec<u32>> = vec![];
        let mut names: Vec<String> = vec![];
        for label in &labels {
            let at = names.iter().position(|name| *name == label.kind).unwrap_or_else(|| {
                names.push(label.kind.clone());
                kinds.push(vec![]);
                kinds.len() - 1
            });
            kinds[at].push(label.latent);
        }
        let most = kinds.iter().map(Vec::len).max().unwrap_or(0);
        let in_turn = (0..most).flat_map(|at| kinds.iter().filter_map(move |latents| latents.get(at).copied()));
        Ok(in_turn.take(n).collect())
    }
}

/// What a rule is about, without case and quotes: of two rules on nearly the same text, one is shown.
fn about(rule: &str) -> String {
    rule.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

impl Portrait {
    /// In short: the tokens that it raises, measured if that was done, otherwise by the logit lens.
    pub fn summary(&self) -> Facts {
        let lens = ("lens raises", &self.feature.promoted);
        let (name, raised) = self.effect.as_ref().map_or(lens, |effect| ("raises", &effect.promoted));
        let mut facts = Facts::default();
        facts.add(name, tokens(raised, FEW));
        facts
    }

    /// What is known, as names and values. `sources`: the names of the corpus' sources.
    pub fn facts(&self, sources: &[String]) -> Facts {
        let (feature, mut facts) = (&self.feature, Facts::default());
        if feature.n_active == 0 {
            facts.add("fires", "never: it is active on no token of the index");
        } else {
            let [p50, _, p99, _] = feature.quantiles;
            let n = harvester::human::grouped(feature.n_active);
            let (density, max) = (100.0 * feature.density, feature.max);
            // With fewer than 100 firings the 99th percentile is the largest one.
            let p99 = if feature.n_active < 100 { String::new() } else { format!(" 99 % {p99:.1},") };
            facts.add("fires", format!("on {density:.3} % of tokens ({n}): median {p50:.1},{p99} max {max:.1}"));
            facts.add("strength", feature.histogram.line());
            facts.add("where", self.by_source(sources));
        }
        self.rule(&mut facts);
        if let Some(effect) = &self.effect {
            facts.add("raises", tokens(&effect.promoted, ALL));
            facts.add("lowers", tokens(&effect.suppressed, ALL));
            facts.add("effect", strength(effect, feature.n_active));
        }
        if !feature.promoted.is_empty() {
            facts.add("lens raises", tokens(&feature.promoted, ALL));
            facts.add("lens lowers", tokens(&feature.suppressed, ALL));
        }
        let others = feature.fires_with.iter().take(LISTED);
        let others: Vec<_> =
            others.map(|o| format!("{} ({:.0} % of its tokens, {:.0}x)", o.latent, 100.0 * o.share, o.lift)).collect();
        if !others.is_empty() {
            facts.add("fires with", others.join("  "));
        }
        let near = feature.nearest.iter().map(|(latent, cosine)| format!("{latent} ({cosine:.2})"));
        facts.add("nearest", near.collect::<Vec<_>>().join("  "));
        facts
    }

    /// How much of the latent its rule covers.
    fn rule(&self, facts: &mut Facts) {
        let label = &self.label;
        if label.useful_rule().is_empty() {
            return;
        }
        let measured = |name: &str, value: f32, [low, high]: [f32; 2]| {
            format!("{name} {} ({} to {})", two_digits(value), two_digits(low), two_digits(high))
        };
        let figures = [
            measured("precision", label.precision, label.precision_interval),
            measured("recall", label.recall, label.recall_interval),
            measured("F1", label.f1, label.f1_interval),
        ];
        facts.add("rule", figures.join(", "));
        let firings = harvester::human::counted(u64::from(label.firings), "strong firing");
        let few = if label.is_sure() { "" } else { ": too few to rely on" };
        facts.add("measured on", format!("{firings} (above 0.3 of max) in held-out documents{few}"));
        let (firings, mass) = (100.0 * label.share_of_firings, 100.0 * label.share_of_mass);
        facts.add("rule covers", format!("{firings:.0} % of all its firings, {mass:.0} % of its activation"));
        let bands = ["weaker half", "to 90 %", "to 99 %", "strongest 1 %"];
        let shares = bands.iter().zip(&label.precision_by_quantile);
        let shares: Vec<_> = shares.map(|(band, share)| format!("{band} {:.0} %", 100.0 * share)).collect();
        facts.add("by strength", shares.join("  "));
    }

    /// Sources sorted by how often the latent fires in them, with its density in each.
    fn by_source(&self, names: &[String]) -> String {
        let mut sources: Vec<_> = names.iter().zip(&self.feature.density_by_source).collect();
        sources.sort_by(|a, b| b.1.total_cmp(a.1));
        let shown = sources.iter().filter(|(_, density)| **density > 0.0).take(LISTED);
        shown.map(|(name, density)| format!("{name} {:.2} %", 100.0 * **density)).collect::<Vec<_>>().join("  ")
    }
}

/// How strongly it moves the next token.
fn strength(effect: &Effect, n_active: u64) -> String {
    // With fewer than 1,000 firings the 99.9th percentile is the largest one.
    let dose = if n_active < 1000 { "about its max" } else { "its 99.9 %" };
    let mut parts = vec![format!("{:.2} nats at {:.1} ({dose})", effect.kl, effect.dose)];
    parts.push(match effect.dose_kl25.is_finite() {
        true => format!("0.25 nats at {:.1}", effect.dose_kl25),
        false => "never 0.25 nats".into(),
    });
    parts.push(format!("{:.2} of the activation's norm", effect.relative_dose));
    parts.extend(effect.output_score.map(|score| format!("output score {score:.3}")));
    parts.push(format!("confidence {:+.2}", -effect.delta_confidence));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_that_never_fires_says_so() {
        let (feature, label) = (Feature::default(), Label::none(0, 0));
        let facts = Portrait { feature, label, effect: None, examples: vec![], documents: vec![] }.facts(&[]);
        let lines: Vec<_> = facts.iter().collect();
        assert_eq!(lines[0], ("fires", "never: it is active on no token of the index"));
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_quantile_that_is_the_maximum_is_not_shown_as_another_number() {
        let shown = |n_active| {
            let feature = Feature { n_active, max: 9.0, quantiles: [1.0, 8.0, 8.9, 8.95], ..Feature::default() };
            let effect = Some(Effect { dose: 8.95, ..Effect::default() });
            let label = Label::none(0, 0);
            let portrait = Portrait { feature, label, effect, examples: vec![], documents: vec![] };
            portrait.facts(&[]).iter().map(|(_, value)| value.to_owned()).collect::<Vec<_>>().join("\n")
        };
        assert!(shown(99).contains("median 1.0, max 9.0") && shown(99).contains("(about its max)"), "{}", shown(99));
        assert!(shown(100).contains("median 1.0, 99 % 8.9, max 9.0"), "{}", shown(100));
        assert!(shown(1000).contains("8.9 (its 99.9 %)"), "{}", shown(1000));
    }

    #[test]
    fn rules_on_nearly_the_same_text_are_one() {
        assert_eq!(about("on \" When\""), about("on \"when\""));
        assert_ne!(about("on \"when\""), about("after \"when\""));
    }
}
