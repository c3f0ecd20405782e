//! [`SweepFile`]: the state and results of each run of a sweep: `sweep.json` and, for pyarrow, polars and DuckDB,
//! `sweep.parquet`. They contain no wall-clock times, so an interrupted sweep ends with the same bytes.

use std::{fmt, path::Path};

use harvester::{Cell, Column, Manifest, OutputFolder, Table, human};
use serde::{Deserialize, Serialize};

use crate::{Result, SaeManifest, TrainArchitecture, TrainConfig, config::recorded, manifest::option_differences};

/// Name of the file in a sweep's folder that lists its runs.
pub const SWEEP_FILE: &str = "sweep.json";

/// Name of the page in a sweep's folder.
pub const PARETO_FILE: &str = "pareto.html";

/// State of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Not ended yet.
    Unfinished,
    /// Ended; its SAE is saved.
    Finished,
    /// Stopped because it diverged.
    Diverged,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfinished => "unfinished",
            Self::Finished => "finished",
            Self::Diverged => "diverged",
        })
    }
}

/// A run of a sweep. The numbers are `None` until it has finished. Those of held-out rows come from
/// [`crate::TrainResults::held_out`], and are `None` if no rows are held out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SweepRow {
    /// Name of its folder.
    pub name: String,
    /// The hook points of its rows: `A, B`, or `A -> B` for a transcoder.
    pub hook_point: String,
    /// Architecture.
    pub architecture: TrainArchitecture,
    /// Requested active latents per token.
    pub k: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// State of the run.
    pub state: RunState,
    /// Why it was stopped, if it diverged.
    pub note: Option<String>,
    /// Tokens trained on.
    pub tokens: Option<u64>,
    /// Latents dead at the end.
    pub dead: Option<usize>,
    /// Active latents per held-out token.
    pub l0: Option<f64>,
    /// Fraction of variance unexplained of the held-out rows.
    pub fvu: Option<f64>,
    /// `1 - fvu`.
    pub explained_variance: Option<f64>,
    /// Share of latents that were active on held-out rows.
    pub frac_alive: Option<f64>,
    /// True if no other run at the same hook points is better in L0 or FVU without being worse in the other.
    pub pareto: bool,
    /// All settings.
    #[serde(deserialize_with = "recorded")]
    pub config: TrainConfig,
}

impl SweepRow {
    /// The rows as tables, each with its hook point and a heading. A star marks runs that no other run beats.
    pub fn tables(rows: &[Self]) -> Vec<(&str, Vec<String>)> {
        let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let [l0, fvu, explained, dead, active] = ["L0", "FVU", "explained", "dead", "active"];
        let heading = format!("{:width$} {l0:>8} {fvu:>8} {explained:>10} {dead:>9} {active:>9}", "run");
        let of_place = rows.chunk_by(|a, b| a.hook_point == b.hook_point);
        let table =
            |rows: &[Self]| std::iter::once(heading.clone()).chain(rows.iter().map(|row| row.line(width))).collect();
        let mut tables: Vec<(&str, Vec<String>)> = of_place.map(|rows| (&*rows[0].hook_point, table(rows))).collect();
        if let Some((_, last)) = tables.last_mut().filter(|_| rows.iter().any(|row| row.pareto)) {
            last.push("* no other run there is better in one of L0 and FVU and as good in the other".into());
        }
        tables
    }

    /// Its line of the table, with a name of `width`.
    fn line(&self, width: usize) -> String {
        let name = &self.name;
        match self.state {
            RunState::Finished => {}
            RunState::Diverged => {
                return format!("{name:width$} diverged: {}", self.note.as_deref().unwrap_or_default());
            }
            RunState::Unfinished => return format!("{name:width$} unfinished"),
        }
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        let percent = |share: Option<f64>| number(share.map(|share| 100.0 * share), 1);
        let (l0, fvu, explained) = (number(self.l0, 1), number(self.fvu, 4), percent(self.explained_variance));
        let dead = self.dead.map_or("-".into(), |dead| human::grouped(dead as u64));
        let (active, mark) = (percent(self.frac_alive), if self.pareto { " *" } else { "" });
        format!("{name:width$} {l0:>8} {fvu:>8} {explained:>8} % {dead:>9} {active:>7} %{mark}")
    }
}

/// [`SWEEP_FILE`] for pyarrow, polars and DuckDB: a row is a run.
const SWEEP: Table<SweepRow> = Table {
    file: "sweep.parquet",
    command: "refract sweep",
    columns: &[
        Column::new("name", Cell::Text(|run| run.name.clone()), "", "its folder"),
        Column::new(
            "hook_point",
            Cell::Text(|run| run.hook_point.clone()),
            "",
            "the hook point of its rows; several are separated by a comma; `A -> B` for a transcoder; for vectors, \
             the column",
        ),
        Column::new(
            "architecture",
            Cell::Text(|run| run.architecture.to_string()),
            "",
            "the architecture, as in `config`",
        ),
        Column::new("k", Cell::U64(|run| run.k as u64), "latents per token", "active latents that were asked for"),
        Column::new("d_sae", Cell::U64(|run| run.d_sae as u64), "latents", "number of latents"),
        Column::new("lr", Cell::F64(|run| run.lr), "factor", "peak learning rate"),
        Column::new(
            "state",
            Cell::Text(|run| run.state.to_string()),
            "",
            "`finished`; `diverged`: stopped because it could not end well; `unfinished`: it has not ended",
        ),
        Column::new("tokens", Cell::MaybeU64(|run| run.tokens), "tokens", "tokens trained on; null while unfinished"),
        Column::new(
            "dead",
            Cell::MaybeU64(|run| run.dead.map(|dead| dead as u64)),
            "latents",
            "latents that are dead at the end; null unless finished",
        ),
        Column::new(
            "l0",
            Cell::MaybeF64(|run| run.l0),
            "latents per token",
            "active latents on held-out tokens; null unless finished, and if nothing is held out",
        ),
        Column::new(
            "fvu",
            Cell::MaybeF64(|run| run.fvu),
            "fraction",
            "variance unexplained on held-out tokens; null where `l0` is null",
        ),
        Column::new(
            "explained_variance",
            Cell::MaybeF64(|run| run.explained_variance),
            "fraction",
            "1 - `fvu`; null where `l0` is null",
        ),
        Column::new(
            "frac_alive",
            Cell::MaybeF64(|run| run.frac_alive),
            "fraction",
            "latents that were active at least once on held-out tokens; null where `l0` is null",
        ),
        Column::new(
            "pareto",
            Cell::Bool(|run| run.pareto),
            "",
            "true if no other run at its hook point is better in one of L0 and FVU and as good in the other",
        ),
    ],
};

/// `sweep.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct SweepFile {
    format: String,
    version: u32,
    /// Every run, sorted by hook point and L0.
    pub runs: Vec<SweepRow>,
}

impl SweepFile {
    pub(super) fn new(runs: Vec<SweepRow>) -> Self {
        Self { format: Self::FORMAT.into(), version: Self::VERSION, runs }
    }

    /// The runs in this state.
    pub fn in_state(&self, state: RunState) -> impl Iterator<Item = &SweepRow> {
        self.runs.iter().filter(move |row| row.state == state)
    }
}

impl Manifest for SweepFile {
    const FORMAT: &'static str = "refract.sweep";
    const COMMAND: &'static str = "sweep";
    const FILE: &'static str = SWEEP_FILE;
    const HAS_CHECKSUM: bool = false;
    const REPAIR: &'static str = "Remove this file and repeat the sweep: it is written again from the runs' folders";

    /// A sweep whose table was removed still has its page and its runs.
    fn leaves(folder: &OutputFolder, name: &str) -> bool {
        let file = name.strip_suffix(".tmp").unwrap_or(name);
        [PARETO_FILE, SWEEP.file].contains(&file) || SaeManifest::is_in(&folder.location().join(name))
    }

    /// Refuses a plan that lacks a run of the table, because the table will be written again.
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
    SWEEP.write(out, &rows)?;
    Ok(SweepFile::new(rows).write(out)?)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_these_columns() {
        assert!(include_str!("../../../../data/README.md").contains(&SWEEP.markdown()));
    }

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
