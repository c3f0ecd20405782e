//! [`Sae`]: a finished sparse autoencoder: turns activations into features and back. Every later stage uses it. On disk
//! it is SAELens' folder; SAEs of other tools can be read too (`formats`).
//!
//! ```text
//! x'         = input_norm(x) - b_dec
//! hidden_pre = x' W_enc^T + b_enc
//! f          = topk: the k largest of relu(hidden_pre);  jumprelu: hidden_pre if it exceeds threshold;  relu
//!              gated: relu(x' W_enc^T exp(r_mag) + b_mag) if hidden_pre > 0;  dense: hidden_pre
//! x_hat      = input_norm^-1(f W_dec + b_dec) + x W_skip^T
//! ```
//!
//! A transcoder is the same, except that `x_hat` is at another hook point and the first line has no `b_dec`. A
//! crosscoder reads and reconstructs several hook points, one after the other in `x`.

mod check;
mod config;
mod encode;
mod fold;
mod hook_points;
pub(crate) mod input_norm;
mod latent_encoder;
pub(crate) mod metrics;
mod weights;

pub(crate) use self::check::{Flaw, Part};
pub use self::{
    config::SaeConfig,
    encode::Encoder,
    hook_points::HookPoints,
    latent_encoder::LatentEncoder,
    weights::{Architecture, Nonlinearity, SaeWeights},
};
use crate::{
    Result,
    kernels::{decode::add_decoded, feature_acts::FeatureActs, product::add_product_transposed},
};

/// A sparse autoencoder. Inputs and outputs are raw harvested activations: any scale used in training is folded in.
/// Every tensor has the length that its config says, and every number is finite.
#[derive(Debug, Clone, PartialEq)]
pub struct Sae {
    config: SaeConfig,
    weights: SaeWeights,
}

impl Sae {
    /// Its properties, apart from its weights.
    pub fn config(&self) -> &SaeConfig {
        &self.config
    }

    /// Its weights, for code that writes them or continues training.
    pub(crate) fn weights(&self) -> &SaeWeights {
        &self.weights
    }

    /// Config and weights, to be changed; [`Sae::new`] checks them again.
    pub fn into_parts(self) -> (SaeConfig, SaeWeights) {
        (self.config, self.weights)
    }

    /// Selects the active latents.
    pub fn nonlinearity(&self) -> &Nonlinearity {
        &self.weights.nonlinearity
    }

    /// The name of its nonlinearity.
    pub fn architecture(&self) -> Architecture {
        self.weights.nonlinearity.architecture()
    }

    /// Width of the activations that it reads.
    pub fn d_in(&self) -> usize {
        self.config.d_in
    }

    /// Width of its reconstructions.
    pub fn d_out(&self) -> usize {
        self.config.d_out
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.config.d_sae
    }

    /// True if it has a skip connection, which bypasses the latents.
    pub fn has_skip(&self) -> bool {
        self.weights.w_skip.is_some()
    }

    /// The directions that the latents write; in normalized activations if it has an `input_norm`. `[d_sae, d_out]`
    pub fn w_dec(&self) -> &[f32] {
        &self.weights.w_dec
    }

    /// The direction that `latent` writes. `[d_out]`
    pub fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.weights.w_dec[latent * self.d_out()..][..self.d_out()]
    }

    /// The direction that `latent` reads. `[d_in]`
    pub fn encoder_row(&self, latent: usize) -> &[f32] {
        &self.weights.w_enc[latent * self.d_in()..][..self.d_in()]
    }

    /// The active latents of each row of `x`, and their reconstruction.
    ///
    /// # Shapes
    /// `x` `[n, d_in]` -> x_hat `[n, d_out]`
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn reconstruct(&self, x: &[f32]) -> Result<(FeatureActs, Vec<f32>)> {
        let acts = self.encode(x)?;
        let mut x_hat = self.decode(&acts);
        self.config.input_norm.undo(x, &mut x_hat, self.d_out());
        if let Some(w_skip) = &self.weights.w_skip {
            add_product_transposed(x, w_skip, self.d_in(), &mut x_hat);
        }
        Ok((acts, x_hat))
    }

    /// `f W_dec + b_dec` for each row of `acts`. `[n, d_out]` It does not include the parts that depend on the encoded
    /// row, its norm and a skip connection: [`Sae::reconstruct`] includes them.
    pub fn decode(&self, acts: &FeatureActs) -> Vec<f32> {
        let mut x_hat = self.weights.b_dec.repeat(acts.n_rows());
        add_decoded(acts, &self.weights.w_dec, self.d_out(), &mut x_hat);
        x_hat
    }

    /// Turns it into a jumprelu SAE with one threshold for all latents.
    pub(crate) fn set_threshold(&mut self, threshold: f32) {
        self.weights.nonlinearity = Nonlinearity::JumpRelu { threshold: vec![threshold; self.config.d_sae] };
    }
}

#[cfg(test)]
pub(crate) mod tests;
