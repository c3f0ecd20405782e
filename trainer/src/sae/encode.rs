//! [`Sae::encode`]: activations to active latents. [`Sae::encode_latents`]: the same for only some latents; the product
//! then uses only their rows of `W_enc`.

use super::{Nonlinearity, Sae};
use crate::{
    Error, Result,
    kernels::{
        feature_acts::FeatureActs,
        gated::gated,
        product::product_transposed,
        select::{self, Threshold},
    },
};

/// Rows encoded at a time. This limits the memory and hardly slows down the product.
const ROWS_PER_TILE: usize = 1024;

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
        let weights = &self.weights;
        Ok(self.encode_with(x, &weights.w_enc, &weights.b_enc, &weights.nonlinearity))
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
        let mut acts = self.encode_with(x, &w_enc, &of_latents(&weights.b_enc), &nonlinearity);
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

    /// # Shapes
    /// `x` `[n, d_in]`; for m latents, `w_enc` `[m, d_in]`, `b_enc` and the parameters of `nonlinearity` `[m]`.
    fn encode_with(&self, x: &[f32], w_enc: &[f32], b_enc: &[f32], nonlinearity: &Nonlinearity) -> FeatureActs {
        let (d_in, n_latents) = (self.d_in(), b_enc.len());
        let mut acts = FeatureActs::default();
        let mut hidden = vec![0.0; ROWS_PER_TILE.min(x.len() / d_in) * n_latents];
        for x in x.chunks(ROWS_PER_TILE * d_in) {
            let hidden = &mut hidden[..x.len() / d_in * n_latents]; // [tile, n_latents]
            product_transposed(&self.centered(x), w_enc, d_in, hidden);
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

    /// The input of the encoder's product, normalized and without `b_dec`. `[n, d_in]` -> `[n, d_in]`
    fn centered(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        self.config.input_norm.apply(&mut x, self.d_in());
        if self.config.apply_b_dec_to_input {
            x.iter_mut().zip(self.weights.b_dec.iter().cycle()).for_each(|(x, b)| *x -= b);
        }
        x
    }
}
