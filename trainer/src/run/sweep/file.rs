//! [`SweepFile`]: what became of each run of a sweep: `sweep.json` and, for pyarrow, polars and DuckDB, `sweep.parquet`.
//! They hold no wall-clock facts: an interrupted sweep ends in the same bytes.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray, UInt64Array},
    error::ArrowError,
};
use harvester::{Manifest, OutputFolder};
use serde::{Deserialize, Serialize};

use crate::{
    Result, SaeManifest, TrainArchitecture, TrainConfig, config::recorded, manifest::option_differences,
    run::parquet_table::write_batch,
};

/// Name of the table in a sweep's folder.
pub const SWEEP_FILE: &str = "sweep.json";
/// The same for pyarrow, polars and DuckDB.
pub(super) const PARQUET_FILE: &str = "sweep.parquet";

/// Name of the page in a sweep's folder.
pub const PARETO_FILE: &str = "pareto.html";

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
    #[serde(deserialize_with = "recorded")]
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
    pub(super) fn new(runs: Vec<SweepRow>) -> Self {
        Self { format: Self::FORMAT.into(), version: Self::VERSION, runs }
    }

    /// The runs in a state.
    pub fn in_state(&self, state: RunState) -> impl Iterator<Item = &SweepRow> {
        self.runs.iter().filter(move |row| row.state == state)
    }
}

impl Manifest for SweepFile {
    const FORMAT: &'static str = "refract.sweep";
    const COMMAND: &'static str = "sweep";
    const FILE: &'static str = SWEEP_FILE;
    const HAS_CHECKSUM: bool = false;
    const REPAIR: &'static str = "Remove this file and repeat the sweep: it is made again from the runs' folders";

    /// A sweep whose table was removed has its page and its runs still.
    fn leaves(folder: &OutputFolder, name: &str) -> bool {
        let file = name.strip_suffix(".tmp").unwrap_or(name);
        [PARETO_FILE, PARQUET_FILE].contains(&file) || SaeManifest::is_in(&folder.path().join(name))
    }

    /// Refuses a plan that has not every run of the table, which is going to be written anew.
    fn differences(&self, wanted: &Self) -> Vec<String> {
        let of_run = |old: &SweepRow| match wanted.runs.iter().find(|run| run.name == old.name) {
            None => vec![format!("{}: a run there, none here", old.name)],
            Some(run) => {
                let lines = option_differences(&old.config, &run.config);
                lines.into_iter().map(|line| format!("{}, {line}", old.name)).collect()
            }
        };
        self.runs.iter().flat_map(of_run).collect()
    }
}

/// Replaces both files in `out`.
pub(super) fn write(out: &Path, rows: Vec<SweepRow>) -> Result<()> {
    write_batch(&out.join(PARQUET_FILE), columns(&rows))?;
    Ok(SweepFile::new(rows).write(out)?)
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
}
