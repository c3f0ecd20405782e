//! [`Interventions`]: edits of latents, described as data and applied inside a forward pass.
//!
//! With `z = encode(x)` and the new activation `z'_j` of each edited latent `j`:
//! ```text
//! x' = x + s sum_j (z'_j - z_j) W_dec[j]      s = 1, or with an input norm the factor that undoes it for the row x
//! ```
//! The part of `x` that the SAE does not explain is unchanged. The edit of a position depends only on that position's
//! `x`, so cached generation equals a pass over the whole text.

use candle_core::Tensor;
use harvester::{Edit, Hook, HookPoint, Rows};
use serde::{Deserialize, Serialize};

use crate::{Result, SaeSite, tensor_rows};

/// Largest value or factor: thousands of times the largest activation of any latent. Much larger ones overflow in the
/// next norm, and the model can no longer predict anything.
const LARGEST: f32 = 1e6;

/// An edit of one latent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Intervention {
    /// `z' = value` on every token: 0 suppresses a feature, a large value promotes it.
    Clamp {
        /// The latent.
        latent: u32,
        /// Its new activation.
        value: f32,
    },
    /// `z' = factor z`: changes only the tokens on which the latent is active.
    Scale {
        /// The latent.
        latent: u32,
        /// Factor of its activation.
        factor: f32,
    },
}

impl Intervention {
    /// The clamp that `LATENT=VALUE` says.
    ///
    /// # Errors
    /// A text of another form.
    pub fn clamp(text: &str) -> std::result::Result<Self, &'static str> {
        latent_value(text).map(|(latent, value)| Self::Clamp { latent, value })
    }

    /// The scaling that `LATENT=FACTOR` says.
    ///
    /// # Errors
    /// A text of another form.
    pub fn scale(text: &str) -> std::result::Result<Self, &'static str> {
        latent_value(text).map(|(latent, factor)| Self::Scale { latent, factor })
    }

    /// The edited latent.
    pub fn latent(&self) -> u32 {
        match self {
            Self::Clamp { latent, .. } | Self::Scale { latent, .. } => *latent,
        }
    }

    /// The new activation where the latent has `z`.
    pub fn edited(&self, z: f32) -> f32 {
        match self {
            Self::Clamp { value, .. } => *value,
            Self::Scale { factor, .. } => factor * z,
        }
    }
}

fn latent_value(text: &str) -> std::result::Result<(u32, f32), &'static str> {
    let parsed = text.split_once('=').and_then(|(latent, value)| Some((latent.parse().ok()?, value.parse().ok()?)));
    parsed.ok_or("expected LATENT=NUMBER, such as 1234=0")
}

/// A latent and its largest activation on a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatentMax {
    /// The latent.
    pub latent: u32,
    /// Its largest activation; 0 if it is never active.
    pub max: f32,
}

/// A hook that applies interventions.
#[derive(Debug)]
pub struct Interventions<'a> {
    site: SaeSite<'a>,
    edits: Vec<Intervention>,
    /// True if the pass also continues with the unedited text, before the edited one.
    keep_clean: bool,
    /// Largest activation of each edited latent so far, before its edit, on ordinary rows.
    largest: Vec<f32>,
}

impl<'a> Interventions<'a> {
    /// Edits latents of the SAE at `site`; attention sinks are not changed.
    ///
    /// # Errors
    /// An SAE that does not reconstruct the hook point that it reads, a latent that it does not have, a latent edited
    /// twice, or a value that is not finite or too large.
    pub fn new(site: SaeSite<'a>, edits: Vec<Intervention>) -> Result<Self> {
        site.sae.config().hook_points.check_autoencoder()?;
        for (i, edit) in edits.iter().enumerate() {
            let latent = edit.latent();
            let refuse = |expected: String, found: String| {
                let setting = if let Intervention::Clamp { .. } = edit { "`clamp`" } else { "`scale`" };
                Err(harvester::Error::invalid(setting, expected, found).into())
            };
            if latent as usize >= site.sae.d_sae() {
                return refuse(format!("a latent below {}", site.sae.d_sae()), latent.to_string());
            }
            if edits[..i].iter().any(|other| other.latent() == latent) {
                return refuse("each latent once".to_string(), format!("latent {latent} twice"));
            }
            // Also false for NaN.
            if !(-LARGEST..=LARGEST).contains(&edit.edited(1.0)) {
                let expected = format!("a number from -{LARGEST} to {LARGEST} for latent {latent}");
                return refuse(expected, format!("{:e}", edit.edited(1.0)));
            }
        }
        let largest = vec![0.0; edits.len()];
        Ok(Self { site, edits, keep_clean: false, largest })
    }

    /// Runs the unedited text beside the edited one: two variants from the hook point on, the unedited one first.
    pub(crate) fn beside_clean(mut self) -> Self {
        self.keep_clean = true;
        self
    }

    /// The edited latents, each with its largest activation so far before its edit; 0 if it was never active.
    pub(crate) fn largest(&self) -> Vec<LatentMax> {
        let of = |(edit, &max): (&Intervention, &f32)| LatentMax { latent: edit.latent(), max };
        self.edits.iter().zip(&self.largest).map(of).collect()
    }

    /// Edits `x` in place, except rows that are not ordinary: position 0 and attention sinks. `x`: `[rows, d_in]`
    fn edit(&mut self, rows: &Rows, x: &mut [f32]) -> Result<()> {
        let latents: Vec<u32> = self.edits.iter().map(Intervention::latent).collect();
        let acts = self.site.sae.encode_latents(x, &latents)?;
        for (row, x) in x.chunks_exact_mut(self.site.sae.d_in()).enumerate() {
            if !self.site.is_ordinary(rows.get(row), x) {
                continue;
            }
            let scale = self.site.sae.config().input_norm.scale(x);
            for (edit, largest) in self.edits.iter().zip(&mut self.largest) {
                let z = acts.get(row, edit.latent());
                *largest = largest.max(z);
                let change = scale * (edit.edited(z) - z);
                // A change of 0 must not alter anything, not even the sign of a zero.
                if change != 0.0 {
                    let direction = self.site.sae.decoder_row(edit.latent() as usize);
                    x.iter_mut().zip(direction).for_each(|(x, d)| *x += change * d);
                }
            }
        }
        Ok(())
    }
}

impl Hook for Interventions<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.site.hook_point && (!self.edits.is_empty() || self.keep_clean)
    }

    fn apply(&mut self, _point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        let mut edited = || -> Result<Tensor> {
            let mut x = tensor_rows::rows(activation)?;
            self.edit(rows, &mut x)?;
            tensor_rows::replaced(activation, x)
        };
        let edited = edited().map_err(|error| harvester::Error::Hook(error.into()))?;
        Ok(if self.keep_clean { Edit::Variants(vec![activation.clone(), edited]) } else { Edit::Replace(edited) })
    }
}
