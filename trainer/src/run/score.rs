//! [`score`]: evaluates a finished SAE on rows that it was not trained on. A row is the SAE's input, followed by the
//! target if it is a transcoder. The target of all other SAEs is their input.

use std::{borrow::Cow, sync::Arc};

use harvester::{ActivationRows, Monitor};

use crate::{
    Result,
    data::{activations::ordinary_rows, rows::RowSource},
    run::units::scale_columns,
    sae::{
        Sae,
        metrics::{Reconstruction, ReconstructionMetrics},
    },
};

/// Held-out tokens scored at the end; `refract evaluate` scores all of them.
const HELD_OUT_TOKENS: u64 = 131_072;
/// Rows reconstructed at a time. This limits the memory and does not change the result.
const ROWS_AT_A_TIME: usize = 4096;

/// The metrics of `sae` on held-out rows; `None` if there are none.
pub(crate) fn score(sae: &Sae, held_out: &dyn RowSource, monitor: &dyn Monitor) -> Result<Option<Reconstruction>> {
    let mut metrics = ReconstructionMetrics::of(sae);
    let groups = held_out.group_sizes().len();
    monitor.start("score held-out rows", groups as u64, "row groups");
    for group in 0..groups {
        add_rows(&mut metrics, sae, &held_out.read(group)?.to_f32())?;
        monitor.advance(1);
        if metrics.n_tokens() >= HELD_OUT_TOKENS {
            break;
        }
    }
    monitor.finish();
    Ok(metrics.finish())
}

/// The first raw rows of `held_out`, at most `n`. `[n, sum of widths]`
pub(crate) fn first_rows(held_out: &dyn RowSource, n: u64) -> Result<Vec<f32>> {
    let most = n as usize * held_out.widths().iter().sum::<usize>();
    let mut rows = vec![];
    for group in 0..held_out.group_sizes().len() {
        if rows.len() >= most {
            break;
        }
        rows.extend(held_out.read(group)?.to_f32());
    }
    rows.truncate(most);
    Ok(rows)
}

/// Held-out rows for the curve of a run, in training units: half as many as a batch has, spread over twice a batch. A
/// pass over them has no gradient, so it takes less than half a step: every 50 steps, less than 1 % of the time.
///
/// # Shapes
/// `scales` `[columns]` -> `[n, sum of widths]`, n at most `batch / 2`
pub(crate) fn curve_rows(held_out: &dyn RowSource, batch: usize, scales: &[f32]) -> Result<Arc<[f32]>> {
    let mut rows = first_rows(held_out, 2 * batch as u64)?;
    scale_columns(held_out.widths(), scales, &mut [&mut rows], &mut []);
    let width = held_out.widths().iter().sum::<usize>();
    let n = (batch / 2).max(1);
    let step = (rows.len() / width / n).max(1);
    Ok(rows.chunks_exact(width).step_by(step).take(n).flatten().copied().collect())
}

/// Splits `rows` into the inputs and the targets of `sae`.
///
/// # Shapes
/// `rows` `[n, d_in]`, or `[n, d_in + d_out]` for a transcoder -> `[n, d_in]`, `[n, d_out]`
pub(crate) fn inputs_and_targets<'a>(sae: &Sae, rows: &'a [f32]) -> (Cow<'a, [f32]>, Cow<'a, [f32]>) {
    if !sae.config().hook_points.is_transcoder() {
        return (rows.into(), rows.into());
    }
    let rows = rows.chunks_exact(sae.d_in() + sae.d_out()).map(|row| row.split_at(sae.d_in()));
    (rows.clone().flat_map(|(x, _)| x).copied().collect(), rows.flat_map(|(_, y)| y).copied().collect())
}

/// Adds rows to `metrics` by the rule of training: of the contexts that `wanted` accepts, without position 0 and without
/// rows whose norm in any column is above that of `sink_norms`. `columns` are those that `sae` reads, then the target of
/// a transcoder.
///
/// # Errors
/// When the columns do not have the widths of `sae`.
pub fn add_ordinary_rows(
    metrics: &mut ReconstructionMetrics,
    sae: &Sae,
    columns: Vec<ActivationRows>,
    sink_norms: &[f32],
    wanted: impl Fn(u64) -> bool,
) -> Result<()> {
    add_rows(metrics, sae, &ordinary_rows(columns, sink_norms, wanted).to_f32())
}

/// Adds raw rows to `metrics`.
pub(crate) fn add_rows(metrics: &mut ReconstructionMetrics, sae: &Sae, rows: &[f32]) -> Result<()> {
    let (inputs, targets) = inputs_and_targets(sae, rows);
    let chunks = inputs.chunks(ROWS_AT_A_TIME * sae.d_in()).zip(targets.chunks(ROWS_AT_A_TIME * sae.d_out()));
    for (x, y) in chunks {
        let (acts, y_hat) = sae.reconstruct(x)?;
        metrics.add(y, &y_hat, &acts);
    }
    Ok(())
}
