//! [`MetricsLine`]: the metrics of one step.

use serde::{Deserialize, Serialize};

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MetricsLine {
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Mean squared error per token, in training units: each dimension of the activations has variance 1 on average.
    pub loss: f64,
    /// The batch's fraction of variance unexplained.
    pub fvu: f64,
    /// Active latents per token.
    pub l0: f64,
    /// The sparsity loss, unweighted; 0 if the architecture has none.
    pub sparsity_loss: f64,
    /// Weight of the sparsity loss in this step; 0 if there is none.
    pub sparsity_coefficient: f64,
    /// Share of the residual that the dead latents leave unexplained; 0 while none is dead.
    pub aux_loss: f64,
    /// Latents that were not active for `dead_after_tokens`.
    pub dead: usize,
    /// Learning rate of the step.
    pub lr: f64,
    /// Norm of the whole gradient before it is clipped.
    pub grad_norm: f64,
}
