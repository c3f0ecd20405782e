//! [`SweepRow`]: what became of each run of a sweep; `sweep.json` and, for pyarrow, polars and DuckDB, `sweep.parquet`.
//! They hold no wall-clock facts: an interrupted sweep ends in the same bytes. Written again whenever a run has ended.
//!
//! ```text
//! pareto = finished, and no other run at the same place has fvu and l0 as small, and one of them smaller
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array},
    error::ArrowError,
};
use harvester::write_atomically;
use serde::{Deserialize, Serialize};

use super::{pareto, plan::SweepPlan};
use crate::{
    Error, Result, SaeManifest, TrainArchitecture, TrainConfig,
    manifest::option_differences,
    run::{own_folder::refuse_foreign, parquet_table::write_batch},
};

/// Name of the table in a sweep's folder.
pub const SWEEP_FILE: &str = "sweep.json";
/// The same for pyarrow, polars and DuckDB.
const PARQUET_FILE: &str = "sweep.parquet";
/// `format` of [`SWEEP_FILE`].
const FORMAT: &str = "refract.sweep";
/// `version` of its layout.
const VERSION: u32 = 1;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It has not ended.
    Unfinished,
    /// Its SAE is there.
    Finished,
    /// It was stopped: nothing good would have come of it.
    Diverged,
}

/// A run of a sweep. The numbers are absent until it has finished, and those of held-out rows, which are
/// [`crate::TrainResults::held_out`]'s, where none are held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// Its folder's name.
    pub name: String,
    /// Where its rows are from: `A, B`, and `A -> B` of a transcoder.
    pub hook_point: String,
    /// What was trained.
    pub architecture: TrainArchitecture,
    /// Active latents that were asked for.
    pub k: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// How far it has come.
    pub state: RunState,
    /// Why it was stopped.
    pub note: Option<String>,
    /// Tokens trained on.
    pub tokens: Option<u64>,
    /// Latents dead at the end.
    pub dead: Option<usize>,
    /// Active latents a held-out token.
    pub l0: Option<f64>,
    /// Fraction of variance unexplained of the held-out rows.
    pub fvu: Option<f64>,
    /// `1 - fvu`.
    pub explained_variance: Option<f64>,
    /// Share of latents that were active on held-out rows.
    pub frac_alive: Option<f64>,
    /// Whether no other run at its place is better in one of L0 and FVU and as good in the other.
    pub pareto: bool,
    /// All settings.
    pub config: TrainConfig,
}

/// `sweep.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SweepFile {
    format: String,
    version: u32,
    /// Every run, by place and L0.
    pub runs: Vec<SweepRow>,
}

impl SweepFile {
    /// The table in the folder of a sweep.
    ///
    /// # Errors
    /// When there is none, or one of another kind or version, or one that is not as it was written.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(SWEEP_FILE);
        let text = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let hint = "Remove this file and repeat the sweep: it is made again from the runs' folders";
        let damaged =
            |error: serde_json::Error| Error::malformed(&path, "the table of a sweep", error.to_string(), hint);
        let Header { format, version } = serde_json::from_slice(&text).map_err(damaged)?;
        if (format.as_str(), version) != (FORMAT, VERSION) {
            let expected = format!("format `{FORMAT}`, version {VERSION}");
            return Err(Error::malformed(&path, expected, format!("`{format}`, version {version}"), hint));
        }
        serde_json::from_slice(&text).map_err(damaged)
    }

    /// The runs in a state.
    pub fn in_state(&self, state: RunState) -> impl Iterator<Item = &SweepRow> {
        self.runs.iter().filter(move |row| row.state == state)
    }
}

/// What is read of it first: another version may have other rows.
#[derive(Debug, Deserialize)]
struct Header {
    format: String,
    version: u32,
}

/// The table of a sweep in progress, in the order of the plan.
#[derive(Debug)]
pub(super) struct Table {
    out: PathBuf,
    rows: Vec<SweepRow>,
}

impl Table {
    /// The table of a sweep that begins or goes on in `out`. It knows which runs diverged before; how far others have
    /// come, their own folders tell.
    pub(super) fn open(out: &Path, plan: &SweepPlan<'_>) -> Result<Self> {
        let before = read(out)?;
        refuse_another_plan(out, &before, plan)?;
        let row = |run: &super::PlannedRun| {
            let new = SweepRow {
                name: run.name.clone(),
                hook_point: run.place.clone(),
                architecture: run.resolved.architecture,
                k: run.resolved.k,
                d_sae: run.d_sae,
                lr: run.resolved.lr.unwrap_or_default(),
                state: RunState::Unfinished,
                note: None,
                tokens: None,
                dead: None,
                l0: None,
                fvu: None,
                explained_variance: None,
                frac_alive: None,
                pareto: false,
                config: run.resolved.clone(),
            };
            // One that has ended stays so: an error in another run is not to unsay it.
            let old = before.iter().find(|old| old.name == new.name && old.state != RunState::Unfinished);
            old.filter(|old| out.join(&old.name).is_dir()).cloned().unwrap_or(new)
        };
        Ok(Self { out: out.to_path_buf(), rows: plan.runs().iter().map(row).collect() })
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

    /// By place, and there by L0; runs without one last.
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
        write_batch(&self.out.join(PARQUET_FILE), columns(&rows))?;
        let path = self.out.join(SWEEP_FILE);
        let file = SweepFile { format: FORMAT.into(), version: VERSION, runs: rows };
        let text = serde_json::to_vec_pretty(&file).map_err(|error| Error::io("write", &path)(error.into()))?;
        Ok(write_atomically(&path, &text)?)
    }
}

/// The rows of the sweep in `out`; none where it is empty.
fn read(out: &Path) -> Result<Vec<SweepRow>> {
    if !out.join(SWEEP_FILE).exists() {
        return refuse_other(out).map(|()| vec![]);
    }
    Ok(SweepFile::read(out)?.runs)
}

/// Refuses a folder that holds something else. A sweep whose table was removed has its page still.
fn refuse_other(out: &Path) -> Result<()> {
    let ours = [pareto::PARETO_FILE, PARQUET_FILE, SWEEP_FILE];
    if ours[..2].iter().any(|name| out.join(name).is_file()) {
        return Ok(());
    }
    refuse_foreign(out, &ours.map(|name| format!("{name}.tmp")), "sweep", SWEEP_FILE)
}

/// Refuses a plan that has not every run of the table, which is going to be written anew.
fn refuse_another_plan(out: &Path, before: &[SweepRow], plan: &SweepPlan<'_>) -> Result<()> {
    let differences = before.iter().flat_map(|old| match plan.runs().iter().find(|run| run.name == old.name) {
        None => vec![format!("{}: a run there, none here", old.name)],
        Some(run) => {
            let of_run = |line| format!("{}, {line}", old.name);
            option_differences(&old.config, &run.resolved).into_iter().map(of_run).collect()
        }
    });
    let differences: Vec<_> = differences.collect();
    match differences.is_empty() {
        true => Ok(()),
        false => Err(harvester::Error::OtherRun { path: out.to_path_buf(), differences }.into()),
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

/// A row a run, a column a fact. `[runs, 14]`
fn columns(rows: &[SweepRow]) -> Result<RecordBatch, ArrowError> {
    let texts =
        |of: &dyn Fn(&SweepRow) -> Option<String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let counts =
        |of: &dyn Fn(&SweepRow) -> Option<u64>| Arc::new(rows.iter().map(of).collect::<UInt64Array>()) as ArrayRef;
    let numbers =
        |of: &dyn Fn(&SweepRow) -> Option<f64>| Arc::new(rows.iter().map(of).collect::<Float64Array>()) as ArrayRef;
    let state = |row: &SweepRow| match row.state {
        RunState::Unfinished => "unfinished",
        RunState::Finished => "finished",
        RunState::Diverged => "diverged",
    };
    let pareto: BooleanArray = rows.iter().map(|row| Some(row.pareto)).collect();
    RecordBatch::try_from_iter_with_nullable([
        ("name", texts(&|row| Some(row.name.clone())), false),
        ("hook_point", texts(&|row| Some(row.hook_point.clone())), false),
        ("architecture", texts(&|row| Some(row.architecture.to_string())), false),
        ("k", counts(&|row| Some(row.k as u64)), false),
        ("d_sae", counts(&|row| Some(row.d_sae as u64)), false),
        ("lr", numbers(&|row| Some(row.lr)), false),
        ("state", texts(&|row| Some(state(row).to_string())), false),
        ("tokens", counts(&|row| row.tokens), true),
        ("dead", counts(&|row| row.dead.map(|dead| dead as u64)), true),
        ("l0", numbers(&|row| row.l0), true),
        ("fvu", numbers(&|row| row.fvu), true),
        ("explained_variance", numbers(&|row| row.explained_variance), true),
        ("frac_alive", numbers(&|row| row.frac_alive), true),
        ("pareto", Arc::new(pareto), false),
    ])
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn row(name: &str, place: &str, scores: Option<(f64, f64)>) -> SweepRow {
        SweepRow {
            name: name.into(),
            hook_point: place.into(),
            architecture: TrainArchitecture::TopK,
            k: 4,
            d_sae: 32,
            lr: 0.003,
            state: if scores.is_some() { RunState::Finished } else { RunState::Diverged },
            note: scores.is_none().then(|| "the loss is NaN </script>".into()),
            tokens: Some(100),
            dead: scores.map(|_| 1),
            l0: scores.map(|(l0, _)| l0),
            fvu: scores.map(|(_, fvu)| fvu),
            explained_variance: scores.map(|(_, fvu)| 1.0 - fvu),
            frac_alive: scores.map(|_| 1.0),
            pareto: false,
            config: TrainConfig::default(),
        }
    }

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
