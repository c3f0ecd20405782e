//! [`StepTimes`]: the time that each part of the training steps takes.

use std::time::{Duration, Instant};

/// Time of each part, summed over the steps so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTimes {
    /// Centering and the encoder's product.
    pub encode: Duration,
    /// Selecting the active latents.
    pub select: Duration,
    /// Sparse decoding, the loss, the gradient at each activation, and the architecture's own losses.
    pub decode: Duration,
    /// The auxiliary loss of dead latents.
    pub auxiliary: Duration,
    /// Gradients of the weights.
    pub gradients: Duration,
    /// The optimizer.
    pub update: Duration,
}

/// Runs `work` and adds its time to `total`.
pub(crate) fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    *total += begin.elapsed();
    result
}
