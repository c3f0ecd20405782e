//! [`compare`]: which latents of two SAEs are the same, by their directions and by the tokens on which they fire.
//!
//! ```text
//! max cosine of a latent     the largest cosine of its decoder row with one of the other SAE
//! matched cosine             mean cosine of the pairs of the best one-to-one assignment (PW-MCC, with the sign kept)
//! r, Jaccard                 of the activations of a pair on the same tokens: correlation, and both fire / one fires
//! ```
//! In a space of `d` dimensions, every direction has some neighbor among thousands. So the mean of the largest cosines
//! and that of the pairs stand beside the same figure for the second SAE turned by a random rotation.

mod matching;
mod tokens;

use std::path::{Path, PathBuf};

use harvester::{ActivationDataset, Monitor, human};
use serde::{Deserialize, Serialize};
use trainer::Sae;

use self::{
    matching::{Directions, Matching},
    tokens::PairCounts,
};
use crate::{Error, Facts, PlacedSae, Result, SaeSource};

/// Cosines at which the share of latents with a counterpart is given.
const COSINES: [f32; 3] = [0.5, 0.7, 0.9];
/// Least cosine of decoder and encoder rows of a shared latent.
const SAME: f32 = 0.7;
/// Least correlation of the activations of a shared latent.
const SAME_ACTIVITY: f64 = 0.5;
/// A latent below this largest cosine has no counterpart.
const ALONE: f32 = 0.4;
/// Largest share of a split latent's squared direction that its parts leave unexplained.
const UNEXPLAINED: f64 = 0.3;
/// Least Jaccard index of a split latent and the union of its parts.
const SAME_TOKENS: f64 = 0.7;
/// Upper ends of the densities by which latents are grouped.
const DENSITIES: [f64; 4] = [1e-4, 1e-3, 1e-2, 1.0];

/// Names of the two SAEs.
const NAMES: [&str; 2] = ["A", "B"];

/// Settings of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompareConfig {
    /// Tokens on which the activations are compared; rounded up to a whole context. Position 0 and
    /// attention sinks do not count. Default 100,000.
    pub tokens: u64,
}

impl Default for CompareConfig {
    fn default() -> Self {
        Self { tokens: 100_000 }
    }
}

/// How a latent is related to the other SAE.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// The other SAE has the same latent.
    Shared,
    /// Two or three latents of the other SAE do together what it does.
    Split,
    /// Something similar is there, but it is neither the same nor split.
    Related,
    /// Nothing like it is there.
    OnlyHere,
    /// It fires on none of the tokens, so that nothing can be said.
    Silent,
}

/// A latent of one SAE, and its counterpart in the other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counterpart {
    /// The latent.
    pub latent: u32,
    /// Share of the tokens on which it fires.
    pub density: f64,
    /// How it is related to the other SAE.
    pub fate: Fate,
    /// Largest cosine of its decoder row with one of the other SAE.
    pub max_cosine: f32,
    /// Its partner in the one-to-one assignment; `None` if none is left: the other SAE is smaller, or the pairing is
    /// greedy and its eight nearest are taken.
    pub partner: Option<u32>,
    /// Cosine of the decoder rows of the two; 0 without a partner.
    pub decoder_cosine: f32,
    /// Cosine of the encoder rows.
    pub encoder_cosine: f32,
    /// Correlation of the activations of the two.
    pub correlation: f64,
    /// Tokens on which both fire, over tokens on which one of them does.
    pub jaccard: f64,
    /// The latents into which it is split; empty if it is not.
    pub parts: Vec<u32>,
}

/// Shares of the pairs whose cosine is at least a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct SharesAt {
    /// The cosine.
    pub cosine: f32,
    /// Share of the pairs whose decoder rows have it.
    pub decoder: f64,
    /// Share of the pairs whose encoder rows have it.
    pub encoder: f64,
    /// Share of the pairs in which both have it.
    pub both: f64,
}

/// Latents of A with a density up to a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct AtDensity {
    /// Largest density.
    pub up_to: f64,
    /// Number of latents.
    pub latents: usize,
    /// Number of them that the other SAE has too.
    pub shared: usize,
    /// Mean of their largest cosines.
    pub mean_max_cosine: f64,
}

/// Two SAEs side by side, A and B. Figures of one SAE are in pairs, A's first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The folders or files of A and B.
    pub saes: [PathBuf; 2],
    /// Number of latents.
    pub d_sae: [usize; 2],
    /// Tokens on which the activations were compared.
    pub tokens: u64,
    /// Mean over the latents of the largest cosine (MMCS).
    pub mean_max_cosine: [f64; 2],
    /// The same with the second SAE turned at random.
    pub mean_max_cosine_by_chance: [f64; 2],
    /// Number of pairs of the assignment.
    pub pairs: usize,
    /// Mean cosine of the pairs.
    pub matched_cosine: f64,
    /// The same with the second SAE turned at random.
    pub matched_cosine_by_chance: f64,
    /// True if the assignment is the best one; false if it was too large and was made greedily.
    pub is_best_assignment: bool,
    /// Number of pairs that are each other's nearest.
    pub mutual_nearest: usize,
    /// Shares of the pairs with a cosine of at least .5, .7 and .9.
    pub shares: Vec<SharesAt>,
    /// A's latents by density.
    pub by_density: Vec<AtDensity>,
    /// Every latent of each SAE.
    pub latents: [Vec<Counterpart>; 2],
}

impl Comparison {
    /// The figures and what they mean.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for (name, sae) in NAMES.iter().zip([0, 1]) {
            let latents = human::counted(self.d_sae[sae] as u64, "latent");
            facts.add(name, format!("{}: {latents}", self.saes[sae].display()));
        }
        facts.add("compared on", format!("{} tokens of whole contexts", human::grouped(self.tokens)));
        let [of_first, of_second] = self.mean_max_cosine;
        let chance = self.mean_max_cosine_by_chance[0];
        let max = format!("{of_first:.3} of A's latents with B's, {of_second:.3} of B's with A's (mean, MMCS); ");
        facts.add("max cosine", format!("{max}A's with B turned at random {chance:.3}"));
        let how = if self.is_best_assignment { "best" } else { "greedy" };
        let (mean, chance) = (self.matched_cosine, self.matched_cosine_by_chance);
        let pairs = human::grouped(self.pairs as u64);
        let matched = format!("{mean:.3} over the {pairs} pairs, {how} one-to-one (PW-MCC); {chance:.3} by chance");
        facts.add("matched", matched);
        for SharesAt { cosine, decoder, encoder, both } in &self.shares {
            let [decoder, encoder, both] = [decoder, encoder, both].map(|share| 100.0 * share);
            let shares = format!("decoder {decoder:.1} %, encoder {encoder:.1} %, both {both:.1} % of the pairs");
            facts.add("  at least", format!("{cosine:.1}: {shares}"));
        }
        for (fate, name, meaning) in [
            (Fate::Shared, "shared", "the other SAE has the same latent"),
            (Fate::Split, "split", "two or three latents of the other SAE do together what it does"),
            (Fate::Related, "related", "the other SAE has something similar"),
            (Fate::OnlyHere, "only here", "the other SAE has nothing like it"),
            (Fate::Silent, "silent", "it fires on none of these tokens"),
        ] {
            let [first, second] = [0, 1].map(|sae| {
                let n = self.count(sae, fate);
                format!("{} ({:.1} %)", human::grouped(n as u64), 100.0 * n as f64 / self.d_sae[sae].max(1) as f64)
            });
            facts.add(name, format!("{first} of A, {second} of B: {meaning}"));
        }
        for AtDensity { up_to, latents, shared, mean_max_cosine } in self.by_density.iter().filter(|at| at.latents > 0)
        {
            let [shared, latents] = [shared, latents].map(|n| human::grouped(*n as u64));
            let (shared, density) = (format!("{shared} of {latents} shared"), 100.0 * up_to);
            facts.add(
                "  density",
                format!("to {density} %: of A's, {shared}, mean max cosine with B's {mean_max_cosine:.3}"),
            );
        }
        facts
    }

    /// For each SAE, the `n` most active latents that the other one does not have, with their shares of the tokens,
    /// below a line that says so. An SAE of which the other one has a counterpart of each is left out.
    pub fn only_here(&self, n: usize) -> Vec<(String, String)> {
        let of = |sae: usize| {
            let heading = format!("Only in {}, {}, not in {}", NAMES[sae], self.saes[sae].display(), NAMES[1 - sae]);
            Some((heading + ", with their share of the tokens", self.only_in(sae, n)?))
        };
        [0, 1].into_iter().filter_map(of).collect()
    }

    fn only_in(&self, sae: usize, n: usize) -> Option<String> {
        let mut latents: Vec<_> = self.latents[sae].iter().filter(|latent| latent.fate == Fate::OnlyHere).collect();
        latents.sort_by(|a, b| b.density.total_cmp(&a.density));
        let shown = latents.iter().take(n).map(|latent| format!("{} ({:.2} %)", latent.latent, 100.0 * latent.density));
        (!latents.is_empty()).then(|| shown.collect::<Vec<_>>().join("  "))
    }

    /// Number of latents with this fate.
    pub fn count(&self, sae: usize, fate: Fate) -> usize {
        self.latents[sae].iter().filter(|latent| latent.fate == fate).count()
    }
}

/// Compares the SAEs at two places on `activations`; `None`: on those that the first was trained on.
///
/// # Errors
/// As [`SaeSource::open`] and [`compare`].
pub fn compare_at(
    saes: [&Path; 2],
    activations: Option<&Path>,
    config: &CompareConfig,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    let open = |sae: &Path| {
        let activations = activations.map(Path::to_path_buf);
        SaeSource { activations, ..SaeSource::trained(sae) }.open(None, monitor)
    };
    let ((first, dataset), (second, _)) = (open(saes[0])?, open(saes[1])?);
    compare(first.sae(), second.sae(), &dataset, config, monitor)
}

/// Compares two SAEs of the same hook point on the activations of `dataset`.
///
/// # Errors
/// SAEs of different models, hook points or widths; crosscoders; activations of another model; a file that cannot be read.
pub fn compare(
    first: &PlacedSae,
    second: &PlacedSae,
    dataset: &ActivationDataset,
    config: &CompareConfig,
    monitor: &dyn Monitor,
) -> Result<Comparison> {
    check(first, second, dataset)?;
    let saes = [&first.sae, &second.sae];
    monitor.say("matching the directions of the latents");
    let decoders = saes.map(Directions::of_decoder);
    let encoders = saes.map(Directions::of_encoder);
    let matching = Matching::of(&decoders)?;
    if monitor.cancelled() {
        return Err(Error::Stopped);
    }
    let by_chance = Matching::of(&[decoders[0].clone(), decoders[1].turned()?])?;
    let counts = PairCounts::count([first, second], &matching, dataset, config.tokens, monitor)?;
    let sides = [0, 1].map(|side| {
        let of_side = Side { side, matching: &matching, decoders: &decoders, encoders: &encoders, counts: &counts };
        (0..saes[side].d_sae()).map(|latent| of_side.counterpart(latent)).collect::<Vec<Counterpart>>()
    });
    Ok(Comparison {
        saes: [first, second].map(|placed| placed.path.clone()),
        d_sae: saes.map(Sae::d_sae),
        tokens: counts.tokens,
        mean_max_cosine: matching.mean_max_cosine(),
        mean_max_cosine_by_chance: by_chance.mean_max_cosine(),
        pairs: matching.pairs,
        matched_cosine: matching.matched_cosine(),
        matched_cosine_by_chance: by_chance.matched_cosine(),
        is_best_assignment: matching.is_best,
        mutual_nearest: matching.mutual_nearest(),
        shares: COSINES.map(|cosine| shares_at(cosine, &sides[0])).to_vec(),
        by_density: by_density(&sides[0]),
        latents: sides,
    })
}

fn check(first: &PlacedSae, second: &PlacedSae, dataset: &ActivationDataset) -> Result<()> {
    let site = |placed: &PlacedSae| {
        let point = placed.sae.config().hook_points.to_string();
        (placed.model.sha256.clone(), placed.hook_point, point, placed.sae.d_in(), placed.sae.d_out())
    };
    let shown = |placed: &PlacedSae| {
        let (d_in, d_out) = (placed.sae.d_in(), placed.sae.d_out());
        format!("{} ({}), {} wide to {}", placed.hook_point, placed.model.source, d_in, d_out)
    };
    if site(first) != site(second) {
        let expected = format!("one like {}: at {}", first.path.display(), shown(first));
        let what = format!("SAE {}", second.path.display());
        return Err(harvester::Error::invalid(what, expected, shown(second)).into());
    }
    first.check_input(dataset.manifest.hook_point(first.hook_point)?.d_model)?;
    first.check_model(dataset)
}

/// One of the two SAEs, beside the other.
struct Side<'a> {
    side: usize,
    matching: &'a Matching,
    decoders: &'a [Directions; 2],
    encoders: &'a [Directions; 2],
    counts: &'a PairCounts,
}

impl Side<'_> {
    fn counterpart(&self, latent: usize) -> Counterpart {
        let partner = self.matching.partners[self.side][latent];
        let cosine = |rows: &[Directions; 2]| {
            partner.map_or(0.0, |other| rows[self.side].cosine(latent, &rows[1 - self.side], other as usize))
        };
        let pair = partner.map(|other| match self.side {
            0 => self.counts.pair(latent, other as usize),
            _ => self.counts.pair(other as usize, latent),
        });
        let mut found = Counterpart {
            latent: latent as u32,
            density: self.counts.density(self.side, latent),
            fate: Fate::Related,
            max_cosine: self.matching.cosines[self.side].max(latent),
            partner,
            decoder_cosine: cosine(self.decoders),
            encoder_cosine: cosine(self.encoders),
            correlation: pair.map_or(0.0, |pair| pair.correlation),
            jaccard: pair.map_or(0.0, |pair| pair.jaccard),
            parts: vec![],
        };
        let is_same = found.decoder_cosine >= SAME && found.encoder_cosine >= SAME;
        if found.density == 0.0 {
            found.fate = Fate::Silent;
        } else if is_same && found.correlation >= SAME_ACTIVITY {
            found.fate = Fate::Shared;
        } else if found.max_cosine < ALONE {
            found.fate = Fate::OnlyHere;
        } else {
            let parts = &self.matching.parts[self.side][latent];
            let fires_alike = self.counts.jaccard_of_union(self.side, latent) >= SAME_TOKENS;
            if parts.latents.len() > 1 && parts.unexplained <= UNEXPLAINED && fires_alike {
                found.fate = Fate::Split;
                found.parts = parts.latents.clone();
            }
        }
        found
    }
}

fn shares_at(cosine: f32, latents: &[Counterpart]) -> SharesAt {
    let pairs = latents.iter().filter(|latent| latent.partner.is_some());
    let share = |holds: &dyn Fn(&Counterpart) -> bool| {
        let n = pairs.clone().count().max(1);
        pairs.clone().filter(|latent| holds(latent)).count() as f64 / n as f64
    };
    SharesAt {
        cosine,
        decoder: share(&|latent| latent.decoder_cosine >= cosine),
        encoder: share(&|latent| latent.encoder_cosine >= cosine),
        both: share(&|latent| latent.decoder_cosine.min(latent.encoder_cosine) >= cosine),
    }
}

fn by_density(latents: &[Counterpart]) -> Vec<AtDensity> {
    let at = |place: usize| {
        let (from, up_to) = (if place == 0 { 0.0 } else { DENSITIES[place - 1] }, DENSITIES[place]);
        let here = latents.iter().filter(|latent| latent.density > from && latent.density <= up_to);
        let n = here.clone().count();
        let shared = here.clone().filter(|latent| latent.fate == Fate::Shared).count();
        let sum: f64 = here.map(|latent| f64::from(latent.max_cosine)).sum();
        AtDensity { up_to, latents: n, shared, mean_max_cosine: sum / n.max(1) as f64 }
    };
    (0..DENSITIES.len()).map(at).collect()
}
