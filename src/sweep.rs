//! `refract sweep`: its flags and the table `[sweep]` become the settings of runs, and their results become a table.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use clap::ArgMatches;
use harvester::Settings;
use serde_json::Value as Json;
use toml::{Table, Value};
use trainer::{PARETO_FILE, RunState, SweepPlan, SweepRow, TrainConfig};

use crate::{
    cli::{self, SharedArgs, TrainArgs},
    settings::{self, in_table},
    sweep_table,
    terminal::{DIM, Terminal, grouped, human_bytes, human_seconds},
    train::Rows,
};

/// Names of the flags that all runs share.
const SHARED: [&str; 5] = ["activations", "vectors", "column", "out", "at-once"];

/// `flags` are those of the settings of train, each a list.
pub(crate) fn run(
    shared: &SharedArgs,
    flags: &ArgMatches,
    file: Option<&Path>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let (shared, runs) = settled(shared, cli::lists(flags), file)?;
    let out = settings::required(&shared.data.out, "sweep", "out")?;
    let architecture = |run: &Settings| serde_json::from_value(run.get("architecture")?.clone()).ok();
    shared.data.check(&runs.iter().filter_map(architecture).collect::<Vec<_>>())?;
    let configs = runs.iter().map(|run| {
        TrainConfig::from_settings(run).with_context(|| format!("a run of the sweep, {}", serde_json::json!(run)))
    });
    let configs = configs.collect::<anyhow::Result<_>>()?;
    let Some(rows) = Rows::open(&shared.data, terminal)? else {
        bail!("sweep needs `activations` (the folder of refract harvest) or `vectors` (parquet files of any tool)");
    };
    let plan = SweepPlan::new(rows.data(), configs, shared.at_once)?;
    terminal.say_when_begun(needs(&plan, &out)?);
    let rows = trainer::sweep(&plan, &out, terminal)?;
    sweep_table::print(&rows, terminal);
    terminal.line(format!("{DIM}FVU against L0, in a browser: {}{DIM:#}", out.join(PARETO_FILE).display()));
    terminal.json(&serde_json::json!({ "out": out, "runs": rows }))?;
    refuse_none_finished(&rows)
}

/// The settings that all runs share, and those of each run. Flags win over the file.
fn settled(shared: &SharedArgs, flags: Table, file: Option<&Path>) -> anyhow::Result<(SharedArgs, Vec<Settings>)> {
    let mut flags = lists(flags)?;
    flags.extend(settings::given(shared)?);
    let (mut all, mut listed) = (Settings::new(), vec![]);
    if let Some(path) = file {
        let mut table = settings::table(path, "sweep")?;
        let runs: Vec<Table> = match table.remove("run") {
            None => vec![],
            Some(runs) => runs.try_into().context("[[sweep.run]]: expected tables of train's settings")?,
        };
        let shared: Table = SHARED.iter().filter_map(|name| table.remove_entry(*name)).collect();
        all = settings::read::<SharedArgs>(shared).with_context(|| in_table(path, "sweep"))?;
        all.extend(lists(table).with_context(|| in_table(path, "sweep"))?);
        let of_run = |run| of_run(run, &flags).with_context(|| in_table(path, "[sweep.run]"));
        listed = runs.into_iter().map(of_run).collect::<anyhow::Result<_>>()?;
    }
    let mut all = settings::laid_over::<TrainArgs>(all, flags);
    let shared = SHARED.iter().filter_map(|name| all.remove_entry(&name.replace('-', "_"))).collect();
    Ok((serde_json::from_value(Json::Object(shared))?, trainer::grid(&all, listed)?))
}

/// The settings of a listed run. A flag that sets one of them too is refused, because flags win over the file.
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

/// Settings of train; each may have several values.
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
                    Json::Array(values) if !is_list => list.into_iter().for_each(|list| list.extend(values.clone())),
                    value => list.into_iter().for_each(|list| list.push(value.clone())),
                }
            }
        }
    }
    Ok(lists)
}

/// An error if no run has finished, with the advice of the first one.
fn refuse_none_finished(rows: &[SweepRow]) -> anyhow::Result<()> {
    if rows.iter().any(|row| row.state == RunState::Finished) {
        return Ok(());
    }
    let note = rows.iter().find_map(|row| row.note.as_deref()).unwrap_or_default();
    bail!("no run finished. The first: {note}")
}

/// The first lines of a sweep: its estimate.
fn needs(plan: &SweepPlan<'_>, out: &Path) -> anyhow::Result<String> {
    let together = plan.passes().iter().map(Vec::len).max().unwrap_or(0);
    let passes = match plan.passes().len() {
        1 => "one pass".to_string(),
        n => format!("{n} passes"),
    };
    let mut says = format!(
        "{} runs in {passes}, at most {together} together: {} tokens in all, about {} if none has begun yet, {} of \
         memory\nFVU against L0, in a browser: {}",
        plan.runs().len(),
        grouped(plan.tokens()),
        human_seconds(plan.seconds()),
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
    use clap::FromArgMatches;

    use super::*;

    fn of_file(table: &str, flags: &str) -> anyhow::Result<(SharedArgs, Vec<Settings>)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), table)?;
        let flags: Vec<&str> = ["refract", "sweep"].into_iter().chain(flags.split_whitespace()).collect();
        let matches = cli::command().get_matches_from(flags);
        let matches = matches.subcommand_matches("sweep").context("a sweep")?;
        settled(&SharedArgs::from_arg_matches(matches)?, cli::lists(matches), Some(file.path()))
    }

    #[test]
    fn flags_lie_over_the_table_and_listed_runs_over_both() {
        let text = "[sweep]\nactivations = 'acts'\nd-sae = 64\ntokens = ['1k', 2_000]\nk = 3\n\
                    [[sweep.run]]\narch = 'matryoshka'\nprefixes = [16, 32]\n[[sweep.run]]\nbuffer-mib = 2\n";
        let (shared, runs) = of_file(text, "--k 4,8 --at-once 2").unwrap();
        assert_eq!((shared.data.activations, shared.at_once), (Some("acts".into()), Some(2)));
        assert_eq!(runs.len(), 2 * 2 * 2);
        assert!(runs.iter().all(|run| run["d_sae"] == 64 && run["k"] != 3));
        assert_eq!((&runs[0]["prefixes"], &runs[0]["tokens"]), (&serde_json::json!([16, 32]), &1000.into()));
        assert_eq!(runs[7]["buffer_bytes"], 2 << 20);
    }

    #[test]
    fn hook_points_of_the_table_are_runs_or_a_crosscoders() {
        let places = "'hook_embed', 'blocks.1.hook_resid_post'";
        let runs = |text: &str| of_file(&format!("[sweep]\n{text}"), "").unwrap().1;
        assert_eq!(runs(&format!("hook-point = [{places}]")).len(), 2);
        assert_eq!(runs(&format!("hook-point = [[{places}]]")).len(), 1);
        assert_eq!(runs(&format!("arch = 'crosscoder'\nhook-point = [{places}]")).len(), 1);
    }

    #[test]
    fn every_setting_of_train_is_a_flag_that_takes_a_list() {
        let (_, runs) = of_file("", "--arch matryoshka --prefixes 8,16 --warmup 0.1,0.2 --tokens 1k 2k").unwrap();
        assert_eq!(runs.len(), 4);
        assert!(runs.iter().all(|run| run["prefixes"] == serde_json::json!([8, 16])));
        let (_, runs) = of_file("", "--arch transcoder --skip --hook-point hook_embed").unwrap();
        assert_eq!((runs.len(), &runs[0]["skip"]), (1, &Json::Bool(true)));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |text: &str, flags: &str| format!("{:#}", of_file(text, flags).unwrap_err());
        let listed = "[[sweep.run]]\nk = 3\n[[sweep.run]]\nexpansion = 2\n";
        assert!(refused(listed, "--k 4").contains("k is set there, and `k` was given"));
        let excluded = refused(listed, "--d-sae 64");
        assert!(excluded.contains("expansion is set there, and `d_sae` was given"), "{excluded}");
        assert!(of_file(listed, "--lr 0.1").is_ok());
        assert!(refused("[sweep]\nk = []", "").contains("k is an empty list"));
        assert!(refused("[[sweep.run]]\nout = 'a'", "").contains("out is the same for all runs"));
        assert!(refused("[sweep]\nlearning-rate = 1", "").contains("learning-rate"));
    }
}
