//! [`StepTimes`]: where the time of training steps goes.

use std::time::{Duration, Instant};

/// Where the time of the steps so far went.
#[derive(Debug, Clone, Copy, Default)]
pub struct StepTimes {
    /// Centring, the encoder's product.
    pub encode: Duration,
    /// Choosing the active latents.
    pub select: Duration,
    /// Sparse decoding, the loss, the gradient at each activation, and what the architecture adds.
    pub decode: Duration,
    /// The auxiliary loss of dead latents.
    pub auxiliary: Duration,
    /// Gradients of the weights.
    pub gradients: Duration,
    /// The optimiser.
    pub update: Duration,
}

/// Runs `work` and adds its time to `total`.
pub(crate) fn timed<T>(total: &mut Duration, work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let result = work();
    *total += begin.elapsed();
    result
}
