//! [`FeatureIndex::search_text`]: the latents that fire on a text, the most surprising first.
//!
//! ```text
//! a_j       = the largest activation of latent j in the text
//! rarity_j  = (1 + tokens of the index on which f_j >= a_j) / (1 + tokens of the index)
//! ```
//! The smaller the rarity, the more the text stands out. It needs no scale of its own: a latent that always fires is as
//! common as one that fires far below its own maximum.

use std::collections::BTreeMap;

use harvester::Monitor;
use serde::Serialize;

use crate::{
    EncodedRows, Example, ExampleKind, Facts, FeatureIndex, Histogram, Label, Result, Workbench, encode::check_texts,
    listed::check_density,
};

/// Tokens shown on each side of the strongest one.
const REACH: usize = 30;

/// A latent that fires on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TextHit {
    /// The latent.
    pub latent: u32,
    /// Share of the index's tokens on which it is at least as strong as here.
    pub rarity: f64,
    /// Share of the index's tokens on which it is active.
    pub density: f64,
    /// Its largest activation in the index.
    pub max: f32,
    /// Its label.
    pub label: Label,
    /// Number of the text's tokens on which it is active.
    pub n_tokens: usize,
    /// Its strongest token in the text, with those around it. Its document and context are those of the text.
    pub strongest: Example,
}

impl TextHit {
    /// How strongly it fires.
    pub fn facts(&self) -> Facts {
        let Self { rarity, max, n_tokens, strongest, .. } = self;
        let one_in = harvester::human::grouped((1.0 / rarity).round() as u64);
        let others = match n_tokens {
            1 => String::new(),
            n => format!("; fires on {n} tokens of the text"),
        };
        let mut facts = Facts::default();
        let strength = format!("{:.1} (max {max:.1}): one token in {one_in} is as strong", strongest.activation);
        facts.add("strength", strength + &others);
        facts
    }
}

impl FeatureIndex {
    /// At most `n` latents that fire on `text`, the most surprising first, of those that fire in the index on a share of
    /// at most `max_density` of the tokens. Latents that never fire there are left out: nothing is known about them.
    /// `bench` is the SAE of the index with its model.
    ///
    /// # Errors
    /// As [`Workbench::encode_texts`]; an index of another SAE, or a damaged one.
    pub fn search_text(
        &self,
        bench: &Workbench,
        text: &str,
        n: usize,
        max_density: f64,
        monitor: &dyn Monitor,
    ) -> Result<Vec<TextHit>> {
        check_density(max_density)?;
        check_texts(&[text])?;
        self.check_sae(bench.sae())?;
        let encoded = bench.encode_texts(&[text], monitor)?;
        let density = self.column::<f64>("density")?;
        let max = self.column::<f32>("max")?;
        let starts = self.column::<u32>("histogram_start")?;
        let counts = self.column::<Vec<u32>>("histogram")?;
        let n_tokens = self.manifest().tokens as f64;
        let rarity = |latent: usize, activation: f32| {
            let histogram = Histogram { start: starts[latent], counts: counts[latent].clone() };
            let above = if activation > max[latent] { 0 } else { histogram.at_least(activation) };
            (1.0 + above as f64) / (1.0 + n_tokens)
        };
        let strongest = strongest(&encoded).into_iter();
        let mut found: Vec<(f64, Strongest)> = strongest
            .filter(|it| (f64::MIN_POSITIVE..=max_density).contains(&density[it.latent as usize]))
            .map(|it| (rarity(it.latent as usize, it.activation), it))
            .collect();
        // Of equals, the one that fires further above what it does elsewhere.
        let share = |it: &Strongest| it.activation / max[it.latent as usize];
        found.sort_by(|a, b| {
            a.0.total_cmp(&b.0).then(share(&b.1).total_cmp(&share(&a.1))).then(a.1.latent.cmp(&b.1.latent))
        });
        found.truncate(n);
        let tokenizer = bench.model(monitor)?.tokenizer();
        let hit = |(rarity, it): (f64, Strongest)| {
            let mut strongest = it.example(&encoded);
            strongest.texts = tokenizer.token_texts(&strongest.tokens);
            strongest.quantile = (1.0 - rarity / density[it.latent as usize]).max(0.0) as f32;
            Ok(TextHit {
                latent: it.latent,
                rarity,
                density: density[it.latent as usize],
                max: max[it.latent as usize],
                label: self.label(it.latent)?,
                n_tokens: it.n_tokens,
                strongest,
            })
        };
        found.into_iter().map(hit).collect()
    }
}

/// Where a latent is strongest in a text.
#[derive(Debug, Clone, Copy)]
struct Strongest {
    latent: u32,
    activation: f32,
    row: usize,
    n_tokens: usize,
}

/// The strongest token of every latent that is active in the text; of equals, the first.
fn strongest(text: &EncodedRows) -> Vec<Strongest> {
    let mut found: BTreeMap<u32, Strongest> = BTreeMap::new();
    for row in 0..text.len() {
        let (latents, values) = text.acts.row(row);
        for (&latent, &activation) in latents.iter().zip(values) {
            let it = found.entry(latent).or_insert(Strongest { latent, activation, row, n_tokens: 0 });
            it.n_tokens += 1;
            if activation > it.activation {
                (it.activation, it.row) = (activation, row);
            }
        }
    }
    found.into_values().collect()
}

impl Strongest {
    fn example(&self, text: &EncodedRows) -> Example {
        let EncodedRows { rows, acts, .. } = text;
        let is_near = |row: &usize| rows.context[*row] == rows.context[self.row];
        let near: Vec<usize> =
            (self.row.saturating_sub(REACH)..text.len().min(self.row + REACH + 1)).filter(is_near).collect();
        Example {
            latent: self.latent,
            kind: ExampleKind::Top,
            activation: self.activation,
            document: rows.document[self.row],
            context: rows.context[self.row],
            position: rows.position[self.row],
            peak: (self.row - near[0]) as u32,
            tokens: near.iter().map(|&row| rows.token[row]).collect(),
            activations: near.iter().map(|&row| acts.get(row, self.latent)).collect(),
            ..Example::default()
        }
    }
}
