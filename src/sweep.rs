//! `refract sweep`: its flags and the table `[sweep]` become the settings of runs, and what came of them a table.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use harvester::{ActivationDataset, Location, Settings, VectorDataset};
use toml::{Table, Value};
use trainer::{PARETO_FILE, RunState, SweepData, SweepPlan, SweepRow, TrainConfig};

use crate::{
    cli::{SweepArgs, TrainArgs},
    estimate::step_seconds,
    settings::{self, in_table},
    sweep_table,
    terminal::{DIM, Terminal, grouped, human_bytes, human_seconds},
};

/// What all runs share, under the names of the flags.
const SHARED: [&str; 5] = ["activations", "vectors", "column", "out", "at-once"];

pub(crate) fn run(args: &SweepArgs, file: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let (shared, runs) = settled(args, file)?;
    let out = settings::required(&shared.data.out, "sweep", "out")?;
    shared.data.check(&args.grid.architecture)?;
    let configs = runs.iter().map(|run| {
        TrainConfig::from_settings(run).with_context(|| format!("a run of the sweep, {}", serde_json::json!(run)))
    });
    let configs = configs.collect::<anyhow::Result<Vec<_>>>()?;
    let rows = match (&shared.data.activations, &shared.data.vectors) {
        (Some(activations), _) => {
            let dataset = ActivationDataset::open(Location::named(activations)?)?;
            sweep(SweepData::Harvested(&dataset), configs, shared.at_once, &out, terminal)?
        }
        (None, Some(vectors)) => {
            let dataset = VectorDataset::open(Location::named(vectors)?, shared.data.column.as_deref(), terminal)?;
            sweep(SweepData::Vectors(&dataset), configs, shared.at_once, &out, terminal)?
        }
        (None, None) => {
            bail!("sweep needs `activations`, what refract harvest wrote, or `vectors`, parquet files of any tool")
        }
    };
    sweep_table::print(&rows, terminal);
    terminal.line(format!("{DIM}FVU against L0, in a browser: {}{DIM:#}", out.join(PARETO_FILE).display()));
    terminal.json(&serde_json::json!({ "out": out, "runs": rows }))?;
    refuse_none_finished(&rows)
}

/// What all runs share, and the settings of each.
fn settled(args: &SweepArgs, file: Option<&Path>) -> anyhow::Result<(SweepArgs, Vec<Settings>)> {
    let flags = settings::given(args)?;
    let (mut all, mut listed) = (Settings::new(), vec![]);
    if let Some(path) = file {
        let mut table = settings::table(path, "sweep")?;
        let runs: Vec<Table> = match table.remove("run") {
            None => vec![],
            Some(runs) => runs.try_into().context("[[sweep.run]]: expected tables of train's settings")?,
        };
        let shared: Table = SHARED.iter().filter_map(|name| table.remove_entry(*name)).collect();
        all = settings::read::<SweepArgs>(shared).with_context(|| in_table(path, "sweep"))?;
        all.extend(lists(table).with_context(|| in_table(path, "sweep"))?);
        let of_run = |run| of_run(run, &flags).with_context(|| in_table(path, "[sweep.run]"));
        listed = runs.into_iter().map(of_run).collect::<anyhow::Result<_>>()?;
    }
    let mut all = settings::laid_over::<TrainArgs>(all, flags);
    let shared = SHARED.iter().filter_map(|name| all.remove_entry(&name.replace('-', "_"))).collect();
    Ok((serde_json::from_value(serde_json::Value::Object(shared))?, trainer::grid(&all, listed)?))
}

/// The settings of a listed run. What it sets, no flag may: flags win over the file.
fn of_run(run: Table, flags: &Settings) -> anyhow::Result<Settings> {
    let command = settings::command::<TrainArgs>();
    for (name, value) in &run {
        ensure!(!SHARED.contains(&name.as_str()), "{name} is the same for all runs: set it in [sweep] or as --{name}");
        for setting in lists(Table::from_iter([(name.clone(), value.clone())]))?.keys() {
            let settles = |flag: &&String| {
                *flag == setting
                    || settings::excludes(&command, flag, setting)
                    || settings::excludes(&command, setting, flag)
            };
            if let Some(flag) = flags.keys().find(settles) {
                bail!("{name} is set there, and `{flag}` was given, which is for all runs: leave out one");
            }
        }
    }
    lists(run)
}

/// Settings of train, of which each may have several values.
fn lists(table: Table) -> anyhow::Result<Settings> {
    let mut lists = Settings::new();
    for (name, value) in table {
        let values = match value {
            Value::Array(values) => values,
            value => vec![value],
        };
        ensure!(!values.is_empty(), "{name} is an empty list: expected one value or more");
        for value in values {
            let is_list = value.is_array();
            for (setting, value) in settings::read::<TrainArgs>(Table::from_iter([(name.clone(), value)]))? {
                let list = lists.entry(setting).or_insert_with(|| serde_json::json!([])).as_array_mut();
                match value {
                    // A flag that takes several values makes a list of one.
                    serde_json::Value::Array(values) if !is_list => {
                        list.into_iter().for_each(|list| list.extend(values.clone()))
                    }
                    value => list.into_iter().for_each(|list| list.push(value.clone())),
                }
            }
        }
    }
    Ok(lists)
}

/// A sweep of which nothing came is no success; what to try instead, the first run says.
fn refuse_none_finished(rows: &[SweepRow]) -> anyhow::Result<()> {
    if rows.iter().any(|row| row.state == RunState::Finished) {
        return Ok(());
    }
    let note = rows.iter().find_map(|row| row.note.as_deref()).unwrap_or_default();
    bail!("no run finished. The first: {note}")
}

/// Says what will be needed and trains.
fn sweep(
    data: SweepData<'_>,
    configs: Vec<TrainConfig>,
    at_once: Option<usize>,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<Vec<SweepRow>> {
    let plan = SweepPlan::new(data, configs, at_once)?;
    terminal.say_when_begun(needs(&plan, out)?);
    Ok(trainer::sweep(&plan, out, terminal)?)
}

/// The first lines of a sweep: what it will take.
fn needs(plan: &SweepPlan<'_>, out: &Path) -> anyhow::Result<String> {
    let seconds = plan.runs().iter().map(|run| step_seconds(run.d_in, run.d_sae, run.config.tokens)).sum();
    let together = plan.passes().iter().map(Vec::len).max().unwrap_or(0);
    let passes = match plan.passes().len() {
        1 => "one pass".to_string(),
        n => format!("{n} passes"),
    };
    let mut says = format!(
        "{} runs in {passes}, at most {together} together: {} tokens in all, about {} where none was begun before, {} of \
         memory for what learns, and the buffer\nFVU against L0, in a browser: {}",
        plan.runs().len(),
        grouped(plan.tokens()),
        human_seconds(seconds),
        human_bytes(plan.memory()),
        out.join(PARETO_FILE).display()
    );
    let mut kept: Vec<String> = vec![];
    for run in plan.runs() {
        kept.extend(trainer::initial_weights_kept(&run.config)?.filter(|text| !kept.contains(text)));
    }
    kept.iter().for_each(|text| says += &format!("\n{text}"));
    Ok(says)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of_file(table: &str, flags: &SweepArgs) -> anyhow::Result<(SweepArgs, Vec<Settings>)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), table)?;
        settled(flags, Some(file.path()))
    }

    #[test]
    fn flags_lie_over_the_table_and_listed_runs_over_both() {
        let text = "[sweep]\nactivations = 'acts'\nd-sae = 64\ntokens = ['1k', 2_000]\nk = 3\n\
                    [[sweep.run]]\narch = 'matryoshka'\nprefixes = [16, 32]\n[[sweep.run]]\nbuffer-mib = 2\n";
        let flags: SweepArgs = serde_json::from_value(serde_json::json!({ "k": [4, 8], "at_once": 2 })).unwrap();
        let (shared, runs) = of_file(text, &flags).unwrap();
        assert_eq!((shared.data.activations, shared.at_once), (Some("acts".into()), Some(2)));
        assert_eq!(runs.len(), 2 * 2 * 2);
        assert!(runs.iter().all(|run| run["d_sae"] == 64 && run["k"] != 3));
        assert_eq!((&runs[0]["prefixes"], &runs[0]["tokens"]), (&serde_json::json!([16, 32]), &1000.into()));
        assert_eq!(runs[7]["buffer_bytes"], 2 << 20);
    }

    #[test]
    fn hook_points_of_the_table_are_runs_or_a_crosscoders() {
        let places = "'hook_embed', 'blocks.1.hook_resid_post'";
        let runs = |text: &str| of_file(&format!("[sweep]\n{text}"), &SweepArgs::default()).unwrap().1;
        assert_eq!(runs(&format!("hook-point = [{places}]")).len(), 2);
        assert_eq!(runs(&format!("hook-point = [[{places}]]")).len(), 1);
        assert_eq!(runs(&format!("arch = 'crosscoder'\nhook-point = [{places}]")).len(), 1);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |text: &str, flags: serde_json::Value| {
            format!("{:#}", of_file(text, &serde_json::from_value(flags).unwrap()).unwrap_err())
        };
        let none = serde_json::json!({});
        let listed = "[[sweep.run]]\nk = 3\n[[sweep.run]]\nexpansion = 2\n";
        assert!(refused(listed, serde_json::json!({ "k": [4] })).contains("k is set there, and `k` was given"));
        let excluded = refused(listed, serde_json::json!({ "d_sae": [64] }));
        assert!(excluded.contains("expansion is set there, and `d_sae` was given"), "{excluded}");
        assert!(of_file(listed, &serde_json::from_value(serde_json::json!({ "lr": [0.1] })).unwrap()).is_ok());
        assert!(refused("[sweep]\nk = []", none.clone()).contains("k is an empty list"));
        assert!(refused("[[sweep.run]]\nout = 'a'", none.clone()).contains("out is the same for all runs"));
        assert!(refused("[sweep]\nlearning-rate = 1", none).contains("learning-rate"));
    }
}
