//! [`Relu`]: `f = relu(hidden_pre)` and an L1 penalty (Bricken et al. 2023; Anthropic's update of April 2024).
//!
//! ```text
//! L = (1/n) sum_i |x_hat_i - x_i|^2 + c (1/n) sum_ij f_ij |W_dec[j]|
//! ```
//!
//! Decoder rows are kept at norm 1, so the norm does not appear in the code. Rows of any norm, with the penalty
//! weighted by the norm, are the same functions with the same losses. The plain autoencoder with a penalty w on the
//! mean absolute activation is the case c = w / d_sae.

use crate::{
    kernels::select,
    step::{
        encoder_pass::EncoderPass,
        recipe::{Backward, Recipe},
        weights::Weights,
    },
};

/// The encoder's bias starts at a value that leaves this many times k latents active. With random rows and no bias,
/// half of all latents would be active, and a short run would spend its time reducing them.
pub(crate) const FIRST_L0_FACTOR: usize = 8;
/// Rows on which this first L0 is measured.
pub(crate) const FIRST_ROWS: usize = 512;

#[derive(Debug)]
pub(crate) struct Relu {
    k: usize,
}

impl Relu {
    pub(crate) fn new(k: usize) -> Self {
        Self { k }
    }
}

impl Recipe for Relu {
    fn begin(&self, weights: &mut Weights, x_c: &[f32]) {
        start_sparse(weights, x_c, self.k);
    }

    fn first_coefficient(&self) -> f64 {
        1.0
    }

    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        pass.run(|hidden, b_enc, acts| select::above(hidden, b_enc, select::Threshold::Global(0.0), acts));
    }

    fn backward(&mut self, step: Backward<'_>) -> f64 {
        let n = step.n();
        let slope = (step.coefficient / n) as f32;
        step.df.iter_mut().for_each(|df| *df += slope);
        step.acts.values.iter().map(|&f| f64::from(f)).sum::<f64>() / n
    }
}

/// Lowers `b_enc` so that [`FIRST_L0_FACTOR`] k latents per token are active at first.
pub(crate) fn start_sparse(weights: &mut Weights, x_c: &[f32], k: usize) {
    let count = FIRST_L0_FACTOR * k;
    if count < weights.d_sae / 2 {
        let threshold = EncoderPass::threshold(weights, x_c, count, FIRST_ROWS);
        weights.b_enc.iter_mut().for_each(|b| *b -= threshold);
    }
}
