//! `refract sweep`: its flags and the table `[sweep]` become the settings of runs, and their results become a table.

use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Command, FromArgMatches};
use harvester::Settings;
use serde_json::Value;
use trainer::{PARETO_FILE, RunState, SweepPlan, TrainConfig};

use crate::{
    cli::{SharedArgs, TrainArgs, required},
    settings::{self, in_table},
    sweep_table,
    terminal::{DIM, Terminal},
};

/// Names of the settings that all runs share.
const SHARED: [&str; 5] = ["activations", "vectors", "column", "out", "at_once"];

pub(crate) fn run(flags: &ArgMatches, terminal: &Terminal) -> anyhow::Result<()> {
    let (shared, runs) = settled(flags)?;
    let out = required(&shared.data.out, "sweep", "out")?;
    let source = shared.data.source();
    let config = |run: &Settings| -> anyhow::Result<TrainConfig> {
        let args = TrainArgs::from_arg_matches(&settings::read("train", run.clone())?)?;
        args.config.architecture.map_or(Ok(()), |architecture| source.check(architecture))?;
        Ok(TrainConfig::from_settings(&settings::of_args(&args.config)?)?)
    };
    let file = settings::file(flags).map(|file| format!(" with {}", in_table(&file, "sweep"))).unwrap_or_default();
    let named = |run| config(run).with_context(|| format!("a run of the sweep{file}, {}", serde_json::json!(run)));
    let configs = runs.iter().map(named).collect::<anyhow::Result<_>>()?;
    let Some(rows) = source.open(terminal)? else {
        bail!("sweep needs `activations` (the folder of refract harvest) or `vectors` (parquet files of any tool)");
    };
    let plan = SweepPlan::new((&rows).into(), configs, shared.at_once)?;
    let rows = trainer::sweep(&plan, &out, terminal)?;
    sweep_table::print(&rows, terminal);
    terminal.line(format!("{DIM}FVU against L0, in a browser: {}{DIM:#}", out.join(PARETO_FILE).display()));
    terminal.json(&serde_json::json!({ "out": out, "runs": rows }))?;
    let why = rows.iter().find_map(|row| row.note.as_deref()).unwrap_or_default();
    ensure!(rows.iter().any(|row| row.state == RunState::Finished), "no run finished. The first: {why}");
    Ok(())
}

/// The settings that all runs share, and those of each run. Flags win over the file.
fn settled(flags: &ArgMatches) -> anyhow::Result<(SharedArgs, Vec<Settings>)> {
    let (command, given) = (settings::command("sweep"), settings::given(flags));
    let (mut all, mut listed) = (Settings::new(), vec![]);
    let file = &settings::file(flags);
    if let Some(file) = file {
        all = settings::table(file, "sweep")?;
        let runs: Vec<Settings> = all
            .remove("run")
            .map_or(Ok(vec![]), serde_json::from_value)
            .with_context(|| format!("{}: expected [[sweep.run]] to be tables of settings of train", file.display()))?;
        let of_run = |run| of_run(run, &command, &given).with_context(|| in_table(file, "[sweep.run]"));
        listed = runs.into_iter().map(of_run).collect::<anyhow::Result<_>>()?;
        all = settings::left_by(given, &command, all);
    }
    all.extend(lists(flags, &command));
    let shared = SHARED.iter().filter_map(|name| all.remove_entry(*name)).collect();
    // Flags alone have passed clap: what is wrong now is in the file.
    let in_file = || file.as_ref().map_or("sweep".into(), |file| in_table(file, "sweep"));
    let shared = settings::read("sweep", shared).with_context(in_file)?;
    Ok((SharedArgs::from_arg_matches(&shared)?, trainer::grid(&all, listed).with_context(in_file)?))
}

/// The settings of a listed run. A flag that sets one of them too is refused, because flags win over the file.
fn of_run(run: Settings, command: &Command, given: &[&str]) -> anyhow::Result<Settings> {
    let run = settings::by_setting(command, run)?;
    for (name, value) in &run {
        if command.get_arguments().all(|flag| flag.get_id() != name.as_str()) {
            settings::read("train", Settings::from_iter([(name.clone(), value.clone())]))?; // clap refuses it
        }
        ensure!(!SHARED.contains(&name.as_str()), "`{name}` is the same for all runs: set it in [sweep] or as a flag");
        if let Some(flag) = given.iter().find(|flag| settings::settles(command, flag, name)) {
            bail!("`{name}` is set there, and `{flag}` was given, which is for all runs: leave out one");
        }
    }
    Ok(run)
}

/// The flags that were given, each with the list of its values.
fn lists(flags: &ArgMatches, command: &Command) -> Settings {
    let given = settings::given(flags);
    let given = command.get_arguments().filter(|flag| given.contains(&flag.get_id().as_str()));
    let list = |flag: &clap::Arg| {
        let values = flags.get_raw(flag.get_id().as_str()).into_iter().flatten();
        let values = values.map(|value| Value::String(value.to_string_lossy().into_owned())).collect();
        let value = if flag.get_action().takes_values() { Value::Array(values) } else { Value::Bool(true) };
        (flag.get_id().to_string(), value)
    };
    given.map(list).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::cli;

    fn of_file(table: &str, flags: &str) -> anyhow::Result<(SharedArgs, Vec<Settings>)> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), table)?;
        let words = ["refract", "sweep", "--config", file.path().to_str().unwrap()];
        let matches = cli::command().get_matches_from(words.into_iter().chain(flags.split_whitespace()));
        settled(matches.subcommand_matches("sweep").context("a sweep")?)
    }

    #[test]
    fn flags_lie_over_the_table_and_listed_runs_over_both() {
        let text = "[sweep]\nactivations = 'acts'\nd-sae = 64\ntokens = ['1k', 2_000]\nk = 3\n\
                    [[sweep.run]]\narch = 'matryoshka'\nprefixes = [16, 32]\n[[sweep.run]]\nbuffer-mib = 2\n";
        let (shared, runs) = of_file(text, "--k 4,8 --at-once 2").unwrap();
        assert_eq!((shared.data.activations, shared.at_once), (Some("acts".into()), Some(2)));
        assert_eq!(runs.len(), 2 * 2 * 2);
        assert!(runs.iter().all(|run| run["d_sae"] == 64 && run["k"] != 3));
        assert_eq!((&runs[0]["prefixes"], &runs[0]["tokens"]), (&serde_json::json!([16, 32]), &"1k".into()));
        let args = TrainArgs::from_arg_matches(&settings::read("train", runs[7].clone()).unwrap()).unwrap();
        assert_eq!((args.config.buffer_bytes, args.config.tokens), (Some(2 << 20), Some(2000)));
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
        assert!(runs.iter().all(|run| run["prefixes"] == serde_json::json!(["8", "16"])));
        let (_, runs) = of_file("", "--arch transcoder --skip --hook-point hook_embed").unwrap();
        assert_eq!((runs.len(), &runs[0]["skip"]), (1, &Value::Bool(true)));
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |text: &str, flags: &str| format!("{:#}", of_file(text, flags).unwrap_err());
        let listed = "[[sweep.run]]\nk = 3\n[[sweep.run]]\nexpansion = 2\n";
        assert!(refused(listed, "--k 4").contains("`k` is set there, and `k` was given"));
        let excluded = refused(listed, "--d-sae 64");
        assert!(excluded.contains("`expansion_factor` is set there, and `d_sae` was given"), "{excluded}");
        assert!(of_file(listed, "--lr 0.1").is_ok());
        assert!(refused("[sweep]\nk = []", "").contains("`k`: expected one value or more, found an empty list"));
        assert!(refused("[[sweep.run]]\nout = 'a'", "").contains("`out` is the same for all runs"));
        assert!(refused("[sweep]\nrun = 3", "").contains("expected [[sweep.run]] to be tables"));
    }
}
