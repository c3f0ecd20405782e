//! [`write_metrics`]: `metrics.parquet`, the lines of `metrics.jsonl` as a table. The run appends to the log, but a
//! parquet file has its index at the end. So this file is written whole: before every checkpoint and when the run ends
//! or stops.

use std::path::Path;

use harvester::{Cell, Column, Table};

use crate::{MetricsLine, Result};

/// Name of the table in an SAE's folder.
pub const METRICS_FILE: &str = METRICS.file;

/// A row is a line of the log.
const METRICS: Table<MetricsLine> = Table {
    file: "metrics.parquet",
    command: "refract train",
    columns: &[
        Column::new("step", Cell::U64(|line| line.step), "steps", "steps done, from 1"),
        Column::new(
            "tokens",
            Cell::U64(|line| line.tokens),
            "tokens",
            "tokens seen; a token that was seen twice counts twice",
        ),
        Column::new(
            "loss",
            Cell::F64(|line| line.loss),
            "training units",
            "mean squared error per token. In training units, each dimension of the activations has variance 1 on \
             average",
        ),
        Column::new("fvu", Cell::F64(|line| line.fvu), "fraction", "variance unexplained in the batch"),
        Column::new(
            "held_out_fvu",
            Cell::MaybeF64(|line| line.held_out_fvu),
            "fraction",
            "FVU on held-out rows after the step (half as many rows as a batch has, always the same): at step 1, every 5 \
             `log_every` steps and at the last step; null elsewhere",
        ),
        Column::new("l0", Cell::F64(|line| line.l0), "latents per token", "active latents in the batch"),
        Column::new(
            "sparsity_loss",
            Cell::F64(|line| line.sparsity_loss),
            "training units",
            "the sparsity loss before it is weighted; 0 if the architecture has none",
        ),
        Column::new(
            "sparsity_coefficient",
            Cell::F64(|line| line.sparsity_coefficient),
            "factor",
            "the weight of the sparsity loss in this step; 0 if there is none",
        ),
        Column::new(
            "aux_loss",
            Cell::F64(|line| line.aux_loss),
            "fraction",
            "share of the residual that the dead latents leave unexplained; 0 while none is dead",
        ),
        Column::new(
            "dead",
            Cell::U64(|line| line.dead as u64),
            "latents",
            "latents that were not active for `dead_after_tokens` tokens",
        ),
        Column::new("lr", Cell::F64(|line| line.lr), "factor", "learning rate of the step"),
        Column::new(
            "grad_norm",
            Cell::F64(|line| line.grad_norm),
            "training units",
            "norm of the whole gradient before it is clipped",
        ),
    ],
};

/// Replaces the table in `dir`. The same lines give the same bytes.
pub(crate) fn write_metrics(dir: &Path, lines: &[MetricsLine]) -> Result<()> {
    METRICS.write(dir, lines)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_these_columns() {
        assert!(include_str!("../../../data/README.md").contains(&METRICS.markdown()));
    }
}
