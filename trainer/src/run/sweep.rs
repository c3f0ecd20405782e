//! [`sweep`]: trains many SAEs in one pass over the data, and writes a table that compares them. Each SAE has its own
//! folder, bit-identical to the one that [`crate::train()`] writes with the same options.
//!
//! ```text
//! grid (sweep/grid.rs)    lists of settings become the settings of runs
//! plan (sweep/plan.rs)    runs with the same columns, batch, tokens, seed, buffer and held-out share are a group: the
//!                         order of rows depends only on these; a group is cut into passes that fit in memory
//! pass (sweep/pass.rs)    each batch is read once and given to every run of the pass
//! table (sweep/table.rs)  sweep.json, sweep.parquet, pareto.html (sweep/pareto.rs), written when a run has ended
//! ```
//!
//! Groups of different hook points are trained one after the other. Their usable rows (without attention sinks) and the
//! number that fits in the buffer differ, so a shared order would not be that of a single run. Columns are separate on
//! disk, so no activation is read twice.

mod file;
mod grid;
mod pareto;
mod pass;
mod plan;
mod table;

use std::path::Path;

use harvester::{ActivationDataset, Manifest, Monitor, OutputFolder};

pub use self::{
    file::{PARETO_FILE, RunState, SWEEP_FILE, SweepFile, SweepRow},
    grid::grid,
    plan::SweepPlan,
};
use self::{
    pass::{check_pass, run_pass},
    table::Table,
};
use crate::Result;

/// Trains all runs of `plan`, each into the subfolder of its name in `out`, and returns the table, sorted by hook point
/// and L0. Existing runs in `out` are kept: finished ones unchanged, others continue from their checkpoints. A run that
/// diverges is recorded and does not stop the others; it is not tried again while its folder exists.
///
/// # Errors
/// As [`crate::train()`], except for divergence; or when `out` contains something else.
pub fn sweep(plan: &SweepPlan<'_>, out: &Path, monitor: &dyn Monitor) -> Result<Vec<SweepRow>> {
    let begun_with = begun_with(plan, out)?;
    let earlier = begun_with.as_ref().map(|dataset| plan.on(dataset.into())).transpose()?;
    let plan = earlier.as_ref().unwrap_or(plan);
    let folder = OutputFolder::open(out)?;
    let mut table = Table::open(&folder, out, plan)?;
    // Nothing is written before it is known that every run in `out` belongs to the plan.
    let left = plan.passes().iter().map(|members| check_pass(plan, members, &table)).collect::<Result<Vec<_>>>()?;
    plan.check_memory(&left)?;
    table.write()?;
    folder.keep_command(monitor.command())?;
    monitor.say(&plan.estimate(out)?);
    monitor.start("sweep", plan.tokens(), "tokens");
    for members in plan.passes() {
        run_pass(plan, members, &mut table, monitor)?;
    }
    monitor.finish();
    folder.keep_command(None)?;
    Ok(table.sorted())
}

/// The activations that the unfinished sweep in `out` began with, if their folder has been extended since.
fn begun_with(plan: &SweepPlan<'_>, out: &Path) -> Result<Option<ActivationDataset>> {
    let Ok(begun) = SweepFile::read(out) else { return Ok(None) };
    if begun.in_state(RunState::Unfinished).next().is_none() {
        return Ok(None);
    }
    for run in &begun.runs {
        if let Some(earlier) = plan.data.begun_with(&out.join(&run.name))? {
            return Ok(Some(earlier));
        }
    }
    Ok(None)
}
