//! The first line of a run: the time and memory that it will take, or what an earlier run in its folder did.
//!
//! ```text
//! seconds = 2 d_in d_sae tokens / (rate of f32 matrix products * STEP_EFFICIENCY)
//! ```

use std::path::Path;

use harvester::{
    HarvestConfig, ModelConfig, Monitor, StorageDtype, forward_estimate, gemm_flops,
    human::{bytes, grouped, seconds},
};

use crate::{
    Result, TrainConfig,
    config::Resolved,
    manifest::{SaeManifest, checkpoint_files},
    run::{curves::CURVES_FILE, initial_weights::initial_weights_kept},
    step::memory::learner_bytes,
};

/// Share of the encoder's floor that a whole training step reaches (`just bench`).
const STEP_EFFICIENCY: f64 = 0.6;

/// Seconds of the steps over `tokens` tokens.
pub(crate) fn step_seconds(d_in: usize, d_sae: usize, tokens: u64) -> f64 {
    2.0 * d_in as f64 * d_sae as f64 * tokens as f64 / gemm_flops() / STEP_EFFICIENCY
}

/// Bytes of the shuffle buffer over `n_rows` rows, which holds no more than there is.
pub(crate) fn buffer_bytes(config: &TrainConfig, d_in: usize, d_out: usize, n_rows: u64, dtype: StorageDtype) -> u64 {
    let target = if config.target_hook_point.is_some() { d_out } else { 0 };
    n_rows.saturating_mul(dtype.row_bytes(d_in + target) as u64).min(config.buffer_bytes)
}

/// The tokens of a run beside those of its dataset, in words.
fn passes(tokens: u64, n_rows: u64) -> String {
    let (n, of) = (grouped(tokens), grouped(n_rows));
    if tokens <= n_rows {
        return format!("{n} of the dataset's {of} tokens");
    }
    format!(
        "{n} tokens, {} passes over the dataset's {of}",
        (10.0 * tokens as f64 / n_rows.max(1) as f64).round() / 10.0
    )
}

/// The estimate of a run on `n_rows` stored rows.
///
/// # Errors
/// When it needs more memory than is left.
pub(crate) fn of_rows(resolved: &Resolved, n_rows: u64, dtype: StorageDtype) -> Result<String> {
    let Resolved { config, d_in, d_out, d_sae, .. } = resolved;
    let wide = if d_out == d_in { String::new() } else { format!(", d_out {d_out}") };
    let buffer = buffer_bytes(config, *d_in, *d_out, n_rows, dtype);
    resolved.check_sizes(buffer)?;
    Ok(format!(
        "{}, d_in {d_in}{wide}, d_sae {d_sae}, {}: about {}, {} of memory",
        passes(config.tokens, n_rows),
        config.sparsity(),
        seconds(step_seconds(*d_in, *d_sae, config.tokens)),
        bytes(learner_bytes(*d_in, *d_out, *d_sae).saturating_add(buffer)),
    ))
}

/// The estimate of a run on a running model, which first holds out `held_out_tokens`.
///
/// # Errors
/// When it needs more memory than is left.
pub(crate) fn of_live(
    resolved: &Resolved,
    model: &ModelConfig,
    harvest: &HarvestConfig,
    held_out_tokens: u64,
) -> Result<String> {
    let Resolved { config, d_in, d_sae, .. } = resolved;
    let row_bytes = resolved.widths.iter().map(|width| harvest.dtype.row_bytes(*width)).sum();
    let buffer_tokens = config.buffer_rows(row_bytes);
    resolved.check_sizes(buffer_tokens.saturating_mul(row_bytes as u64))?;
    let (layers, forward) = forward_estimate(model, harvest, (config.rows_drawn() + held_out_tokens) as f64);
    Ok(format!(
        "{} tokens through {layers} layers and into an SAE, d_in {d_in}, d_sae {d_sae}, {}: about {}, {} tokens in the \
         shuffle buffer before the first step and again after a stop, nothing on disk but {} tokens held out",
        grouped(config.tokens),
        config.sparsity(),
        seconds(forward + step_seconds(*d_in, *d_sae, config.tokens)),
        grouped(buffer_tokens),
        grouped(held_out_tokens),
    ))
}

/// Says where a run in `out` goes on, if there is an `earlier` one; otherwise its estimate, which is made only if the
/// run has not finished.
///
/// # Errors
/// Those of `estimate`: that the run needs more memory than is left.
pub(crate) fn say_beginning(
    earlier: Option<&SaeManifest>,
    (config, resolved): (&TrainConfig, &Resolved),
    out: &Path,
    estimate: impl FnOnce() -> Result<String>,
    monitor: &dyn Monitor,
) -> Result<()> {
    let place = out.display();
    if earlier.map_or(Ok(false), |manifest| manifest.is_finished(out))? {
        monitor.say(&format!("{place}: finished before"));
        return Ok(());
    }
    let estimate = estimate()?;
    let kept = initial_weights_kept(config, resolved).map(|kept| format!("\n{kept}")).unwrap_or_default();
    let new = format!("{estimate}{kept}\ncurves, in a browser: {}", out.join(CURVES_FILE).display());
    monitor.say(&match earlier {
        None => new,
        Some(_) if checkpoint_files::list(out)?.is_empty() => {
            format!("{place}: no checkpoint yet: beginning again\n{new}")
        }
        Some(_) => format!("{place}: going on from its last checkpoint"),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_epochs_are_told_as_passes() {
        assert_eq!(passes(1_600_000, 160_000), "1,600,000 tokens, 10 passes over the dataset's 160,000");
        assert_eq!(passes(1_000_000, 300_000), "1,000,000 tokens, 3.3 passes over the dataset's 300,000");
        assert_eq!(passes(1_000, 300_000), "1,000 of the dataset's 300,000 tokens");
    }
}
