//! [`Crosscoder`]: BatchTopK over several hook points at once (Lindsey et al. 2024). A row is their activations one
//! after the other, so one latent reads from all of them and writes to all of them.
//!
//! ```text
//! hidden_pre = sum_l x_c^l W_enc^l^T + b_enc    x_hat^l = f W_dec^l + b_dec^l    L = mean sum_l |x_hat^l - x^l|^2
//! ```
//!
//! Latents compete by `f_j sum_l |W_dec^l[j]|` (Minder et al. 2025). Decoder rows are scaled so that this sum is 1. So
//! latents compete by f_j, and the norm of each block says how strongly a latent writes to that hook point.

use super::batch_topk::BatchTopK;
use crate::step::{encoder_pass::EncoderPass, recipe::Recipe, weights::Weights};

#[derive(Debug)]
pub(crate) struct Crosscoder {
    selection: BatchTopK,
    /// Widths of the hook points' activations.
    blocks: Vec<usize>,
}

impl Crosscoder {
    pub(crate) fn new(k: usize, blocks: Vec<usize>) -> Self {
        Self { selection: BatchTopK::new(k), blocks }
    }
}

impl Recipe for Crosscoder {
    fn start(&self, d_sae: usize, mean: Vec<f32>, seed: u64) -> Weights {
        Weights::random_blocks(d_sae, mean, self.blocks.clone(), seed)
    }

    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        self.selection.select(pass);
    }
}
