//! `Table`: the state of the runs of a sweep so far. Its files are written again when a run has ended.
//!
//! ```text
//! pareto = finished, and no other run at the same hook points has fvu and l0 at most as large, and one of them smaller
//! ```

use std::path::{Path, PathBuf};

use harvester::OutputFolder;

use super::{
    file::{self, RunState, SweepFile, SweepRow},
    pareto,
    plan::{PlannedRun, SweepPlan},
};
use crate::{Error, Result, SaeManifest};

/// The table of a sweep in progress, in the order of the plan.
#[derive(Debug)]
pub(super) struct Table {
    out: PathBuf,
    rows: Vec<SweepRow>,
}

impl Table {
    /// Opens the table of a new or unfinished sweep in `folder`, which is `out`. The old table gives the runs that
    /// diverged; the progress of the others is in their own folders.
    pub(super) fn open(folder: &OutputFolder, out: &Path, plan: &SweepPlan<'_>) -> Result<Self> {
        let new = |run: &PlannedRun| SweepRow {
            name: run.name.clone(),
            hook_point: run.place.clone(),
            architecture: run.resolved.config.architecture,
            k: run.resolved.config.k,
            d_sae: run.resolved.d_sae,
            lr: run.resolved.lr,
            state: RunState::Unfinished,
            note: None,
            tokens: None,
            dead: None,
            l0: None,
            fvu: None,
            explained_variance: None,
            frac_alive: None,
            pareto: false,
            config: run.resolved.config.clone(),
        };
        let wanted = SweepFile::new(plan.runs().iter().map(new).collect());
        let before = folder.find_run(&wanted)?;
        let mut rows = wanted.runs;
        for row in &mut rows {
            // A run that has ended keeps its state: an error in another run must not change it.
            let ended = |old: &&SweepRow| old.name == row.name && old.state != RunState::Unfinished;
            let old = before.iter().flat_map(|before| &before.runs).find(ended);
            if let Some(old) = old.filter(|old| out.join(&old.name).is_dir()) {
                *row = old.clone();
            }
        }
        Ok(Self { out: out.to_path_buf(), rows })
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    /// The folder of a run.
    pub(super) fn dir(&self, index: usize) -> PathBuf {
        self.out.join(&self.rows[index].name)
    }

    pub(super) fn has_diverged(&self, index: usize) -> bool {
        self.rows[index].state == RunState::Diverged
    }

    pub(super) fn diverged(&mut self, index: usize, tokens: u64, error: &Error) -> Result<()> {
        let row = &mut self.rows[index];
        row.state = RunState::Diverged;
        row.tokens = Some(tokens);
        row.note = Some(error.said_in(&self.out));
        self.write()
    }

    pub(super) fn finished(&mut self, index: usize, manifest: &SaeManifest) -> Result<()> {
        let Some(results) = &manifest.results else { return Ok(()) };
        let held_out = results.held_out;
        let row = &mut self.rows[index];
        row.state = RunState::Finished;
        row.tokens = Some(results.tokens);
        row.dead = Some(results.dead);
        row.l0 = held_out.map(|held_out| held_out.l0);
        row.fvu = held_out.map(|held_out| held_out.fvu);
        row.explained_variance = held_out.map(|held_out| held_out.explained_variance);
        row.frac_alive = held_out.map(|held_out| held_out.frac_alive);
        self.write()
    }

    /// The rows sorted by hook point, then by L0; runs without an L0 are last.
    pub(super) fn sorted(&self) -> Vec<SweepRow> {
        let mut rows = self.rows.clone();
        let l0 = |row: &SweepRow| row.l0.unwrap_or(f64::INFINITY);
        rows.sort_by(|a, b| a.hook_point.cmp(&b.hook_point).then(l0(a).total_cmp(&l0(b))));
        rows
    }

    pub(super) fn write(&mut self) -> Result<()> {
        mark_best(&mut self.rows);
        let rows = self.sorted();
        pareto::write(&self.out, &rows)?;
        file::write(&self.out, rows)
    }
}

fn mark_best(rows: &mut [SweepRow]) {
    let scored = |row: &SweepRow| Some((row.hook_point.clone(), row.l0?, row.fvu?));
    let all: Vec<_> = rows.iter().filter_map(scored).collect();
    for row in rows {
        let beaten = |(place, l0, fvu): (String, f64, f64)| {
            all.iter()
                .any(|other| other.0 == place && other.1 <= l0 && other.2 <= fvu && (other.1 < l0 || other.2 < fvu))
        };
        row.pareto = scored(row).is_some_and(|row| !beaten(row));
    }
}

#[cfg(test)]
mod tests {
    use super::{file::tests::row, *};

    #[test]
    fn the_best_of_a_place_are_those_that_no_other_beats() {
        let mut rows = [
            row("sparse", "a", Some((8.0, 0.4))),
            row("beaten", "a", Some((16.0, 0.4))),
            row("exact", "a", Some((32.0, 0.1))),
            row("as exact", "a", Some((32.0, 0.1))),
            row("elsewhere", "b", Some((64.0, 0.9))),
            row("diverged", "a", None),
        ];
        mark_best(&mut rows);
        assert_eq!(rows.map(|row| row.pareto), [true, false, true, true, true, false]);
    }
}
