//! `refract train` and `refract sweep`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Command, FromArgMatches};
use harvester::{Monitor, Settings};
use serde_json::Value;
use trainer::{HELD_OUT_FOLDER, PARETO_FILE, RunState, SaeManifest, SweepPlan, SweepRow, TrainConfig, TrainData};

use crate::{
    cli::{HarvestArgs, SharedArgs, TrainArgs, required, usage},
    settings::{self, in_table, of_args},
    terminal::{DIM, Terminal},
};

/// Names of the settings that all runs share.
const SHARED: [&str; 5] = ["activations", "vectors", "column", "out", "at_once"];

/// `file` has settings of harvest, for training on a running model.
pub(crate) fn train(args: &TrainArgs, file: Option<PathBuf>, terminal: &Terminal) -> anyhow::Result<()> {
    let source = args.data.source();
    args.config.architecture.map_or(Ok(()), |architecture| source.check(architecture))?;
    let config = TrainConfig::from_settings(&of_args(&args.config)?)?;
    let out = required(&args.data.out, "train", "out")?;
    let manifest = match source.open(terminal)? {
        Some(rows) => trainer::train(TrainData::from(&rows), &config, &out, terminal)?,
        None if !args.live.corpus.is_empty() => {
            train_live(&settings::harvest(of_args(&args.live)?, file)?, &config, &out, terminal)?
        }
        None => bail!(usage(
            "train needs `activations` (the folder of refract harvest), `corpus` (text for a running model) or \
             `vectors` (parquet files of any tool)"
        )),
    };
    terminal.report(out.display(), &manifest.summary());
    manifest.doubts().iter().for_each(|doubt| terminal.say(doubt));
    let (hook_point, held_out, results) = (manifest.config.hook_points.first(), &manifest.held_out, &manifest.results);
    terminal
        .json(&serde_json::json!({ "out": out, "hook_point": hook_point, "held_out": held_out, "results": results }))
}

/// Trains on a running model, with what the flags of a harvest say.
fn train_live(
    args: &HarvestArgs,
    config: &TrainConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let model = args.model(terminal)?;
    let harvest = args.config(model.config())?;
    // The folder of the held-out contexts: a resumed run reads the corpus as that harvest did.
    let corpus = args.corpus(&out.join(HELD_OUT_FOLDER).as_path().into())?;
    Ok(trainer::train_live(&model, corpus, &harvest, config, out, terminal)?)
}

/// The flags and the table `[sweep]` become the settings of runs, and their results become a table.
pub(crate) fn sweep(flags: &ArgMatches, terminal: &Terminal) -> anyhow::Result<()> {
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
        bail!(usage(
            "sweep needs `activations` (the folder of refract harvest) or `vectors` (parquet files of any tool)"
        ));
    };
    let plan = SweepPlan::new((&rows).into(), configs, shared.at_once)?;
    let rows = trainer::sweep(&plan, &out, terminal)?;
    terminal.tables(&SweepRow::tables(&rows));
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
        let shared = || usage(format!("`{name}` is the same for all runs: set it in [sweep] or as a flag"));
        ensure!(!SHARED.contains(&name.as_str()), shared());
        if let Some(flag) = given.iter().find(|flag| settings::settles(command, flag, name)) {
            let both = format!("`{name}` is set there, and `{flag}` was given, which is for all runs: leave out one");
            bail!(usage(both));
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
