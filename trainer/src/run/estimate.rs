//! [`step_seconds`] and [`LiveEstimate`]: estimates of the training time, made before training begins.
//!
//! ```text
//! seconds = 2 d_in d_sae tokens / (rate of f32 matrix products * STEP_EFFICIENCY)
//! ```

use harvester::{HarvestConfig, LanguageModel, forward_seconds, machine::gemm_flops};

use crate::{
    Result, TrainConfig,
    run::{
        train::resolve_widths,
        train_live::{held_out_tokens, live_config},
    },
};

/// Share of the encoder's floor that a whole training step reaches (`just bench`).
const STEP_EFFICIENCY: f64 = 0.6;

/// Seconds of the steps over `tokens` tokens.
pub(crate) fn step_seconds(d_in: usize, d_sae: usize, tokens: u64) -> f64 {
    2.0 * d_in as f64 * d_sae as f64 * tokens as f64 / gemm_flops() / STEP_EFFICIENCY
}

/// Estimate of a run on a running model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LiveEstimate {
    /// Blocks of the model that run.
    pub layers: usize,
    /// Width of all inputs together.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Time on this machine.
    pub seconds: f64,
    /// Tokens in the shuffle buffer, which is full before the first step.
    pub buffer_tokens: u64,
    /// Tokens held out, the only ones that are written to disk.
    pub held_out_tokens: u64,
}

impl LiveEstimate {
    /// The estimate for [`crate::train_live`] with the same arguments.
    ///
    /// # Errors
    /// As [`crate::train_live`].
    pub fn new(model: &LanguageModel, harvest: &HarvestConfig, config: &TrainConfig) -> Result<Self> {
        let (harvest, hook_points, widths) = live_config(model, config, harvest)?;
        let row_bytes = widths.iter().map(|width| harvest.dtype.row_bytes(*width)).sum();
        let resolved = resolve_widths(config, hook_points, widths)?;
        let (buffer_tokens, held_out_tokens) = (config.buffer_rows(row_bytes), held_out_tokens(config)?);
        // The buffer is always filled completely, even the last time.
        let computed = config.rows_drawn().div_ceil(buffer_tokens.max(1)) as f64 * buffer_tokens as f64;
        let forward = forward_seconds(model.config(), &harvest, computed + held_out_tokens as f64);
        Ok(Self {
            layers: harvest.hook_points.iter().map(|point| point.layers_needed()).max().unwrap_or(0),
            d_in: resolved.d_in,
            d_sae: resolved.d_sae,
            seconds: forward + step_seconds(resolved.d_in, resolved.d_sae, config.tokens),
            buffer_tokens,
            held_out_tokens,
        })
    }
}
