//! [`Recipe`]: the part of a training step that depends on the architecture (one file per architecture in
//! `architecture`). The step itself (`step.rs`) is the same for all:
//!
//! ```text
//! select     f = the latents of hidden_pre that stay active, and their values
//! (step)     e = f W_dec - x_c,  L = mean |e|^2 over rows, and over prefixes of the dictionary;  df = dL/df
//! backward   df + the sparsity loss's gradient  ->  dL/dhidden_pre;  gradients of the architecture's own parameters
//! constrain  restores the constraints of those parameters after the optimizer has moved them
//! ```

use std::fmt::Debug;

use crate::{
    kernels::feature_acts::{ByLatent, FeatureActs},
    step::{encoder_pass::EncoderPass, gradients::Gradients, weights::Weights},
};

/// One kind of SAE in training.
pub(crate) trait Recipe: Debug + Send {
    /// The initial weights of a run.
    ///
    /// # Shapes
    /// `mean` `[row_width]`: mean of the training rows, in training units; `b_dec` starts there.
    fn start(&self, d_sae: usize, mean: Vec<f32>, seed: u64) -> Weights {
        Weights::random(d_sae, mean, seed)
    }

    /// Initial weight of the sparsity loss, if it is adapted to k.
    fn first_coefficient(&self) -> f64 {
        0.0
    }

    /// Called with the first batch before the first step, to adapt the initial weights to it.
    fn begin(&self, _weights: &mut Weights, _x_c: &[f32]) {}

    /// Writes the active latents of the batch and their values f.
    fn select(&mut self, pass: &mut EncoderPass<'_>);

    /// Ends of the prefixes of the dictionary that have a loss of their own; the last is the whole dictionary.
    fn prefixes(&self, d_sae: usize) -> Vec<usize> {
        vec![d_sae]
    }

    /// Adds the skip connection, which does not go through the latents, to x_hat.
    ///
    /// # Shapes
    /// `x_c` `[n, d_in]`, `errors` `[n, d_out]`: minus the target on entry.
    fn add_skip(&self, _weights: &Weights, _x_c: &[f32], _errors: &mut [f32]) {}

    /// Turns dL/df into dL/dhidden_pre and writes the gradients of `extra`. Returns the sparsity loss, unweighted.
    fn backward(&mut self, _step: Backward<'_>) -> f64 {
        0.0
    }

    /// Corrects the gradients where the architecture differs from [`Gradients::compute`].
    fn finish_gradients(&self, _weights: &Weights, _gradients: &mut Gradients) {}

    /// Restores the constraints of its own parameters after an update.
    fn constrain(&self, _weights: &mut Weights) {}
}

/// The inputs and outputs of [`Recipe::backward`].
#[derive(Debug)]
pub(crate) struct Backward<'a> {
    pub(crate) weights: &'a Weights,
    /// `[n, d_in]`
    pub(crate) x_c: &'a [f32],
    pub(crate) acts: &'a FeatureActs,
    pub(crate) by_latent: &'a ByLatent,
    /// x_hat - x. With several prefixes: for each one, the sum of its error and those of the longer ones (`E` in
    /// `kernels::decode`). `[n, n_groups, d_out]`
    pub(crate) errors: &'a [f32],
    /// One value per entry of `acts`.
    pub(crate) df: &'a mut [f32],
    /// Gradients of the architecture's own parameters.
    pub(crate) extra: &'a mut [Vec<f32>],
    /// Weight of the sparsity loss.
    pub(crate) coefficient: f64,
}

impl Backward<'_> {
    pub(crate) fn n(&self) -> f64 {
        self.acts.n_rows() as f64
    }
}
