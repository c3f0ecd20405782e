//! [`JumpRelu`]: a latent is active if its pre-activation p exceeds a learned threshold (Rajamanoharan et al. 2024b).
//! The threshold gets its gradient from pre-activations near it, through a rectangular kernel K of width `bandwidth`:
//!
//! ```text
//! f = p 1[p > theta]        S = (1/n) sum_ij 1[p_ij > theta_j]  (step)   or   (1/n) sum_ij tanh(4 f_ij)  (tanh)
//! L = (1/n) sum_i |x_hat_i - x_i|^2 + c S
//!
//! df/dp = 1[p > theta]      df/dtheta = -(theta / bandwidth) K((p - theta) / bandwidth)      K(u) = 1 for |u| < 1/2
//! d1/dp = 0                 d1/dtheta = -(1 / bandwidth) K((p - theta) / bandwidth)
//! ```
//!
//! So entries just below their threshold matter too: they are kept with the value 0, get a df, and pass none of it to
//! p. The tanh loss is from Anthropic's update of January 2025, with decoder rows of norm 1. The threshold itself is
//! trained, not its logarithm (dictionary_learning found the logarithm worse). Thresholds start where BatchTopK would
//! cut the first batch.

use rayon::prelude::*;

use super::{JumpReluLoss, relu::FIRST_ROWS};
use crate::{
    kernels::select,
    step::{
        encoder_pass::EncoderPass,
        recipe::{Backward, Recipe},
        weights::{Parameter, THRESHOLD, Weights},
    },
};

/// c in tanh(c f): Anthropic's update of January 2025.
const TANH_SCALE: f32 = 4.0;

#[derive(Debug)]
pub(crate) struct JumpRelu {
    k: usize,
    loss: JumpReluLoss,
    bandwidth: f32,
    /// theta - bandwidth / 2, the lowest value that matters. `[d_sae]`
    window: Vec<f32>,
}

impl JumpRelu {
    pub(crate) fn new(k: usize, loss: JumpReluLoss, bandwidth: f32) -> Self {
        Self { k, loss, bandwidth, window: Vec::new() }
    }

    /// c dS/df of a value, without the threshold's part.
    fn slope(&self, f: f32, per_entry: f32) -> f32 {
        match self.loss {
            JumpReluLoss::Step => 0.0,
            JumpReluLoss::Tanh => per_entry * TANH_SCALE * (1.0 - (TANH_SCALE * f).tanh().powi(2)),
        }
    }

    fn sparsity(&self, values: &[f32]) -> f64 {
        match self.loss {
            JumpReluLoss::Step => values.iter().filter(|&&f| f != 0.0).count() as f64,
            JumpReluLoss::Tanh => values.iter().map(|&f| f64::from((TANH_SCALE * f).tanh())).sum(),
        }
    }
}

impl Recipe for JumpRelu {
    fn start(&self, d_sae: usize, mean: Vec<f32>, seed: u64) -> Weights {
        // A weight is in one of the d_in terms of a pre-activation; a threshold is compared with their sum.
        let lr_scale = (mean.len() as f64).sqrt();
        let extra = vec![Parameter { name: THRESHOLD, values: vec![0.0; d_sae], lr_scale }];
        Weights { extra, ..Weights::random(d_sae, mean, seed) }
    }

    fn begin(&self, weights: &mut Weights, x_c: &[f32]) {
        let first = EncoderPass::threshold(weights, x_c, self.k, FIRST_ROWS);
        weights.extra[0].values.fill(first);
    }

    fn first_coefficient(&self) -> f64 {
        1.0
    }

    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        let weights = pass.weights;
        let threshold = &weights.extra[0].values;
        self.window.clear();
        self.window.extend(threshold.iter().map(|threshold| threshold - self.bandwidth / 2.0));
        pass.run(|hidden, b_enc, acts| select::above_each(hidden, b_enc, &self.window, acts));
        pass.timed_select(|acts| {
            for (value, &latent) in acts.values.iter_mut().zip(&acts.latents) {
                if *value <= threshold[latent as usize] {
                    *value = 0.0;
                }
            }
        });
    }

    fn backward(&mut self, step: Backward<'_>) -> f64 {
        let n = step.n();
        let per_entry = (step.coefficient / n) as f32;
        let Backward { weights, acts, by_latent, df, extra, .. } = step;
        df.iter_mut().zip(&acts.values).for_each(|(df, &f)| *df += self.slope(f, per_entry));
        // Both terms, from df/dtheta and from d1/dtheta, are multiplied by -K / bandwidth.
        let step_slope = if self.loss == JumpReluLoss::Step { per_entry } else { 0.0 };
        let (threshold, df_now) = (&weights.extra[0].values, &*df);
        extra[0].par_iter_mut().enumerate().with_min_len(64).for_each(|(latent, gradient)| {
            let theta = threshold[latent];
            let entries = by_latent.entries(latent).iter().map(|&entry| entry as usize);
            let in_window = entries.filter(|&entry| acts.values[entry] - theta < self.bandwidth / 2.0);
            let sum: f32 = in_window.map(|entry| theta * df_now[entry] + step_slope).sum();
            *gradient = -sum / self.bandwidth;
        });
        df.iter_mut().zip(&acts.values).filter(|(_, f)| **f == 0.0).for_each(|(df, _)| *df = 0.0);
        self.sparsity(&acts.values) / n
    }

    fn constrain(&self, weights: &mut Weights) {
        weights.extra[0].values.iter_mut().for_each(|threshold| *threshold = threshold.max(0.0));
    }
}
