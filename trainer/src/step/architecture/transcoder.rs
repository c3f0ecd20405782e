//! [`Transcoder`]: BatchTopK from one hook point to another, such as from an MLP's input to its output (Dunefsky et al.
//! 2024), with an optional skip connection (Paulo et al. 2025).
//!
//! ```text
//! x_c = x - b_in        y_hat = f W_dec + b_dec + x_c W_skip^T        L = mean |y_hat - y|^2
//! ```
//!
//! A training row is x followed by y. `b_in`, the mean of x, is constant.

use super::batch_topk::BatchTopK;
use crate::{
    kernels::product::{add_product_transposed, transposed_product},
    step::{
        encoder_pass::EncoderPass,
        recipe::{Backward, Recipe},
        weights::{Parameter, W_SKIP, Weights},
    },
};

#[derive(Debug)]
pub(crate) struct Transcoder {
    selection: BatchTopK,
    d_out: usize,
    skip: bool,
}

impl Transcoder {
    pub(crate) fn new(k: usize, d_out: usize, skip: bool) -> Self {
        Self { selection: BatchTopK::new(k), d_out, skip }
    }
}

impl Recipe for Transcoder {
    /// The skip connection starts at zero.
    fn start(&self, d_sae: usize, mut mean: Vec<f32>, seed: u64) -> Weights {
        let b_dec = mean.split_off(mean.len() - self.d_out);
        let n_skip = if self.skip { mean.len() * self.d_out } else { 0 };
        let mut weights = Weights::random_map(d_sae, mean, b_dec, seed);
        if self.skip {
            weights.extra.push(Parameter { name: W_SKIP, values: vec![0.0; n_skip], lr_scale: 1.0 });
        }
        weights
    }

    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        self.selection.select(pass);
    }

    fn add_skip(&self, weights: &Weights, x_c: &[f32], errors: &mut [f32]) {
        if let [w_skip] = &weights.extra[..] {
            add_product_transposed(x_c, &w_skip.values, weights.d_in, errors);
        }
    }

    fn backward(&mut self, step: Backward<'_>) -> f64 {
        let scale = (2.0 / step.n()) as f32;
        if let [w_skip] = step.extra {
            transposed_product(step.errors, step.x_c, step.weights.d_out, step.weights.d_in, scale, w_skip);
        }
        0.0
    }
}
