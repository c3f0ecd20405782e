//! [`Auxiliary`]: the loss by which dead latents learn (AuxK; Gao et al. 2024, section 2.4 and appendix A.2).
//!
//! ```text
//! L_aux = sum_i |a_i W_dec - r_i|^2 / sum_i |r_i|^2        r = x - x_hat, held constant
//! L     = .. + alpha V L_aux                               V = (1/n) sum_i |x_i - mean|^2
//! ```
//!
//! `a_i` are the k_aux strongest dead latents of token i, which learn to explain what the living ones leave. The main
//! loss is V times the unexplained share of the variance. Likewise, this one is V times the unexplained share of the
//! residual, so its weight does not fade as the residual shrinks. `b_dec` is on neither side, so after a perfect
//! reconstruction nothing is left to explain and the term is zero.

use crate::{
    kernels::{
        decode::decode_error,
        feature_acts::{ByLatent, FeatureActs},
        select,
    },
    step::{gradients::ErrorPart, weights::Weights},
};

/// The reconstruction of the residual by dead latents.
#[derive(Debug, Default)]
pub(crate) struct Auxiliary {
    /// The dead latents, ascending. Empty if there is nothing to do.
    pub(crate) dead: Vec<u32>,
    pub(crate) acts: FeatureActs,
    k_aux: usize,
    by_latent: ByLatent,
    df: Vec<f32>,
    /// a W_dec - r. `[n, d_out]`
    error: Vec<f32>,
    /// Factor in dL/d(a W_dec) = `error_scale * error`.
    error_scale: f32,
    /// `[d_sae]`
    prefixes: [usize; 1],
}

impl Auxiliary {
    pub(crate) fn new(k_aux: usize) -> Self {
        Self { k_aux, ..Self::default() }
    }

    /// Appends the strongest dead latents of a tile.
    pub(crate) fn select(&mut self, hidden: &[f32], b_enc: &[f32]) {
        select::top_k_among(hidden, b_enc, &self.dead, self.k_aux, &mut self.acts);
    }

    /// Reconstructs the residual, which is minus the whole dictionary's error. `residual` is its sum of squares, not 0.
    /// Sets dL/d(a W_dec) = `scale / residual` times the error of this reconstruction. Returns L_aux.
    ///
    /// # Shapes
    /// `errors` `[n, n_groups, d_out]`; the last group's is the whole dictionary's.
    pub(crate) fn reconstruct(
        &mut self,
        weights: &Weights,
        errors: &[f32],
        n_groups: usize,
        residual: f64,
        scale: f64,
    ) -> f64 {
        if self.dead.is_empty() {
            return 0.0;
        }
        let d_out = weights.d_out;
        self.error.clear();
        for errors in errors.chunks_exact(n_groups * d_out) {
            self.error.extend_from_slice(&errors[(n_groups - 1) * d_out..]);
        }
        self.prefixes = [weights.d_sae];
        self.error_scale = (scale / residual) as f32;
        self.by_latent.rebuild(&self.acts, weights.d_sae);
        let (error, df) = (&mut self.error, &mut self.df);
        decode_error(&self.acts, &weights.w_dec, &self.prefixes, self.error_scale, error, df) / residual
    }

    /// The input of [`super::gradients::Gradients::compute`]; `None` if nothing was reconstructed.
    pub(crate) fn part(&self) -> Option<ErrorPart<'_>> {
        let part = ErrorPart {
            acts: &self.acts,
            by_latent: &self.by_latent,
            df: &self.df,
            errors: &self.error,
            prefixes: &self.prefixes,
            error_scale: self.error_scale,
            has_b_dec: false,
        };
        (!self.dead.is_empty()).then_some(part)
    }
}
