//! [`Step`]: edits at a hook point with their strengths in numbers. [`PlacePass`] applies them to the rows of a pass.

use std::collections::{BTreeMap, HashSet};

use harvester::{HookPoint, norm};
use serde::Serialize;
use trainer::{InputNorm, LatentEncoder, Sae};

use super::strength::Amount;
use crate::{Result, SaeSite};

/// The edits at one hook point.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) hook_point: HookPoint,
    /// Rows with a larger norm are attention sinks.
    pub(super) sink_norm: f32,
    pub(super) steps: Vec<Step<'a>>,
}

#[derive(Debug)]
pub(super) enum Step<'a> {
    Latents(Box<LatentStep<'a>>),
    Direction(DirectionStep),
}

/// Edits of latents that read one encoding. Its encoder also has latents that are only watched.
#[derive(Debug)]
pub(super) struct LatentStep<'a> {
    /// Number of the SAE.
    pub(super) sae: usize,
    pub(super) site: SaeSite<'a>,
    pub(super) encoder: LatentEncoder<'a>,
    pub(super) edits: Vec<LatentEdit>,
}

#[derive(Debug)]
pub(super) struct LatentEdit {
    /// Number of the edit.
    pub(super) number: usize,
    pub(super) change: LatentChange,
}

#[derive(Debug)]
pub(super) enum LatentChange {
    Set(u32, Amount),
    Floor(u32, Amount),
    Cap(u32, Amount),
    Scale(u32, f32),
    Splice,
}

#[derive(Debug)]
pub(super) struct DirectionStep {
    pub(super) number: usize,
    /// Of length 1.
    pub(super) unit: Vec<f32>,
    pub(super) length: f32,
    /// A latent's direction is one of normalized rows.
    pub(super) input_norm: InputNorm,
    pub(super) change: DirectionChange,
}

#[derive(Debug)]
pub(super) enum DirectionChange {
    Add(Amount),
    Ablate,
    /// To another direction of length 1.
    Swap(Vec<f32>),
}

/// How many rows an edit met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EditCount {
    /// Rows in its scope.
    pub in_scope: u64,
    /// Rows that it changed.
    pub changed: u64,
}

/// A latent and its largest activations, read before the edit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatentMax {
    /// The latent.
    pub latent: u32,
    /// Its largest activation; 0 if it is never active.
    pub max: f32,
    /// On the prompt.
    pub max_prompt: f32,
    /// On the text after it.
    pub max_written: f32,
    /// Number of tokens of the prompt on which it is active.
    pub active_prompt: u64,
    /// Number of tokens after it on which it is active.
    pub active_written: u64,
    /// Largest difference between its activation as it was set, and what the edited row reads when it is encoded again:
    /// the interference of other latents, and of the SAE with itself. `None` if no row was edited.
    pub interference: Option<f32>,
}

/// What was seen of a latent.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) max_prompt: f32,
    pub(super) max_written: f32,
    pub(super) active_prompt: u64,
    pub(super) active_written: u64,
    pub(super) interference: Option<f32>,
}

/// A pass at one place.
pub(super) struct PlacePass<'p> {
    pub(super) width: usize,
    /// The weight of each edit on each row. `[edits][rows]`
    pub(super) weights: &'p [Vec<f32>],
    /// The rows on which latents are watched even where nothing is edited, and read again after it.
    pub(super) watch_all: Option<&'p [bool]>,
    pub(super) is_prompt: Vec<bool>,
    pub(super) counts: &'p mut [EditCount],
    pub(super) seen: &'p mut BTreeMap<(usize, u32), Seen>,
    /// The latents that an earlier step has counted in this pass.
    pub(super) counted: HashSet<(usize, u32)>,
    pub(super) changed: bool,
}

impl PlacePass<'_> {
    pub(super) fn edit_latents(&mut self, step: &mut LatentStep<'_>, x: &mut [f32]) -> Result<()> {
        let Self { width, weights, .. } = *self;
        let in_scope = |row: usize| step.edits.iter().any(|edit| weights[edit.number][row] != 0.0);
        let is_read = |row: &usize| in_scope(*row) || self.watch_all.is_some_and(|watched| watched[*row]);
        let read: Vec<usize> = (0..x.len() / width).filter(is_read).collect();
        if read.is_empty() {
            return Ok(());
        }
        let gathered: Vec<f32> = read.iter().flat_map(|row| &x[row * width..][..width]).copied().collect();
        let latents = step.encoder.latents().to_vec();
        let acts = step.encoder.encode(&gathered)?;
        let (sae, d_in) = (step.site.sae, step.site.sae.d_in());
        let first: Vec<bool> = latents.iter().map(|latent| self.counted.insert((step.sae, *latent))).collect();
        let mut wanted = vec![]; // the new activations of each row that is read
        for (at, &row) in read.iter().enumerate() {
            let x = &mut x[row * width..][..width];
            let before = &gathered[at * d_in..][..d_in];
            let scale = sae.config().input_norm.scale(before);
            let row_norm = norm(before);
            let mut z: Vec<f32> = latents.iter().map(|latent| acts.get(at, *latent)).collect();
            let was = z.clone();
            for edit in &step.edits {
                let weight = weights[edit.number][row];
                if weight == 0.0 {
                    continue;
                }
                self.counts[edit.number].in_scope += 1;
                let Some(latent) = edit.change.latent() else {
                    splice(sae, before, weight, x)?;
                    self.counts[edit.number].changed += 1;
                    self.changed = true;
                    continue;
                };
                let place = latents.binary_search(&latent).expect("the encoder has every edited latent");
                let length = || norm(sae.decoder_row(latent as usize)) * scale;
                let target = edit.change.edited(z[place], |share| share * row_norm / length());
                let next = if weight == 1.0 { target } else { z[place] + weight * (target - z[place]) };
                self.counts[edit.number].changed += u64::from(next != z[place]);
                z[place] = next;
            }
            for (place, &latent) in latents.iter().enumerate() {
                let change = scale * (z[place] - was[place]);
                // A change of 0 must not alter anything, not even the sign of a zero.
                if change != 0.0 {
                    let direction = sae.decoder_row(latent as usize);
                    x.iter_mut().zip(direction).for_each(|(x, d)| *x += change * d);
                    self.changed = true;
                }
                if self.watch_all.is_some() && first[place] {
                    self.seen.entry((step.sae, latent)).or_default().add(was[place], self.is_prompt[row]);
                }
            }
            wanted.push((row, was, z));
        }
        if self.watch_all.is_some() {
            self.read_again(step, &wanted, x)?;
        }
        Ok(())
    }

    /// Encodes the edited rows again. `wanted`: of each row that was read, its activations before and after the edit.
    fn read_again(
        &mut self,
        step: &mut LatentStep<'_>,
        wanted: &[(usize, Vec<f32>, Vec<f32>)],
        x: &[f32],
    ) -> Result<()> {
        let edited: Vec<_> = wanted.iter().filter(|(_, was, z)| was != z).collect();
        let rows: Vec<f32> =
            edited.iter().flat_map(|(row, ..)| &x[row * self.width..][..self.width]).copied().collect();
        let latents = step.encoder.latents().to_vec();
        let acts = step.encoder.encode(&rows)?;
        for (at, (_, was, z)) in edited.iter().enumerate() {
            for (place, latent) in latents.iter().enumerate().filter(|(place, _)| was[*place] != z[*place]) {
                let off = (acts.get(at, *latent) - z[place]).abs();
                let seen = self.seen.entry((step.sae, *latent)).or_default();
                seen.interference = Some(seen.interference.unwrap_or(0.0).max(off));
            }
        }
        Ok(())
    }

    pub(super) fn edit_direction(&mut self, step: &DirectionStep, x: &mut [f32]) {
        let DirectionStep { number, unit, length, input_norm, change } = step;
        for (row, x) in x.chunks_exact_mut(self.width).enumerate() {
            let weight = self.weights[*number][row];
            if weight == 0.0 {
                continue;
            }
            let along = || x.iter().zip(unit).map(|(x, u)| f64::from(*x) * f64::from(*u)).sum::<f64>() as f32;
            // The amounts of the direction, and of the one that takes its place.
            let (amount, of_other) = match change {
                DirectionChange::Add(Amount::Fixed(value)) => (value * length * input_norm.scale(x), None),
                DirectionChange::Add(Amount::OfNorm(share)) => (share * norm(x), None),
                DirectionChange::Ablate => (-along(), None),
                DirectionChange::Swap(to) => (-along(), Some(to)),
            };
            let amount = weight * amount;
            let count = &mut self.counts[*number];
            count.in_scope += 1;
            if amount != 0.0 {
                count.changed += 1;
                self.changed = true;
                x.iter_mut().zip(unit).for_each(|(x, u)| *x += amount * u);
                if let Some(to) = of_other {
                    x.iter_mut().zip(to).for_each(|(x, t)| *x -= amount * t);
                }
            }
        }
    }
}

/// Replaces a row by its reconstruction, by the share `weight`.
fn splice(sae: &Sae, before: &[f32], weight: f32, x: &mut [f32]) -> Result<()> {
    let (_, x_hat) = sae.reconstruct(before)?;
    if weight == 1.0 {
        x.copy_from_slice(&x_hat);
    } else {
        x.iter_mut().zip(x_hat).for_each(|(x, new)| *x += weight * (new - *x));
    }
    Ok(())
}

impl LatentChange {
    pub(super) fn latent(&self) -> Option<u32> {
        match self {
            Self::Set(latent, _) | Self::Floor(latent, _) | Self::Cap(latent, _) | Self::Scale(latent, _) => {
                Some(*latent)
            }
            Self::Splice => None,
        }
    }

    /// The new activation where the latent has `z`. `of_norm`: an activation from its share of the row's norm.
    fn edited(&self, z: f32, of_norm: impl Fn(f32) -> f32) -> f32 {
        let value = |amount: &Amount| match amount {
            Amount::Fixed(value) => *value,
            Amount::OfNorm(share) => of_norm(*share),
        };
        match self {
            Self::Set(_, amount) => value(amount),
            Self::Floor(_, amount) => z.max(value(amount)),
            Self::Cap(_, amount) => z.min(value(amount)),
            Self::Scale(_, factor) => factor * z,
            Self::Splice => z,
        }
    }
}

impl LatentStep<'_> {
    /// Encodes one more latent.
    pub(super) fn read_latent(&mut self, latent: u32) -> Result<()> {
        self.encoder = LatentEncoder::new(self.site.sae, &[self.encoder.latents(), &[latent]].concat())?;
        Ok(())
    }
}

impl Seen {
    pub(super) fn of(&self, latent: u32) -> LatentMax {
        let Self { max_prompt, max_written, active_prompt, active_written, interference } = *self;
        let max = max_prompt.max(max_written);
        LatentMax { latent, max, max_prompt, max_written, active_prompt, active_written, interference }
    }

    fn add(&mut self, z: f32, is_prompt: bool) {
        let (max, active) = match is_prompt {
            true => (&mut self.max_prompt, &mut self.active_prompt),
            false => (&mut self.max_written, &mut self.active_written),
        };
        *max = max.max(z);
        *active += u64::from(z > 0.0);
    }
}
