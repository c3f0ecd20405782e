//! Gradients of the weights, computed only for active latents. One thread computes each latent's, in a fixed order.
//! `df` is dL/df at first, and dL/dhidden_pre after the architecture has backpropagated it through its nonlinearity.
//!
//! ```text
//! dW_dec[j] = sum_i (2/n) f_ij e_i         minus its component along W_dec[j], whose norm stays 1
//! dW_enc[j] = sum_i df_ij x_c_i
//! db_enc[j] = sum_i df_ij
//! db_dec    = sum_i (2/n) e_i - sum_j db_enc[j] W_enc[j]      (x_c = x - b_dec enters the encoder too)
//! ```
//!
//! A transcoder does not have the last term: a constant centers its input.

use harvester::simd::{Kernel, wide};
use rayon::prelude::*;

use crate::{
    kernels::{
        feature_acts::{ByLatent, FeatureActs},
        simd::{add_scaled, add_weighted_rows, dot, sum_of_squares},
    },
    step::weights::Weights,
};

/// Latents that one task handles. Partial sums are per task and added in order, so this is part of the result's bits.
const LATENTS_PER_TASK: usize = 32;
/// Rows that one task adds up for the decoder bias. Likewise part of the result's bits.
const ROWS_PER_TASK: usize = 128;

/// Gradients of one batch. Rows of latents without an entry hold old numbers: see `inactive`.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    /// `[d_sae, d_in]`
    pub(crate) w_enc: Vec<f32>,
    /// `[d_sae]`
    pub(crate) b_enc: Vec<f32>,
    /// `[d_sae, d_out]`
    pub(crate) w_dec: Vec<f32>,
    /// `[d_out]`
    pub(crate) b_dec: Vec<f32>,
    /// True if the latent's gradient is zero: its rows are not written. `[d_sae]`
    pub(crate) inactive: Vec<bool>,
    /// Gradients of [`Weights::extra`], in its order.
    pub(crate) extra: Vec<Vec<f32>>,
    /// |gradients of the two matrices|^2, after the projection.
    matrices: f64,
}

/// One part of the loss: the squared error of the SAE's own reconstruction, or of the auxiliary one by dead latents.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorPart<'a> {
    pub(crate) acts: &'a FeatureActs,
    pub(crate) by_latent: &'a ByLatent,
    /// dL/df of each entry of `acts`.
    pub(crate) df: &'a [f32],
    /// `E` of `decode_error`; dL/dx_hat = `error_scale` times the first group's. `[n, n_groups, d_out]`
    pub(crate) errors: &'a [f32],
    /// The end of each group of latents (`decode_error`). `[n_groups]`
    pub(crate) prefixes: &'a [usize],
    pub(crate) error_scale: f32,
    /// True if the reconstruction contains `b_dec`; the auxiliary one does not.
    pub(crate) has_b_dec: bool,
}

impl Gradients {
    pub(crate) fn new(weights: &Weights) -> Self {
        Self {
            w_enc: vec![0.0; weights.w_enc.len()],
            b_enc: vec![0.0; weights.d_sae],
            w_dec: vec![0.0; weights.w_dec.len()],
            b_dec: vec![0.0; weights.d_out],
            inactive: vec![true; weights.d_sae],
            extra: weights.extra.iter().map(|parameter| vec![0.0; parameter.values.len()]).collect(),
            matrices: 0.0,
        }
    }

    /// Computes the gradients of the sum of the losses of `parts`, except those of `extra`.
    ///
    /// # Shapes
    /// `x_c` `[n, d_in]`.
    pub(crate) fn compute(&mut self, weights: &Weights, x_c: &[f32], parts: &[ErrorPart<'_>]) {
        let (d_in, d_out) = (weights.d_in, weights.d_out);
        let tasks = self
            .w_enc
            .par_chunks_mut(LATENTS_PER_TASK * d_in)
            .zip(self.w_dec.par_chunks_mut(LATENTS_PER_TASK * d_out))
            .zip(self.b_enc.par_chunks_mut(LATENTS_PER_TASK))
            .zip(self.inactive.par_chunks_mut(LATENTS_PER_TASK))
            .enumerate();
        let sums: Vec<TaskSums> = tasks
            .map(|(task, (((w_enc, w_dec), b_enc), inactive))| {
                let first = task * LATENTS_PER_TASK;
                wide(LatentRows { weights, x_c, parts, first, w_enc, w_dec, b_enc, inactive })
            })
            .collect();
        self.b_dec.fill(0.0);
        for part in parts.iter().filter(|part| part.has_b_dec) {
            add_error_sum(&mut self.b_dec, part);
        }
        self.matrices = sums.iter().map(|sums| sums.sum_of_squares).sum();
        if weights.b_in.is_none() {
            sums.iter().for_each(|sums| add_scaled(&mut self.b_dec, 1.0, &sums.through_encoder));
        }
    }

    /// |all gradients|^2, after the projection.
    pub(crate) fn sum_of_squares(&self) -> f64 {
        let vectors = [&self.b_enc, &self.b_dec].into_iter().chain(&self.extra);
        self.matrices + vectors.map(|vector| f64::from(sum_of_squares(vector))).sum::<f64>()
    }
}

/// One task's part of the sums over latents.
struct TaskSums {
    sum_of_squares: f64,
    /// `- sum_j db_enc[j] W_enc[j]`. `[d_in]`
    through_encoder: Vec<f32>,
}

/// Computes the gradient rows of one task's latents.
struct LatentRows<'a> {
    weights: &'a Weights,
    x_c: &'a [f32],
    parts: &'a [ErrorPart<'a>],
    first: usize,
    w_enc: &'a mut [f32],
    w_dec: &'a mut [f32],
    b_enc: &'a mut [f32],
    inactive: &'a mut [bool],
}

impl Kernel for LatentRows<'_> {
    type Output = TaskSums;

    #[inline(always)]
    fn run(self) -> TaskSums {
        let Self { weights, x_c, parts, first, w_enc, w_dec, b_enc, inactive } = self;
        let mut sums = TaskSums { sum_of_squares: 0.0, through_encoder: vec![0.0; weights.d_in] };
        let mut coefficients = Vec::new();
        let gradients = w_enc.chunks_exact_mut(weights.d_in).zip(w_dec.chunks_exact_mut(weights.d_out));
        for (i, (g_enc, g_dec)) in gradients.enumerate() {
            let latent = first + i;
            inactive[i] = parts.iter().all(|part| part.by_latent.n_active(latent) == 0);
            b_enc[i] = 0.0;
            if inactive[i] {
                continue;
            }
            g_enc.fill(0.0);
            g_dec.fill(0.0);
            for part in parts {
                b_enc[i] += part.add_to(latent, x_c, g_enc, g_dec, &mut coefficients);
            }
            project(g_dec, weights.decoder_row(latent), &weights.blocks);
            add_scaled(&mut sums.through_encoder, -b_enc[i], weights.encoder_row(latent));
            sums.sum_of_squares += f64::from(sum_of_squares(g_enc) + sum_of_squares(g_dec));
        }
        sums
    }
}

impl ErrorPart<'_> {
    /// Adds this reconstruction's part of the gradient rows of `latent`; returns its part of `db_enc`.
    #[inline(always)]
    fn add_to(&self, latent: usize, x_c: &[f32], g_enc: &mut [f32], g_dec: &mut [f32], scratch: &mut Vec<f32>) -> f32 {
        let (d_in, d_out) = (g_enc.len(), g_dec.len());
        let width = self.prefixes.len() * d_out;
        let group = self.prefixes.partition_point(|&end| end <= latent) * d_out;
        let range = self.by_latent.range(latent);
        let (rows, entries) = (&self.by_latent.rows[range.clone()], &self.by_latent.entries[range]);
        scratch.clear();
        scratch.extend(entries.iter().map(|&entry| self.error_scale * self.acts.values[entry as usize]));
        add_weighted_rows(g_dec, scratch, |n| &self.errors[rows[n] as usize * width + group..][..d_out]);
        scratch.clear();
        scratch.extend(entries.iter().map(|&entry| self.df[entry as usize]));
        add_weighted_rows(g_enc, scratch, |n| &x_c[rows[n] as usize * d_in..][..d_in]);
        scratch.iter().sum()
    }
}

/// Removes from a decoder row's gradient the component that would change its norm, which stays 1. If the row has
/// several blocks (a crosscoder's), the sum of their norms stays 1:
///
/// ```text
/// u = each block of w / its norm          g = g - (g . u / u . u) u
/// ```
#[inline(always)]
fn project(g: &mut [f32], w: &[f32], blocks: &[usize]) {
    if blocks.len() == 1 {
        let along = dot(g, w);
        return add_scaled(g, -along, w);
    }
    let (mut along, mut n_blocks) = (0.0, 0.0);
    let mut first = 0;
    for &block in blocks {
        let w = &w[first..first + block];
        let norm = sum_of_squares(w).sqrt();
        if norm > 0.0 {
            along += dot(&g[first..first + block], w) / norm;
            n_blocks += 1.0;
        }
        first += block;
    }
    let mut first = 0;
    for &block in blocks {
        let w = &w[first..first + block];
        let norm = sum_of_squares(w).sqrt();
        if norm > 0.0 {
            add_scaled(&mut g[first..first + block], -along / (n_blocks * norm), w);
        }
        first += block;
    }
}

/// sum += scale * the first group of each row of errors.
struct AddRows<'a> {
    sum: &'a mut [f32],
    scale: f32,
    width: usize,
    errors: &'a [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.errors.chunks_exact(self.width) {
            add_scaled(self.sum, self.scale, row);
        }
    }
}

/// total += the part's dL/dx_hat, summed over rows. The first group's errors are the sum over all groups.
fn add_error_sum(total: &mut [f32], part: &ErrorPart<'_>) {
    let (d_out, scale) = (total.len(), part.error_scale);
    let width = part.prefixes.len() * d_out;
    let sums: Vec<Vec<f32>> = part
        .errors
        .par_chunks(ROWS_PER_TASK * width)
        .map(|errors| {
            let mut sum = vec![0.0; d_out];
            wide(AddRows { sum: &mut sum, scale, width, errors });
            sum
        })
        .collect();
    for sum in &sums {
        add_scaled(total, 1.0, sum);
    }
}
