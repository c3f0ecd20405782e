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
    /// The same of held-out rows, after the step; `None` in steps in which it is not measured.
    #[serde(default)]
    pub held_out_fvu: Option<f64>,
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

/// The first steps, each of which has a line: this many times `log_every`.
const FIRST: u64 = 5;

impl MetricsLine {
    /// True if step `step` has a line, without regard to how the run ends: the first steps, then every `every` steps.
    pub(crate) fn is_due(step: u64, every: u64) -> bool {
        step <= FIRST * every || step.is_multiple_of(every)
    }

    /// Number of lines that are due in the first `steps` steps.
    pub(crate) fn due(steps: u64, every: u64) -> u64 {
        steps.min(FIRST * every) + (steps / every).saturating_sub(FIRST)
    }

    /// True if a line can hold its numbers.
    pub(crate) fn is_finite(&self) -> bool {
        [self.loss, self.fvu, self.sparsity_loss, self.aux_loss, self.grad_norm].into_iter().all(f64::is_finite)
    }
}
