//! [`Sae::encode`]: activations to active latents. [`Sae::encode_latents`]: the same for only some latents; the product
//! then uses only their rows of `W_enc`. [`Encoder`]: the same for many blocks of rows, with buffers that stay.

use rayon::prelude::*;

use super::{Nonlinearity, Sae, SaeWeights};
use crate::{
    Error, Result,
    kernels::{
        feature_acts::FeatureActs,
        gated::gated,
        product::product_transposed,
        select::{self, Threshold},
    },
};

/// Pre-activations computed at a time, at most: 134 MB. With fewer rows at a time the product packs the weights more
/// often, which takes 4 % of its time at 1,024 rows.
const TILE: usize = 1 << 25;
/// Rows encoded at a time, at most. With more the product is not faster.
const ROWS_PER_TILE: usize = 4096;

/// Encodes blocks of rows. Its buffers stay from one block to the next: fresh memory of this size is cleared by the
/// system first.
#[derive(Debug)]
pub struct Encoder<'a> {
    sae: &'a Sae,
    buffers: Buffers,
}

/// Rows of a tile, and their pre-activations without bias. `[tile, d_in]`, `[tile, d_sae]`
#[derive(Debug, Default)]
struct Buffers {
    x: Vec<f32>,
    hidden: Vec<f32>,
}

impl<'a> Encoder<'a> {
    /// An encoder without buffers yet.
    pub fn new(sae: &'a Sae) -> Self {
        Self { sae, buffers: Buffers::default() }
    }

    /// Width of the rows.
    pub fn d_in(&self) -> usize {
        self.sae.d_in()
    }

    /// The active latents of `n` rows, as [`Sae::encode`] gives them. `read` writes the row of a number to a slice
    /// `[d_in]`.
    pub fn encode(&mut self, n: usize, read: impl Fn(usize, &mut [f32]) + Sync) -> FeatureActs {
        let SaeWeights { w_enc, b_enc, nonlinearity, .. } = &self.sae.weights;
        self.sae.encode_with((n, &read), w_enc, b_enc, nonlinearity, &mut self.buffers)
    }
}

impl Sae {
    /// The active latents of each row of `x`.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn encode(&self, x: &[f32]) -> Result<FeatureActs> {
        self.check_rows(x)?;
        let d_in = self.d_in();
        Ok(Encoder::new(self).encode(x.len() / d_in, |row, to| to.copy_from_slice(&x[row * d_in..][..d_in])))
    }

    /// The result of [`Sae::encode`] for only these `latents`, bit for bit; entries of other latents are left out. It
    /// computes the product of these latents only; for `topk`, whose latents compete, of all latents.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major; `latents` in any order.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows, or a latent is not one of the SAE's.
    pub fn encode_latents(&self, x: &[f32], latents: &[u32]) -> Result<FeatureActs> {
        self.check_rows(x)?;
        let mut latents = latents.to_vec();
        latents.sort_unstable();
        latents.dedup();
        if let Some(latent) = latents.last().filter(|latent| **latent as usize >= self.d_sae()) {
            return Err(Error::invalid("latent", format!("below {}", self.d_sae()), latent.to_string()));
        }
        if latents.is_empty() {
            return Ok(FeatureActs { offsets: vec![0; x.len() / self.d_in() + 1], ..FeatureActs::default() });
        }
        let weights = &self.weights;
        let of_latents = |values: &[f32]| latents.iter().map(|&latent| values[latent as usize]).collect::<Vec<f32>>();
        let nonlinearity = match &weights.nonlinearity {
            Nonlinearity::TopK { .. } => {
                let mut acts = self.encode(x)?;
                let keep: Vec<bool> = acts.latents.iter().map(|latent| latents.binary_search(latent).is_ok()).collect();
                acts.retain(|entry| keep[entry]);
                return Ok(acts);
            }
            Nonlinearity::JumpRelu { threshold } => Nonlinearity::JumpRelu { threshold: of_latents(threshold) },
            Nonlinearity::Gated { r_mag, b_mag } => {
                Nonlinearity::Gated { r_mag: of_latents(r_mag), b_mag: of_latents(b_mag) }
            }
            Nonlinearity::Standard => Nonlinearity::Standard,
            Nonlinearity::Dense => Nonlinearity::Dense,
        };
        let w_enc: Vec<f32> = latents.iter().flat_map(|&latent| self.encoder_row(latent as usize)).copied().collect();
        let d_in = self.d_in();
        let read = |row: usize, to: &mut [f32]| to.copy_from_slice(&x[row * d_in..][..d_in]);
        let b_enc = of_latents(&weights.b_enc);
        let rows = (x.len() / d_in, &read);
        let mut acts = self.encode_with(rows, &w_enc, &b_enc, &nonlinearity, &mut Buffers::default());
        acts.latents.iter_mut().for_each(|latent| *latent = latents[*latent as usize]);
        Ok(acts)
    }

    fn check_rows(&self, x: &[f32]) -> Result<()> {
        let d_in = self.d_in();
        if x.len().is_multiple_of(d_in) {
            return Ok(());
        }
        let expected = format!("whole rows of d_in = {d_in} values");
        Err(Error::invalid("activations to encode", expected, format!("{} values", x.len())))
    }

    /// Encodes `n` rows, which `read` writes.
    ///
    /// # Shapes
    /// For m latents, `w_enc` `[m, d_in]`, `b_enc` and the parameters of `nonlinearity` `[m]`.
    fn encode_with(
        &self,
        (n, read): (usize, &(impl Fn(usize, &mut [f32]) + Sync)),
        w_enc: &[f32],
        b_enc: &[f32],
        nonlinearity: &Nonlinearity,
        buffers: &mut Buffers,
    ) -> FeatureActs {
        let (d_in, n_latents) = (self.d_in(), b_enc.len());
        let tile = (TILE / n_latents.max(1)).clamp(1, ROWS_PER_TILE).min(n.max(1));
        let mut acts = FeatureActs::default();
        let Buffers { x, hidden } = buffers;
        x.resize(x.len().max(tile * d_in), 0.0);
        hidden.resize(hidden.len().max(tile * n_latents), 0.0);
        for start in (0..n).step_by(tile) {
            let rows = tile.min(n - start);
            let x = &mut x[..rows * d_in];
            x.par_chunks_exact_mut(d_in).enumerate().for_each(|(row, to)| {
                read(start + row, to);
                self.center(to);
            });
            let hidden = &mut hidden[..rows * n_latents];
            product_transposed(x, w_enc, d_in, hidden);
            match nonlinearity {
                Nonlinearity::Standard => select::above(hidden, b_enc, Threshold::Global(0.0), &mut acts),
                Nonlinearity::TopK { k } => select::top_k(hidden, b_enc, *k, &mut acts),
                Nonlinearity::JumpRelu { threshold } => {
                    select::above(hidden, b_enc, Threshold::PerLatent(threshold), &mut acts);
                }
                Nonlinearity::Gated { r_mag, b_mag } => gated(hidden, b_enc, (r_mag, b_mag), &mut acts),
                Nonlinearity::Dense => select::everything(hidden, b_enc, &mut acts),
            }
        }
        acts
    }

    /// Makes of a row the input of the encoder's product: normalized and without `b_dec`. `[d_in]`
    fn center(&self, x: &mut [f32]) {
        self.config.input_norm.apply(x, self.d_in());
        if self.config.apply_b_dec_to_input {
            x.iter_mut().zip(&self.weights.b_dec).for_each(|(x, b)| *x -= b);
        }
    }
}
