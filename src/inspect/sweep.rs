//! `refract inspect` of a sweep: its progress, and the table with which `refract sweep` ends.

use std::path::Path;

use harvester::Manifest;
use trainer::{PARETO_FILE, RunState, SaeManifest, SweepFile};

use super::fact;
use crate::{sweep_table, terminal::Terminal};

pub(super) fn table(path: &Path, verify: bool, terminal: &Terminal) -> anyhow::Result<()> {
    let file = SweepFile::read(path)?;
    terminal.heading(&format!("{}: sweep", path.display()));
    let count = |state| file.in_state(state).count();
    let (finished, diverged) = (count(RunState::Finished), count(RunState::Diverged));
    let state = match count(RunState::Unfinished) {
        0 => "complete".to_string(),
        n => format!("unfinished, {n} to come: repeat its command to go on"),
    };
    fact(terminal, "state", state);
    fact(terminal, "runs", format!("{}: {finished} finished, {diverged} diverged", file.runs.len()));
    fact(terminal, "pareto", format!("{}: FVU against L0, for a browser", path.join(PARETO_FILE).display()));
    sweep_table::print(&file.runs, terminal);
    if verify {
        anyhow::ensure!(finished > 0, super::nothing_to_verify(path));
        file.in_state(RunState::Finished).try_for_each(|row| SaeManifest::verify(&path.join(&row.name)))?;
        fact(terminal, "checksums", format!("the weights of {finished} runs are as recorded"));
    }
    terminal.json(&file)
}
