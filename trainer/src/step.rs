//! [`Learner`]: an SAE in training, and its step: forward, backward, optimizer. Every buffer is allocated once. No
//! `[batch, d_sae]` array of gradients exists, and the encoder's product is computed in tiles of rows.
//!
//! ```text
//! L = (1/n) sum_i |x_hat_i - x_i|^2 + the architecture's own losses + the auxiliary loss of dead latents
//! ```
//!
//! Each architecture has its own file in `architecture`; the auxiliary loss is in `auxiliary`.

use crate::{
    kernels::{
        decode::decode_error,
        feature_acts::{ByLatent, FeatureActs},
    },
    step::{
        adam::Adam,
        auxiliary::Auxiliary,
        center::center,
        config::StepConfig,
        dead_latents::DeadLatents,
        encoder_pass::EncoderPass,
        gradients::{ErrorPart, Gradients},
        recipe::{Backward, Recipe},
        sparsity::SparsityCoefficient,
        times::{StepTimes, timed},
        weights::Weights,
    },
};

pub(crate) mod adam;
pub(crate) mod architecture;
pub(crate) mod auxiliary;
pub(crate) mod center;
pub(crate) mod config;
pub(crate) mod dead_latents;
pub(crate) mod encoder_pass;
pub(crate) mod gradients;
pub(crate) mod memory;
pub(crate) mod recipe;
pub(crate) mod sparsity;
pub(crate) mod times;
pub(crate) mod train_architecture;
pub(crate) mod weights;

/// Measurements of one step, on the weights before its update; `dead` counts this batch's tokens too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepReport {
    /// Mean over tokens of |x_hat - x|^2, in training units (E|x - mean|^2 is about d_in).
    pub(crate) loss: f64,
    /// Sum of squared errors / sum of squared distances from the batch's mean.
    pub(crate) fvu: f64,
    pub(crate) l0: f64,
    /// The sparsity loss, unweighted; 0 if the architecture has none.
    pub(crate) sparsity_loss: f64,
    /// Weight of the sparsity loss.
    pub(crate) sparsity_coefficient: f64,
    /// The auxiliary loss, unweighted; 0 while no latent is dead.
    pub(crate) aux_loss: f64,
    pub(crate) dead: usize,
    /// Norm of the whole gradient, before clipping.
    pub(crate) grad_norm: f64,
}

/// An SAE in training. Everything that a resumed run needs is in `weights`, `adam`, `dead_latents` and `sparsity`.
#[derive(Debug)]
pub(crate) struct Learner {
    pub(crate) weights: Weights,
    pub(crate) adam: Adam,
    pub(crate) dead_latents: DeadLatents,
    pub(crate) sparsity: SparsityCoefficient,
    pub(crate) times: StepTimes,
    recipe: Box<dyn Recipe>,
    /// True until the architecture has adapted the weights to the first batch.
    fresh: bool,
    config: StepConfig,
    buffers: Buffers,
}

#[derive(Debug)]
struct Buffers {
    /// `[n, d_in]`
    x_c: Vec<f32>,
    /// x_hat - x. With several prefixes: for each one, the sum of its error and those of the longer ones (`E` in
    /// `kernels::decode`). `[n, n_groups, d_out]`
    errors: Vec<f32>,
    /// The end of each group of latents. `[n_groups]`
    prefixes: Vec<usize>,
    /// `[ROWS_PER_TILE, d_sae]`
    hidden: Vec<f32>,
    acts: FeatureActs,
    by_latent: ByLatent,
    df: Vec<f32>,
    auxiliary: Auxiliary,
    gradients: Gradients,
}

impl Learner {
    /// A learner that starts from random weights. The architecture adapts them to the first batch.
    ///
    /// # Shapes
    /// `mean` `[row_width]`: mean of the training rows, in training units.
    pub(crate) fn start(d_sae: usize, mean: Vec<f32>, seed: u64, config: StepConfig) -> Self {
        let weights = architecture::of(&config).start(d_sae, mean, seed);
        Self { fresh: true, ..Self::new(weights, config) }
    }

    /// A learner that continues from `weights` unchanged.
    pub(crate) fn new(weights: Weights, config: StepConfig) -> Self {
        let recipe = architecture::of(&config);
        let buffers = Buffers {
            x_c: Vec::new(),
            errors: Vec::new(),
            prefixes: recipe.prefixes(weights.d_sae),
            hidden: Vec::new(),
            acts: FeatureActs::default(),
            by_latent: ByLatent::default(),
            df: Vec::new(),
            auxiliary: Auxiliary::new(config.k_aux),
            gradients: Gradients::new(&weights),
        };
        let StepConfig { sparsity_coefficient, k, sparsity_warmup_steps, .. } = config;
        let first = recipe.first_coefficient();
        Self {
            adam: Adam::new(config.adam, config.weight_decay, &weights),
            dead_latents: DeadLatents::new(weights.d_sae, config.dead_after_tokens),
            sparsity: SparsityCoefficient::new(sparsity_coefficient, first, k, sparsity_warmup_steps),
            times: StepTimes::default(),
            recipe,
            fresh: false,
            weights,
            config,
            buffers,
        }
    }

    /// Marks the weights as a checkpoint's: they are not adapted to the first batch.
    pub(crate) fn restored(&mut self) {
        self.fresh = false;
    }

    /// One step of training on `x` `[n, row_width]`, in training units.
    pub(crate) fn step(&mut self, x: &[f32], lr: f64) -> StepReport {
        let n = x.len() / self.weights.row_width();
        let spread = self.center(x);
        if std::mem::take(&mut self.fresh) {
            self.recipe.begin(&mut self.weights, &self.buffers.x_c);
        }
        self.list_dead();
        self.encode_and_select();
        let squared_error = self.reconstruct(n);
        let aux_loss = self.reconstruct_residual(squared_error, 2.0 * self.config.auxk_alpha * spread / n as f64);
        let coefficient = self.sparsity.at(self.adam.step);
        let sparsity_loss = self.backward(coefficient);
        self.compute_gradients(n);
        let grad_norm = self.update(lr);
        let l0 = self.count_active(n);
        self.sparsity.observe(l0);
        StepReport {
            loss: squared_error / n as f64,
            fvu: squared_error / spread,
            l0,
            sparsity_loss,
            sparsity_coefficient: coefficient,
            aux_loss,
            dead: self.dead_latents.count(),
            grad_norm,
        }
    }

    /// FVU of `x` `[n, row_width]`, in training units, with the weights as they are. It selects latents as a step does
    /// and changes nothing that a step depends on.
    pub(crate) fn fvu(&mut self, x: &[f32]) -> f64 {
        let spread = self.center(x);
        self.buffers.auxiliary.dead.clear();
        self.encode_and_select();
        self.reconstruct(x.len() / self.weights.row_width()) / spread
    }

    /// Writes `x_c`, and minus the target to `errors`. Returns the sum of squared distances of the batch's targets from
    /// their mean.
    fn center(&mut self, x: &[f32]) -> f64 {
        let Buffers { x_c, errors, prefixes, .. } = &mut self.buffers;
        timed(&mut self.times.encode, || center(x, &self.weights, prefixes.len(), x_c, errors))
    }

    fn list_dead(&mut self) {
        let dead = &mut self.buffers.auxiliary.dead;
        dead.clear();
        if self.config.auxk_alpha > 0.0 && self.config.k_aux > 0 {
            dead.extend(self.dead_latents.dead());
        }
    }

    fn encode_and_select(&mut self) {
        let Buffers { x_c, hidden, acts, auxiliary, .. } = &mut self.buffers;
        let (weights, times) = (&self.weights, &mut self.times);
        self.recipe.select(&mut EncoderPass { weights, x_c, hidden, acts, auxiliary, times });
    }

    /// Turns `errors` from minus the target into x_hat - x. Returns the sum of squares.
    fn reconstruct(&mut self, n: usize) -> f64 {
        let scale = self.error_scale(n);
        let Buffers { x_c, errors, prefixes, acts, by_latent, df, .. } = &mut self.buffers;
        timed(&mut self.times.decode, || {
            self.recipe.add_skip(&self.weights, x_c, errors);
            by_latent.rebuild(acts, self.weights.d_sae);
            decode_error(acts, &self.weights.w_dec, prefixes, scale, errors, df)
        })
    }

    /// dL/dx_hat = this * (x_hat - x).
    fn error_scale(&self, n: usize) -> f32 {
        2.0 / (n * self.buffers.prefixes.len()) as f32
    }

    /// The auxiliary loss, unweighted. If the residual is zero, the dead latents have nothing to learn and are skipped.
    fn reconstruct_residual(&mut self, residual: f64, scale: f64) -> f64 {
        let Buffers { errors, prefixes, auxiliary, .. } = &mut self.buffers;
        if residual == 0.0 {
            auxiliary.dead.clear();
        }
        timed(&mut self.times.auxiliary, || {
            auxiliary.reconstruct(&self.weights, errors, prefixes.len(), residual, scale)
        })
    }

    /// Backpropagates dL/df to dL/dhidden_pre. Returns the sparsity loss, unweighted.
    fn backward(&mut self, coefficient: f64) -> f64 {
        let Buffers { x_c, errors, acts, by_latent, df, gradients, .. } = &mut self.buffers;
        let (weights, extra) = (&self.weights, &mut gradients.extra[..]);
        timed(&mut self.times.decode, || {
            self.recipe.backward(Backward { weights, x_c, acts, by_latent, errors, df, extra, coefficient })
        })
    }

    fn compute_gradients(&mut self, n: usize) {
        let error_scale = self.error_scale(n);
        let Buffers { x_c, errors, prefixes, acts, by_latent, df, auxiliary, gradients, .. } = &mut self.buffers;
        let main = ErrorPart { acts, by_latent, df, errors, prefixes, error_scale, has_b_dec: true };
        let parts: Vec<_> = std::iter::once(main).chain(auxiliary.part()).collect();
        timed(&mut self.times.gradients, || {
            gradients.compute(&self.weights, x_c, &parts);
            self.recipe.finish_gradients(&self.weights, gradients);
        });
    }

    /// Updates the weights and returns the norm of the gradient.
    fn update(&mut self, lr: f64) -> f64 {
        let gradients = &self.buffers.gradients;
        let norm = gradients.sum_of_squares().sqrt();
        // torch.nn.utils.clip_grad_norm_ adds the same 1e-6.
        let scale = self.config.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        timed(&mut self.times.update, || {
            self.adam.update(&mut self.weights, gradients, lr, scale as f32);
            self.recipe.constrain(&mut self.weights);
        });
        norm
    }

    /// Records which latents fired and returns L0. Entries with value 0 were kept only for their gradient.
    fn count_active(&mut self, n: usize) -> f64 {
        let Buffers { acts, by_latent, .. } = &self.buffers;
        self.dead_latents
            .record(n, |latent| by_latent.entries(latent).iter().any(|&entry| acts.values[entry as usize] != 0.0));
        acts.values.iter().filter(|&&value| value != 0.0).count() as f64 / n as f64
    }
}

#[cfg(test)]
mod tests;
