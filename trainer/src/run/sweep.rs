//! [`sweep`]: many SAEs from one pass over the data, each in a folder of its own that is, bit for bit, what
//! [`crate::train()`] writes with the same options; and a table that compares them.
//!
//! ```text
//! grid (sweep/grid.rs)    lists of settings become the settings of runs
//! plan (sweep/plan.rs)    runs of the same columns, batch, tokens, seed, buffer and held-out share are a group: the
//!                         order of rows depends on nothing else; a group is cut into passes that fit in memory
//! pass (sweep/pass.rs)    each batch is read once and given to every run of the pass
//! table (sweep/table.rs)  sweep.json, sweep.parquet, pareto.html (sweep/pareto.rs), whenever a run has ended
//! ```
//!
//! Groups of different hook points follow each other: which rows count (attention sinks do not) and how many fit in the
//! buffer differ between them, and a shared order would not be that of a single run. Columns lie apart on disk, so no
//! activation is read twice for it.

mod file;
mod grid;
mod pareto;
mod pass;
mod plan;
mod table;

use std::path::Path;

use harvester::{Monitor, OutputFolder};

pub use self::{
    file::{PARETO_FILE, RunState, SWEEP_FILE, SweepFile, SweepRow},
    grid::grid,
    plan::{PlannedRun, SweepData, SweepPlan},
};
use self::{
    pass::{check_pass, run_pass},
    table::Table,
};
use crate::Result;

/// Trains everything that `plan` names, each run into the folder of its name in `out`, and returns the table, by place
/// and L0. What `out` holds of the same runs is kept: finished ones as they are, others go on from their checkpoints. A
/// run that diverges is noted and stops no other; it is not tried again while its folder is there.
///
/// # Errors
/// As [`crate::train()`], but for divergence; or when `out` holds something else.
pub fn sweep(plan: &SweepPlan<'_>, out: &Path, monitor: &dyn Monitor) -> Result<Vec<SweepRow>> {
    let folder = OutputFolder::open(out)?;
    let mut table = Table::open(&folder, plan)?;
    // Nothing is written before every run that was begun here is known to be the plan's.
    plan.passes().iter().try_for_each(|members| check_pass(plan, members, out))?;
    table.write()?;
    monitor.start("sweep", plan.tokens(), "tokens");
    for members in plan.passes() {
        run_pass(plan, members, &mut table, monitor)?;
    }
    monitor.finish();
    Ok(table.sorted())
}
