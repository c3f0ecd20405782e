//! [`Learner`]: an SAE in training, and its step: forward, backward, optimiser. Every buffer is allocated once; no
//! `[batch, d_sae]` array of gradients exists, and the encoder's product is made in tiles of rows.
//!
//! ```text
//! L = (1/n) sum_i |x_hat_i - x_i|^2 + auxk_alpha (1/n) sum_i |a_i W_dec - r_i|^2        r = x - x_hat, held constant
//! ```
//!
//! The second term exists while there are dead latents: `a_i` are the k_aux strongest dead latents of token i, which
//! learn to explain what the living ones leave. It contains `b_dec` on neither side, so a perfect reconstruction
//! leaves nothing to explain and the term is exactly zero (Gao et al. 2024, section 2.4 and appendix A.2).

use std::time::{Duration, Instant};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    adam::{Adam, AdamConfig},
    config::TrainArchitecture,
    dead_latents::DeadLatents,
    feature_acts::{ByLatent, FeatureActs},
    kernels::{
        decode::decode_error,
        encode::encoder_product,
        gradients::{Gradients, Reconstruction},
        select::{self, Threshold},
        simd::{Kernel, add_scaled, sum_of_squares, wide},
    },
    weights::Weights,
};

/// Rows whose pre-activations exist at one time. Fewer save memory; each tile costs the product one more packing of
/// W_enc (measured at d_in 576: nothing at 512 rows, 7 % at 256).
const ROWS_PER_TILE: usize = 512;
/// Rows that one task centres; sums over rows are made per task and added in order.
const ROWS_PER_TASK: usize = 128;
/// BatchTopK looks only at values over this share of the last batch's threshold. Any share gives the same result:
/// too few candidates are noticed and the batch is encoded again.
const FILTER_SHARE: f32 = 0.9;

/// What the step needs to know of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct StepConfig {
    pub(crate) architecture: TrainArchitecture,
    pub(crate) k: usize,
    pub(crate) adam: AdamConfig,
    /// Largest norm of the whole gradient, or none.
    pub(crate) clip: Option<f64>,
    pub(crate) auxk_alpha: f64,
    pub(crate) k_aux: usize,
    pub(crate) dead_after_tokens: u64,
}

/// What one step measured, on the weights it started from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepReport {
    /// Mean over tokens of |x_hat - x|^2, in training units (E|x|^2 about d_in).
    pub(crate) loss: f64,
    /// Sum of squared errors / sum of squared distances from the batch's mean.
    pub(crate) fvu: f64,
    pub(crate) l0: f64,
    /// The auxiliary loss before it is weighted; 0 while nothing is dead.
    pub(crate) aux_loss: f64,
    pub(crate) dead: usize,
    /// The sparsity loss before it is weighted; 0 where the architecture has none.
    pub(crate) sparsity_loss: f64,
    /// What the sparsity loss is weighted by; 0 where there is none.
    pub(crate) sparsity_coefficient: f64,
    /// Norm of the whole gradient before it is clipped.
    pub(crate) grad_norm: f64,
}

/// Where the time of the steps so far went.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTimes {
    /// Centring, the encoder's product.
    pub encode: Duration,
    /// Choosing the active latents.
    pub select: Duration,
    /// Sparse decoding, the loss, and the gradient at each activation.
    pub decode: Duration,
    /// The auxiliary loss of dead latents.
    pub auxiliary: Duration,
    /// Gradients of the weights.
    pub gradients: Duration,
    /// The optimiser.
    pub update: Duration,
}

/// An SAE in training. Everything that a resumed run needs is in `weights`, `adam` and `dead_latents`.
#[derive(Debug)]
pub(crate) struct Learner {
    pub(crate) weights: Weights,
    pub(crate) adam: Adam,
    pub(crate) dead_latents: DeadLatents,
    pub(crate) times: StepTimes,
    config: StepConfig,
    /// Values at or below this were not among the batch's largest last time (BatchTopK).
    filter: Option<f32>,
    buffers: Buffers,
}

#[derive(Debug)]
struct Buffers {
    /// `[n, d_in]`
    x_c: Vec<f32>,
    /// x_hat - x. `[n, d_in]`
    error: Vec<f32>,
    /// Pre-activations of a tile, without bias. `[ROWS_PER_TILE, d_sae]`
    hidden: Vec<f32>,
    acts: FeatureActs,
    by_latent: ByLatent,
    df: Vec<f32>,
    auxiliary: Auxiliary,
    gradients: Gradients,
}

/// The reconstruction of the residual by dead latents.
#[derive(Debug, Default)]
struct Auxiliary {
    dead: Vec<u32>,
    acts: FeatureActs,
    by_latent: ByLatent,
    df: Vec<f32>,
    /// `[n, d_in]`
    error: Vec<f32>,
}

impl Learner {
    pub(crate) fn new(weights: Weights, config: StepConfig) -> Self {
        let (d_in, d_sae) = (weights.d_in, weights.d_sae);
        let buffers = Buffers {
            x_c: Vec::new(),
            error: Vec::new(),
            hidden: Vec::new(),
            acts: FeatureActs::default(),
            by_latent: ByLatent::default(),
            df: Vec::new(),
            auxiliary: Auxiliary::default(),
            gradients: Gradients::new(d_in, d_sae),
        };
        Self {
            adam: Adam::new(config.adam, d_in, d_sae),
            dead_latents: DeadLatents::new(d_sae, config.dead_after_tokens),
            times: StepTimes::default(),
            filter: None,
            weights,
            config,
            buffers,
        }
    }

    /// One step of training on `x` `[n, d_in]`, in training units.
    pub(crate) fn step(&mut self, x: &[f32], lr: f64) -> StepReport {
        let n = x.len() / self.weights.d_in;
        let spread = timed(&mut self.times.encode, || self.buffers.centre(x, &self.weights.b_dec));
        self.list_dead();
        self.encode_and_select();
        let squared_error = self.reconstruct(n);
        let aux_loss = if squared_error > 0.0 { self.reconstruct_residual(n) } else { self.skip_residual() };
        self.compute_gradients(n);
        self.update(lr);
        let by_latent = &self.buffers.by_latent;
        self.dead_latents.record(n, |latent| by_latent.n_active(latent) > 0);
        StepReport {
            loss: squared_error / n as f64,
            fvu: squared_error / spread,
            l0: self.buffers.acts.l0(),
            aux_loss,
            dead: self.dead_latents.count(),
            sparsity_loss: 0.0,
            sparsity_coefficient: 0.0,
            grad_norm: self.buffers.gradients.sum_of_squares.sqrt(),
        }
    }

    fn list_dead(&mut self) {
        let dead = &mut self.buffers.auxiliary.dead;
        dead.clear();
        if self.config.auxk_alpha > 0.0 && self.config.k_aux > 0 {
            dead.extend(self.dead_latents.dead());
        }
    }

    fn encode_and_select(&mut self) {
        match self.config.architecture {
            TrainArchitecture::TopK => {
                let k = self.config.k;
                self.encode_tiles(|hidden, b_enc, acts| select::top_k(hidden, b_enc, k, acts));
            }
            TrainArchitecture::BatchTopK => self.encode_and_select_of_batch(),
        }
    }

    /// Encodes the batch tile by tile; `select` appends what is active of each tile.
    fn encode_tiles(&mut self, select: impl Fn(&[f32], &[f32], &mut FeatureActs)) {
        let Weights { d_in, d_sae, w_enc, b_enc, .. } = &self.weights;
        let Buffers { x_c, hidden, acts, auxiliary, .. } = &mut self.buffers;
        acts.clear();
        auxiliary.acts.clear();
        for x_c in x_c.chunks(ROWS_PER_TILE * d_in) {
            let n_values = x_c.len() / d_in * d_sae;
            hidden.resize(hidden.len().max(n_values), 0.0);
            let hidden = &mut hidden[..n_values];
            timed(&mut self.times.encode, || encoder_product(x_c, w_enc, *d_in, hidden));
            timed(&mut self.times.select, || select(hidden, b_enc, acts));
            if !auxiliary.dead.is_empty() {
                let (dead, k_aux) = (&auxiliary.dead, self.config.k_aux);
                timed(&mut self.times.auxiliary, || {
                    select::top_k_among(hidden, b_enc, dead, k_aux, &mut auxiliary.acts);
                });
            }
        }
    }

    /// BatchTopK: the k * n largest of the batch. Candidates over a filter are gathered tile by tile, and cut exactly
    /// once all are known.
    fn encode_and_select_of_batch(&mut self) {
        let n = self.buffers.x_c.len() / self.weights.d_in;
        let count = self.config.k * n;
        let mut filter = self.filter.unwrap_or_else(|| self.first_filter());
        loop {
            self.encode_tiles(|hidden, b_enc, acts| select::above(hidden, b_enc, Threshold::Global(filter), acts));
            if self.buffers.acts.n_active() >= count || filter == 0.0 {
                break;
            }
            filter = if filter > 1e-3 { filter / 4.0 } else { 0.0 };
        }
        let acts = &mut self.buffers.acts;
        let smallest = timed(&mut self.times.select, || select::keep_largest(acts, count));
        self.filter = smallest.map(|smallest| FILTER_SHARE * smallest);
    }

    /// A guess from the first rows, so that not every positive value of the first batch is a candidate.
    fn first_filter(&mut self) -> f32 {
        let Weights { d_in, d_sae, w_enc, b_enc, .. } = &self.weights;
        let x_c = &self.buffers.x_c[..self.buffers.x_c.len().min(64 * d_in)];
        let n = x_c.len() / d_in;
        let (mut hidden, mut acts) = (vec![0.0; n * d_sae], FeatureActs::default());
        encoder_product(x_c, w_enc, *d_in, &mut hidden);
        select::above(&hidden, b_enc, Threshold::Global(0.0), &mut acts);
        FILTER_SHARE * select::keep_largest(&mut acts, self.config.k * n).unwrap_or(0.0)
    }

    /// Turns `error` from -x_c into x_hat - x; returns the sum of its squares.
    fn reconstruct(&mut self, n: usize) -> f64 {
        let Buffers { error, acts, by_latent, df, .. } = &mut self.buffers;
        timed(&mut self.times.decode, || {
            by_latent.rebuild(acts, self.weights.d_sae);
            decode_error(acts, &self.weights.w_dec, 2.0 / n as f32, error, df)
        })
    }

    /// The auxiliary reconstruction: minus its target is -(x - x_hat) = error. Returns its mean squared error.
    fn reconstruct_residual(&mut self, n: usize) -> f64 {
        let scale = self.aux_scale(n);
        let Buffers { error, auxiliary, .. } = &mut self.buffers;
        if auxiliary.dead.is_empty() {
            return 0.0;
        }
        timed(&mut self.times.auxiliary, || {
            auxiliary.error.clone_from(error);
            auxiliary.by_latent.rebuild(&auxiliary.acts, self.weights.d_sae);
            let w_dec = &self.weights.w_dec;
            decode_error(&auxiliary.acts, w_dec, scale, &mut auxiliary.error, &mut auxiliary.df) / n as f64
        })
    }

    /// Nothing is left to explain: the dead latents are not asked.
    fn skip_residual(&mut self) -> f64 {
        self.buffers.auxiliary.dead.clear();
        0.0
    }

    fn aux_scale(&self, n: usize) -> f32 {
        (2.0 * self.config.auxk_alpha / n as f64) as f32
    }

    fn compute_gradients(&mut self, n: usize) {
        let aux_scale = self.aux_scale(n);
        let Buffers { x_c, error, acts, by_latent, df, auxiliary, gradients, .. } = &mut self.buffers;
        let main = Reconstruction { acts, by_latent, df, error, error_scale: 2.0 / n as f32, has_b_dec: true };
        let aux = Reconstruction {
            acts: &auxiliary.acts,
            by_latent: &auxiliary.by_latent,
            df: &auxiliary.df,
            error: &auxiliary.error,
            error_scale: aux_scale,
            has_b_dec: false,
        };
        let parts = [main, aux];
        let parts = if auxiliary.dead.is_empty() { &parts[..1] } else { &parts[..] };
        timed(&mut self.times.gradients, || gradients.compute(&self.weights, x_c, parts));
    }

    fn update(&mut self, lr: f64) {
        let gradients = &self.buffers.gradients;
        let norm = gradients.sum_of_squares.sqrt();
        // torch.nn.utils.clip_grad_norm_ adds the same 1e-6.
        let scale = self.config.clip.map_or(1.0, |clip| (clip / (norm + 1e-6)).min(1.0));
        timed(&mut self.times.update, || self.adam.update(&mut self.weights, gradients, lr, scale as f32));
    }
}

impl Buffers {
    /// x_c = x - b_dec and error = -x_c. Returns the sum of squared distances from the batch's mean.
    fn centre(&mut self, x: &[f32], b_dec: &[f32]) -> f64 {
        let d_in = b_dec.len();
        self.x_c.resize(x.len(), 0.0);
        self.error.resize(x.len(), 0.0);
        let width = ROWS_PER_TASK * d_in;
        let sums: Vec<(Vec<f32>, f64)> = self
            .x_c
            .par_chunks_mut(width)
            .zip(self.error.par_chunks_mut(width))
            .zip(x.par_chunks(width))
            .map(|((x_c, error), x)| {
                let mut sum = vec![0.0; d_in];
                let squares = wide(Centre { x, b_dec, x_c, error, sum: &mut sum });
                (sum, squares)
            })
            .collect();
        let mut sum = vec![0.0; d_in];
        sums.iter().for_each(|(part, _)| add_scaled(&mut sum, 1.0, part));
        let squares: f64 = sums.iter().map(|(_, squares)| squares).sum();
        let n = (x.len() / d_in) as f64;
        squares - sum.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / n
    }
}

/// See [`Buffers::centre`]; adds the rows of x_c to `sum` and returns the sum of their squares.
struct Centre<'a> {
    x: &'a [f32],
    b_dec: &'a [f32],
    x_c: &'a mut [f32],
    error: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Kernel for Centre<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { x, b_dec, x_c, error, sum } = self;
        let d_in = b_dec.len();
        let mut squares = 0.0;
        let rows = x_c.chunks_exact_mut(d_in).zip(error.chunks_exact_mut(d_in)).zip(x.chunks_exact(d_in));
        for ((x_c, error), x) in rows {
            for i in 0..d_in {
                x_c[i] = x[i] - b_dec[i];
                error[i] = -x_c[i];
            }
            add_scaled(sum, 1.0, x_c);
            squares += f64::from(sum_of_squares(x_c));
        }
        squares
    }
}

fn timed<R>(total: &mut Duration, work: impl FnOnce() -> R) -> R {
    let begin = Instant::now();
    let result = work();
    *total += begin.elapsed();
    result
}

#[cfg(test)]
mod tests;
