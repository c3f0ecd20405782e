//! [`write_metrics`]: `metrics.parquet`, the lines of `metrics.jsonl` as a table. The run appends to the log, but a
//! parquet file has its index at the end. So this file is written whole: before every checkpoint and when the run ends
//! or stops.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Float64Array, RecordBatch, UInt64Array},
    error::ArrowError,
};

use crate::{MetricsLine, Result, run::parquet_table::write_batch};

/// Name of the table in an SAE's folder.
pub const METRICS_FILE: &str = "metrics.parquet";

/// Replaces the table in `dir`. The same lines give the same bytes.
pub(crate) fn write_metrics(dir: &Path, lines: &[MetricsLine]) -> Result<()> {
    write_batch(&dir.join(METRICS_FILE), table(lines))
}

/// One row per line, one column per number. `[lines, 11]`
fn table(lines: &[MetricsLine]) -> Result<RecordBatch, ArrowError> {
    let counts =
        |of: fn(&MetricsLine) -> u64| Arc::new(UInt64Array::from_iter_values(lines.iter().map(of))) as ArrayRef;
    let numbers =
        |of: fn(&MetricsLine) -> f64| Arc::new(Float64Array::from_iter_values(lines.iter().map(of))) as ArrayRef;
    RecordBatch::try_from_iter([
        ("step", counts(|line| line.step)),
        ("tokens", counts(|line| line.tokens)),
        ("loss", numbers(|line| line.loss)),
        ("fvu", numbers(|line| line.fvu)),
        ("l0", numbers(|line| line.l0)),
        ("sparsity_loss", numbers(|line| line.sparsity_loss)),
        ("sparsity_coefficient", numbers(|line| line.sparsity_coefficient)),
        ("aux_loss", numbers(|line| line.aux_loss)),
        ("dead", counts(|line| line.dead as u64)),
        ("lr", numbers(|line| line.lr)),
        ("grad_norm", numbers(|line| line.grad_norm)),
    ])
}
