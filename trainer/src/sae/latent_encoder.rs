//! [`LatentEncoder`]: the activations of some latents, whose rows of `W_enc` are prepared once. While a text is written,
//! each token then costs these rows and no others.

use super::{Nonlinearity, Sae, encode::select};
use crate::{
    Error, Result,
    kernels::{feature_acts::FeatureActs, product::PaddedMatrix},
};

/// Encodes some latents of an SAE, to the bits that [`Sae::encode`] gives them.
///
/// The latents of a `topk` SAE compete with all others. A row is encoded as a whole only if one of these latents is
/// positive on it: otherwise none can be among the k largest.
#[derive(Debug)]
pub struct LatentEncoder<'a> {
    sae: &'a Sae,
    /// Ascending.
    latents: Vec<u32>,
    w_enc: PaddedMatrix,
    /// Of these latents.
    b_enc: Vec<f32>,
    /// With the parameters of these latents; for `topk`, what selects every positive one.
    nonlinearity: Nonlinearity,
    /// Normalized rows and their pre-activations without bias. `[n, d_in]`, `[n, latents]`
    x: Vec<f32>,
    hidden: Vec<f32>,
    acts: FeatureActs,
}

impl<'a> LatentEncoder<'a> {
    /// An encoder of these `latents`, in any order.
    ///
    /// # Errors
    /// A latent that the SAE does not have.
    pub fn new(sae: &'a Sae, latents: &[u32]) -> Result<Self> {
        let mut latents = latents.to_vec();
        latents.sort_unstable();
        latents.dedup();
        if let Some(latent) = latents.last().filter(|latent| **latent as usize >= sae.d_sae()) {
            return Err(Error::invalid("latent", format!("below {}", sae.d_sae()), latent.to_string()));
        }
        let weights = &sae.weights;
        let of_latents = |values: &[f32]| latents.iter().map(|&latent| values[latent as usize]).collect::<Vec<f32>>();
        let nonlinearity = match &weights.nonlinearity {
            Nonlinearity::JumpRelu { threshold } => Nonlinearity::JumpRelu { threshold: of_latents(threshold) },
            Nonlinearity::Gated { r_mag, b_mag } => {
                Nonlinearity::Gated { r_mag: of_latents(r_mag), b_mag: of_latents(b_mag) }
            }
            Nonlinearity::Standard | Nonlinearity::TopK { .. } => Nonlinearity::Standard,
            Nonlinearity::Dense => Nonlinearity::Dense,
        };
        let w_enc: Vec<f32> = latents.iter().flat_map(|&latent| sae.encoder_row(latent as usize)).copied().collect();
        let (w_enc, b_enc) = (PaddedMatrix::new(w_enc, sae.d_in()), of_latents(&weights.b_enc));
        let (x, hidden, acts) = (vec![], vec![], FeatureActs::default());
        Ok(Self { sae, latents, w_enc, b_enc, nonlinearity, x, hidden, acts })
    }

    /// The latents, ascending.
    pub fn latents(&self) -> &[u32] {
        &self.latents
    }

    /// The active ones of these latents on each row of `x`. The result is valid until the next call.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn encode(&mut self, x: &[f32]) -> Result<&FeatureActs> {
        self.sae.check_rows(x)?;
        let d_in = self.sae.d_in();
        self.acts.clear();
        if self.latents.is_empty() {
            (0..x.len() / d_in).for_each(|_| self.acts.end_row());
            return Ok(&self.acts);
        }
        self.x.clear();
        self.x.extend_from_slice(x);
        self.x.chunks_exact_mut(d_in).for_each(|row| self.sae.center(row));
        self.hidden.resize(x.len() / d_in * self.latents.len(), 0.0);
        self.w_enc.product_transposed(&self.x, &mut self.hidden);
        select(&self.nonlinearity, &self.hidden, &self.b_enc, &mut self.acts);
        self.acts.latents.iter_mut().for_each(|latent| *latent = self.latents[*latent as usize]);
        if let Nonlinearity::TopK { .. } = self.sae.nonlinearity() {
            self.compete(x)?;
        }
        Ok(&self.acts)
    }

    /// Keeps the latents that are among the k largest of their row.
    fn compete(&mut self, x: &[f32]) -> Result<()> {
        let d_in = self.sae.d_in();
        let positive = std::mem::take(&mut self.acts);
        let rows: Vec<usize> = (0..positive.n_rows()).filter(|row| !positive.range(*row).is_empty()).collect();
        let whole: Vec<f32> = rows.iter().flat_map(|row| &x[row * d_in..][..d_in]).copied().collect();
        let all = self.sae.encode(&whole)?;
        let mut next = 0;
        for row in 0..positive.n_rows() {
            if rows.get(next) == Some(&row) {
                for &latent in positive.row(row).0 {
                    let value = all.get(next, latent);
                    if value > 0.0 {
                        self.acts.latents.push(latent);
                        self.acts.values.push(value);
                    }
                }
                next += 1;
            }
            self.acts.end_row();
        }
        Ok(())
    }
}

impl Sae {
    /// The result of [`Sae::encode`] for only these `latents`, bit for bit; entries of other latents are left out. For
    /// many calls with the same latents, make a [`LatentEncoder`].
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major; `latents` in any order.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows, or a latent is not one of the SAE's.
    pub fn encode_latents(&self, x: &[f32], latents: &[u32]) -> Result<FeatureActs> {
        let mut encoder = LatentEncoder::new(self, latents)?;
        encoder.encode(x)?;
        Ok(encoder.acts)
    }
}
