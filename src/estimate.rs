//! How long training takes, before it has begun: one estimate for `train`, for each run of `sweep`, and for what is
//! left beside the model where `train` runs it.
//!
//! ```text
//! seconds = 2 d_in d_sae tokens / (rate of f32 matrix products * STEP_EFFICIENCY)
//! ```

/// Share of the encoder's floor that a whole training step reaches (`just bench`).
const STEP_EFFICIENCY: f64 = 0.6;

/// Seconds of the steps over `tokens` tokens.
pub(crate) fn step_seconds(d_in: usize, d_sae: usize, tokens: u64) -> f64 {
    let flop = 2.0 * d_in as f64 * d_sae as f64 * tokens as f64;
    flop / harvester::machine::gemm_flops() / STEP_EFFICIENCY
}
