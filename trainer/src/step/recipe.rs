//! [`Recipe`]: what one kind of SAE does differently from another in a training step (`architecture` has one file for
//! each). The step (`step.rs`) is the same for all:
//!
//! ```text
//! select     f = which of hidden_pre stay active, and with which value
//! (step)     e = f W_dec - x_c,  L = mean |e|^2 over rows, and over prefixes of the dictionary;  df = dL/df
//! backward   df + what the sparsity loss adds  ->  dL/dhidden_pre;  gradients of the parameters only it has
//! constrain  what must hold of those parameters after the optimiser has moved them
//! ```

use std::fmt::Debug;

use crate::{
    kernels::feature_acts::{ByLatent, FeatureActs},
    step::{encoder_pass::EncoderPass, gradients::Gradients, weights::Weights},
};

/// One kind of SAE in training.
pub(crate) trait Recipe: Debug + Send {
    /// The weights that a run starts from.
    ///
    /// # Shapes
    /// `mean`: of the rows to train on, in training units; `b_dec` starts there.
    fn start(&self, d_sae: usize, mean: Vec<f32>, seed: u64) -> Weights {
        Weights::random(d_sae, mean, seed)
    }

    /// Where the weight of the sparsity loss starts, if it is adapted to k.
    fn first_coefficient(&self) -> f64 {
        0.0
    }

    /// Sees the first batch before the first step, where weights are to start from what it holds.
    fn begin(&self, _weights: &mut Weights, _x_c: &[f32]) {}

    /// Fills in the active latents of the batch and their values f.
    fn select(&mut self, pass: &mut EncoderPass<'_>);

    /// Where the prefixes of the dictionary that have a loss of their own end; the last is the whole.
    fn prefixes(&self, d_sae: usize) -> Vec<usize> {
        vec![d_sae]
    }

    /// Adds to x_hat what does not go through the latents.
    ///
    /// # Shapes
    /// `x_c` `[n, d_in]`, `errors` `[n, d_out]`: minus the target.
    fn bypass(&self, _weights: &Weights, _x_c: &[f32], _errors: &mut [f32]) {}

    /// Turns dL/df into dL/dhidden_pre and fills in the gradients of `extra`. Returns the sparsity loss, unweighted.
    fn backward(&mut self, _step: Backward<'_>) -> f64 {
        0.0
    }

    /// Corrects what [`Gradients::compute`] cannot know.
    fn finish_gradients(&self, _weights: &Weights, _gradients: &mut Gradients) {}

    /// Restores what must hold of its own parameters after an update.
    fn constrain(&self, _weights: &mut Weights) {}
}

/// What [`Recipe::backward`] sees of a step.
#[derive(Debug)]
pub(crate) struct Backward<'a> {
    pub(crate) weights: &'a Weights,
    /// `[n, d_in]`
    pub(crate) x_c: &'a [f32],
    pub(crate) acts: &'a FeatureActs,
    pub(crate) by_latent: &'a ByLatent,
    /// x_hat - x; where the dictionary has several prefixes, of each the sum of its error and those of longer ones
    /// (`E` of `kernels::decode`). `[n, n_groups, d_out]`
    pub(crate) errors: &'a [f32],
    /// One an entry of `acts`.
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
