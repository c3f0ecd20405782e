//! [`label_all`]: labels without a language model. The label of a latent is the simple rule that predicts best when it
//! fires strongly, with the precision and recall that the rule has on text it was not chosen on.
//!
//! ```text
//! fires    f_j > 0.3 max_j
//! holds    the rule, which sees the token, its neighbors, its source and its place, but no activation
//! precision = |fires and holds| / |holds|      recall = |fires and holds| / |fires|
//! F1        = 2 |fires and holds| / (|fires| + |holds|)
//! ```
//! The documents are split in two halves. The rule is the one with the best F1 on one half, and everything that a
//! [`Label`] says of it is measured on the other. Text that is repeated in the corpus is counted once.
//!
//! Few firings measure little: precision and recall have Wilson's 95 % intervals, and so has F1, which follows from the
//! proportion `J = |fires and holds| / |fires or holds|`: `F1 = 2 J / (1 + J)`.

mod rule;
mod token_facts;

use std::collections::{HashMap, HashSet};

use rayon::prelude::*;
use serde::Serialize;

use self::{
    rule::{Key, Place, Rule},
    token_facts::Vocabulary,
};
use crate::{EncodedRows, halves::Half, wilson::wilson};

/// A latent fires strongly above this share of its maximum: the threshold of Delphi's and Neuronpedia's highlights.
pub(crate) const STRONG: f32 = 0.3;
/// From this F1 on, a rule is the label of a latent.
pub(crate) const LABELED: f32 = 0.5;
/// Least number of strong firings in each half: with fewer, precision and recall are accidents.
const ENOUGH: usize = 8;
/// From this number of strong firings on the half that measures, a label is sure enough to be counted and shown first.
const SURE: u32 = 20;
/// A label of this F1 predicts well.
const GOOD: f32 = 0.8;
/// Below this F1, a rule is no better than none.
const WORTHLESS: f32 = 0.1;
/// Lower ends of the bands of [`Label::precision_by_quantile`].
const BANDS: [f64; 4] = [0.0, 0.5, 0.9, 0.99];
/// Texts are repeated if so many tokens before and after are equal.
const REACH: (usize, usize) = (6, 3);

/// What labels are made from.
pub struct LabelInput<'a> {
    /// Encoded text, sorted by context.
    pub sample: &'a EncodedRows,
    /// Source of each row, an index of `source_names`.
    pub sources: &'a [u32],
    /// Names of the sources of the corpus.
    pub source_names: &'a [String],
    /// The text of a token.
    pub token_text: &'a (dyn Fn(u32) -> String + Sync),
    /// Largest activation of each latent. `[d_sae]`
    pub max: &'a [f32],
    /// The tokens that each latent promotes, where that was measured. `[d_sae]`, or empty
    pub promoted: &'a [Vec<u32>],
}

/// The rule that predicts a latent best. All figures are of the half of the documents on which it was not chosen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    /// The latent.
    pub latent: u32,
    /// The rule in words, e.g. `on "when"`; empty if the latent fires strongly too seldom to choose one.
    pub rule: String,
    /// Kind of rule, e.g. `word`, `previous` or `source`; empty without a rule.
    pub kind: String,
    /// Share of the tokens where the rule holds on which the latent fires strongly.
    pub precision: f32,
    /// Its 95 % interval (Wilson).
    pub precision_interval: [f32; 2],
    /// Share of the strong firings where the rule holds.
    pub recall: f32,
    /// Its 95 % interval (Wilson).
    pub recall_interval: [f32; 2],
    /// Harmonic mean of the two.
    pub f1: f32,
    /// Its 95 % interval.
    pub f1_interval: [f32; 2],
    /// Number of strong firings: tokens on which the latent is above 0.3 of its maximum.
    pub firings: u32,
    /// Number of tokens where the rule holds.
    pub holds: u32,
    /// Share of all firings, weak ones too, where the rule holds.
    pub share_of_firings: f32,
    /// Share of the sum of all activations that comes from tokens where the rule holds.
    pub share_of_mass: f32,
    /// Share of the firings where the rule holds, by quantile of the activation: 0 to 0.5, 0.5 to 0.9, 0.9 to 0.99 and
    /// above. Empty without a rule.
    pub precision_by_quantile: Vec<f32>,
}

impl Label {
    /// True if the rule says what the latent is about.
    pub fn is_explained(&self) -> bool {
        self.f1 >= LABELED
    }

    /// True if it is measured on enough firings to be relied on.
    pub fn is_sure(&self) -> bool {
        self.firings >= SURE
    }

    /// True if its rule names bytes that are no whole character, which a reader cannot make out.
    pub(crate) fn has_loose_bytes(&self) -> bool {
        token_facts::has_loose_bytes(&self.rule)
    }

    /// True if the rule predicts the latent well, and that is sure.
    pub(crate) fn is_good(&self) -> bool {
        self.f1 >= GOOD && self.is_sure()
    }

    /// The meaning of [`Self::is_good`], for a sentence.
    pub(crate) fn goodness() -> String {
        format!("F1 {GOOD} or more on {SURE} firings or more")
    }

    /// The rule, if it says anything.
    pub(crate) fn useful_rule(&self) -> &str {
        if self.f1 >= WORTHLESS { &self.rule } else { "" }
    }

    /// The rule alone; with a question mark if it predicts poorly, `-` if there is none.
    pub fn short(&self) -> String {
        match self.useful_rule() {
            "" => "-".into(),
            rule if self.is_explained() => rule.into(),
            rule => format!("{rule}?"),
        }
    }

    pub(crate) fn none(latent: usize, firings: usize) -> Self {
        Self {
            latent: latent as u32,
            rule: String::new(),
            kind: String::new(),
            precision: 0.0,
            precision_interval: [0.0, 1.0],
            recall: 0.0,
            recall_interval: [0.0, 1.0],
            f1: 0.0,
            f1_interval: [0.0, 1.0],
            firings: firings as u32,
            holds: 0,
            share_of_firings: 0.0,
            share_of_mass: 0.0,
            precision_by_quantile: vec![],
        }
    }
}

/// `on "when" (F1 .93, 412 firings)`, `on "so" (F1 .80, only 9 firings)`, or `no simple rule (best: in code, F1 .21)`.
impl std::fmt::Display for Label {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (f1, n) = (two_digits(self.f1), self.firings);
        let only = if self.is_sure() { "" } else { "only " };
        match self.useful_rule() {
            "" if (n as usize) < ENOUGH => write!(f, "too few strong firings for a rule ({n})"),
            "" => write!(f, "no simple rule"),
            rule if self.is_explained() => write!(f, "{rule} (F1 {f1}, {only}{n} firings)"),
            rule => write!(f, "no simple rule (best: {rule}, F1 {f1})"),
        }
    }
}

/// A share as `.93`.
pub(crate) fn two_digits(share: f32) -> String {
    let text = format!("{share:.2}");
    text.strip_prefix('0').unwrap_or(&text).into()
}

/// The label of every latent.
pub fn label_all(input: &LabelInput<'_>) -> Vec<Label> {
    let text = Text::new(input);
    let firings = by_latent(input, &text);
    let totals = [Half::Choose, Half::Report].map(|half| text.totals(half));
    firings.par_iter().enumerate().map(|(latent, firings)| text.label(latent, firings, &totals)).collect()
}

/// A row on which a latent is active.
#[derive(Debug, Clone, Copy)]
struct Firing {
    row: u32,
    value: f32,
}

/// The firings of each latent, on rows that count. `[d_sae]`
fn by_latent(input: &LabelInput<'_>, text: &Text<'_>) -> Vec<Vec<Firing>> {
    let mut firings = vec![vec![]; input.max.len()];
    for row in text.rows() {
        let (latents, values) = input.sample.acts.row(row);
        for (&latent, &value) in latents.iter().zip(values) {
            firings[latent as usize].push(Firing { row: row as u32, value });
        }
    }
    firings
}

/// Number of rows on which each key holds.
type Totals = HashMap<Key, u32>;

/// The sample as rules see it.
struct Text<'a> {
    input: &'a LabelInput<'a>,
    vocabulary: Vocabulary,
    /// For each row: its half; `None` if it does not count, because it is not ordinary or repeats an earlier one.
    halves: Vec<Option<Half>>,
}

impl<'a> Text<'a> {
    fn new(input: &'a LabelInput<'a>) -> Self {
        let vocabulary = Vocabulary::new(&input.sample.rows.token, input.token_text);
        let halves = halves(input.sample);
        Self { input, vocabulary, halves }
    }

    /// The rows that count.
    fn rows(&self) -> impl Iterator<Item = usize> {
        self.halves.iter().enumerate().filter(|(_, half)| half.is_some()).map(|(row, _)| row)
    }

    fn totals(&self, half: Half) -> Totals {
        let mut totals = Totals::new();
        for row in self.rows().filter(|&row| self.halves[row] == Some(half)) {
            self.keys(row, |key| *totals.entry(key).or_default() += 1);
        }
        totals
    }

    /// Calls `each` with every key that holds on a row.
    fn keys(&self, row: usize, each: impl FnMut(Key)) {
        let rows = &self.input.sample.rows;
        let neighbor = |other: Option<usize>| {
            let other = other.filter(|&other| rows.context.get(other) == Some(&rows.context[row]))?;
            Some(rows.token[other])
        };
        let place = Place {
            token: rows.token[row],
            previous: neighbor(row.checked_sub(1)),
            next: neighbor(Some(row + 1)),
            source: self.input.sources[row],
            position: rows.position[row],
        };
        place.keys(&self.vocabulary, each);
    }

    fn label(&self, latent: usize, firings: &[Firing], [choose, report]: &[Totals; 2]) -> Label {
        let strong = |firing: &&Firing| firing.value > STRONG * self.input.max[latent];
        let in_half = |half: Half| move |firing: &&Firing| self.halves[firing.row as usize] == Some(half);
        let chosen_on: Vec<&Firing> = firings.iter().filter(in_half(Half::Choose)).filter(strong).collect();
        let reported: Vec<&Firing> = firings.iter().filter(in_half(Half::Report)).collect();
        let n_strong = reported.iter().copied().filter(strong).count();
        if chosen_on.len() < ENOUGH || n_strong < ENOUGH {
            return Label::none(latent, n_strong);
        }
        let mut hits = Totals::new();
        chosen_on.iter().for_each(|firing| self.keys(firing.row as usize, |key| *hits.entry(key).or_default() += 1));
        let promoted = self.input.promoted.get(latent).map_or(&[][..], Vec::as_slice);
        let Some(rule) = Rule::best(&hits, choose, chosen_on.len(), promoted) else {
            return Label::none(latent, n_strong);
        };
        self.report(latent, &rule, &reported, report)
    }

    /// Measures a rule on the other half. `firings`: all of the latent there.
    fn report(&self, latent: usize, rule: &Rule, firings: &[&Firing], totals: &Totals) -> Label {
        let holds: Vec<bool> = firings.iter().map(|firing| self.holds(rule, firing.row as usize)).collect();
        let all = || firings.iter().zip(&holds);
        let strong = |(firing, _): &(&&Firing, &bool)| firing.value > STRONG * self.input.max[latent];
        let n_strong = all().filter(strong).count();
        let both = all().filter(strong).filter(|(_, holds)| **holds).count();
        let n_holds: u32 = rule.keys.iter().filter_map(|key| totals.get(key)).sum();
        let mass = |only: bool| -> f64 {
            all().filter(|(_, holds)| !only || **holds).map(|(firing, _)| f64::from(firing.value)).sum()
        };
        let n_holds = n_holds as usize;
        let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f32 / of as f32 };
        let interval = |part: usize, of: usize| wilson(part, of).map(|end| end as f32);
        let of_f1 = |jaccard: f64| (2.0 * jaccard / (1.0 + jaccard)) as f32;
        let mut by_value: Vec<(f32, bool)> = all().map(|(firing, holds)| (firing.value, *holds)).collect();
        by_value.sort_by(|a, b| a.0.total_cmp(&b.0));
        let n = by_value.len();
        let edge = |quantile: f64| (quantile * n as f64).ceil() as usize;
        let bands = (0..BANDS.len()).map(|band| {
            let end = BANDS.get(band + 1).map_or(n, |quantile| edge(*quantile));
            let band = &by_value[edge(BANDS[band]).min(end)..end];
            share(band.iter().filter(|(_, holds)| *holds).count(), band.len())
        });
        Label {
            latent: latent as u32,
            rule: rule.describe(&self.vocabulary, self.input),
            kind: rule.kind.name().into(),
            precision: share(both, n_holds),
            precision_interval: interval(both, n_holds),
            recall: share(both, n_strong),
            recall_interval: interval(both, n_strong),
            f1: share(2 * both, n_strong + n_holds),
            f1_interval: wilson(both, n_strong + n_holds - both).map(of_f1),
            firings: n_strong as u32,
            holds: n_holds as u32,
            share_of_firings: share(holds.iter().filter(|holds| **holds).count(), n),
            share_of_mass: (mass(true) / mass(false).max(f64::MIN_POSITIVE)) as f32,
            precision_by_quantile: bands.collect(),
        }
    }

    fn holds(&self, rule: &Rule, row: usize) -> bool {
        let mut holds = false;
        self.keys(row, |key| holds |= rule.keys.contains(&key));
        holds
    }
}

/// The half of each row that counts. Documents are split; contexts, if nearly all text is of one document.
fn halves(sample: &EncodedRows) -> Vec<Option<Half>> {
    let rows = &sample.rows;
    let split = |numbers: &[u64]| numbers.iter().map(|number| Half::of(*number)).collect::<Vec<_>>();
    let is_even = |halves: &[Half]| {
        let chosen = halves.iter().filter(|half| **half == Half::Choose).count();
        chosen * 4 >= halves.len() && chosen * 4 <= halves.len() * 3
    };
    let by_document = split(&rows.document);
    let halves = if is_even(&by_document) { by_document } else { split(&rows.context) };
    let mut seen = HashSet::new();
    let counts = rows.contexts().into_iter().flat_map(|context| {
        context
            .clone()
            .map(move |row| (row, context.start.max(row.saturating_sub(REACH.0))..context.end.min(row + REACH.1 + 1)))
    });
    counts
        .map(|(row, window)| {
            let is_whole = window.len() == REACH.0 + REACH.1 + 1;
            let is_new = !is_whole || seen.insert(&rows.token[window]);
            (sample.ordinary[row] && is_new).then_some(halves[row])
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use harvester::TokenRows;
    use trainer::FeatureActs;

    use super::*;
    use crate::halves::mixed;

    const WORDS: [&str; 15] = [
        "\n", " when", "When", " of", " rome", " 42", " the", " and", " it", " was", " big", " house", " 43", "ly",
        " Ann",
    ];
    const SOURCES: [&str; 2] = ["code", "speeches"];
    const CONTEXT: usize = 50;

    fn token(text: &str) -> u32 {
        WORDS.iter().position(|word| *word == text).map_or(0, |place| place as u32)
    }

    /// 400 documents of one context each, of words drawn at random; odd documents are from the second source.
    fn rows() -> TokenRows {
        let n = 400 * CONTEXT as u64;
        TokenRows {
            document: (0..n).map(|row| row / CONTEXT as u64).collect(),
            context: (0..n).map(|row| row / CONTEXT as u64).collect(),
            position: (0..n).map(|row| (row % CONTEXT as u64) as u32).collect(),
            token: (0..n).map(|row| (mixed(row + 1) % WORDS.len() as u64) as u32).collect(),
            role: vec![],
        }
    }

    /// The sample in which latent `j` fires with `strength(j, row)`.
    fn sample(rows: TokenRows, n_latents: usize, strength: impl Fn(&TokenRows, usize, usize) -> f32) -> EncodedRows {
        let mut acts = FeatureActs::default();
        let ordinary: Vec<bool> = rows.position.iter().map(|position| *position > 0).collect();
        for (row, ordinary) in ordinary.iter().enumerate() {
            for latent in (0..n_latents).filter(|&latent| *ordinary && strength(&rows, latent, row) > 0.0) {
                acts.latents.push(latent as u32);
                acts.values.push(strength(&rows, latent, row));
            }
            acts.offsets.push(acts.latents.len());
        }
        EncodedRows { rows, ordinary, acts }
    }

    fn label(sample: &EncodedRows, n_latents: usize, promoted: &[Vec<u32>]) -> Vec<Label> {
        let sources: Vec<u32> = sample.rows.document.iter().map(|document| (document % 2) as u32).collect();
        label_all(&LabelInput {
            sample,
            sources: &sources,
            source_names: &SOURCES.map(String::from),
            token_text: &|token| WORDS[token as usize].to_string(),
            max: &vec![10.0; n_latents],
            promoted,
        })
    }

    #[test]
    fn planted_rules_are_found() {
        let is = |rows: &TokenRows, row: usize, text: &str| rows.token.get(row) == Some(&token(text));
        let planted = |rows: &TokenRows, latent: usize, row: usize| {
            let holds = match latent {
                0 => is(rows, row, " when") || is(rows, row, "When"),
                1 => is(rows, row, "When"),
                2 => is(rows, row - 1, " of"),
                3 => is(rows, row + 1, " rome") && !(row + 1).is_multiple_of(CONTEXT),
                4 => rows.document[row] % 2 == 1,
                5 => is(rows, row, " 42"),
                6 => is(rows, row, " the") && is(rows, row - 1, " and"),
                7 => is(rows, row, " big") && rows.document[row].is_multiple_of(2),
                8 => is(rows, row, " it") || is(rows, row, " was"),
                _ => (is(rows, row + 1, " big") || is(rows, row + 1, " house")) && !(row + 1).is_multiple_of(CONTEXT),
            };
            // Everything fires weakly elsewhere, which is no firing to a rule.
            if holds { 5.0 + (row % 5) as f32 } else { 1.0 }
        };
        let promoted: Vec<Vec<u32>> =
            (0..10).map(|latent| if latent == 9 { vec![token(" big"), token(" house")] } else { vec![] }).collect();
        let labels = label(&sample(rows(), 10, planted), 10, &promoted);
        let rules: Vec<&str> = labels.iter().map(|label| label.rule.as_str()).collect();
        let wanted = [
            "on \"when\"",
            "on \"When\"",
            "after \"of\"",
            "before \"rome\"",
            "in speeches",
            "on \"42\"",
            "on \"the\" after \"and\"",
            "on \"big\" in code",
            "on \"was\", \"it\"",
            "before the tokens that it promotes",
        ];
        assert_eq!(rules, wanted);
        for label in &labels {
            assert_eq!((label.precision, label.recall, label.f1), (1.0, 1.0, 1.0), "{label:?}");
            assert!(label.share_of_firings < 0.6 && label.share_of_mass > label.share_of_firings, "{label:?}");
            // The strong firings are those of the rule, so that it covers more of the higher quantiles.
            assert!(label.precision_by_quantile.is_sorted() && label.precision_by_quantile.len() == 4, "{label:?}");
        }
        assert!(labels[0].to_string().starts_with("on \"when\" (F1 1.00, "), "{}", labels[0]);
    }

    #[test]
    fn the_figures_are_those_of_the_half_on_which_the_rule_was_not_chosen() {
        // Fires on "when", not always, and on some others.
        let noisy = |rows: &TokenRows, _: usize, row: usize| match rows.token[row] == token(" when") {
            true if !mixed(row as u64).is_multiple_of(4) => 4.0 + (row % 7) as f32,
            false if mixed(row as u64).is_multiple_of(50) => 6.0,
            _ => 0.0,
        };
        let sample = sample(rows(), 1, noisy);
        let label = label(&sample, 1, &[]).remove(0);
        assert_eq!(label.rule, "on \" when\"");
        let halves = halves(&sample);
        let (mut both, mut holds, mut fires) = (0, 0, 0);
        let (mut mass, mut mass_of_all) = (0.0, 0.0);
        for row in (0..sample.rows.token.len()).filter(|&row| halves[row] == Some(Half::Report)) {
            let value = sample.acts.get(row, 0);
            let (rule, strong) = (sample.rows.token[row] == token(" when"), value > 3.0);
            both += usize::from(rule && strong);
            holds += usize::from(rule);
            fires += usize::from(strong);
            mass += if rule { value } else { 0.0 };
            mass_of_all += value;
        }
        let ratio = |a: usize, b: usize| a as f32 / b as f32;
        assert_eq!((label.precision, label.recall), (ratio(both, holds), ratio(both, fires)));
        assert_eq!((label.f1, label.firings as usize), (ratio(2 * both, holds + fires), fires));
        assert_eq!(label.holds as usize, holds);
        for (value, [low, high]) in [
            (label.precision, label.precision_interval),
            (label.recall, label.recall_interval),
            (label.f1, label.f1_interval),
        ] {
            assert!(low < value && value < high && high - low < 0.1, "{label:?}");
        }
        assert!((label.share_of_mass - mass / mass_of_all).abs() < 1e-5);
        assert!(label.is_explained() && label.f1 < 0.95);
    }

    #[test]
    fn chance_gets_no_label_and_rare_latents_none() {
        let random = |_: &TokenRows, latent: usize, row: usize| match latent {
            0 if mixed(row as u64).is_multiple_of(20) => 9.0,
            1 if row % 5000 == 7 => 9.0,
            _ => 0.0,
        };
        let labels = label(&sample(rows(), 3, random), 3, &[]);
        assert!(
            !labels[0].is_explained() && labels[0].to_string().starts_with("no simple rule (best: "),
            "{}",
            labels[0]
        );
        assert!(labels[1].rule.is_empty() && labels[2].rule.is_empty());
        assert!(labels[2].to_string().starts_with("too few"), "{}", labels[2]);
    }

    #[test]
    fn few_firings_are_said_and_worthless_rules_are_not() {
        let label = |f1: f32, firings: u32| Label { rule: "on \"so\"".into(), f1, firings, ..Label::none(0, 0) };
        assert_eq!(label(0.9, 19).to_string(), "on \"so\" (F1 .90, only 19 firings)");
        assert_eq!(label(0.9, 20).to_string(), "on \"so\" (F1 .90, 20 firings)");
        assert_eq!(
            [label(0.9, 19).is_good(), label(0.9, 20).is_good(), label(0.79, 20).is_good()],
            [false, true, false]
        );
        assert_eq!(label(0.2, 30).to_string(), "no simple rule (best: on \"so\", F1 .20)");
        assert_eq!((label(0.05, 30).to_string().as_str(), label(0.05, 30).short().as_str()), ("no simple rule", "-"));
        assert_eq!(Label::none(0, 3).to_string(), "too few strong firings for a rule (3)");
    }

    #[test]
    fn repeated_text_is_counted_once() {
        let mut rows = rows();
        let first = rows.token[..CONTEXT].to_vec();
        rows.token[100 * CONTEXT..].chunks_mut(CONTEXT).for_each(|context| context.copy_from_slice(&first));
        let halves = halves(&sample(rows, 0, |_, _, _| 0.0));
        let counted = |rows: std::ops::Range<usize>| halves[rows].iter().filter(|half| half.is_some()).count();
        assert_eq!(counted(0..100 * CONTEXT), 100 * (CONTEXT - 1));
        // Tokens at the ends of a context have no whole window, so that no copy is found.
        assert_eq!(counted(100 * CONTEXT..400 * CONTEXT), 300 * (REACH.0 - 1 + REACH.1));
    }
}
