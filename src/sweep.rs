//! `refract sweep`: lists of settings become runs, and what came of them a table. A setting of a run is one of
//! train's, by the same name, so that train's own [`Settings`] check each.
//!
//! ```text
//! runs = (each [[sweep.run]] over the rest of [sweep], or that alone), of it every combination of its lists' values
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use harvester::{ActivationDataset, Location, VectorDataset};
use serde::Deserialize;
use toml::{Table, Value};
use trainer::{PARETO_FILE, RunState, SweepData, SweepPlan, SweepRow, TrainConfig};

use crate::{
    cli::SweepArgs,
    estimate::step_seconds,
    settings, sweep_table,
    terminal::{DIM, Terminal, grouped, human_bytes, human_seconds},
    train_settings::Settings,
};

/// What all runs share.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Shared {
    activations: Option<PathBuf>,
    vectors: Option<PathBuf>,
    column: Option<String>,
    out: Option<PathBuf>,
    at_once: Option<usize>,
}

/// Their names.
const SHARED: [&str; 5] = ["activations", "vectors", "column", "out", "at-once"];
/// Of two settings that exclude each other, the one laid over the rest stays.
const EXCLUSIVE: [[&str; 2]; 2] = [["activations", "vectors"], ["d-sae", "expansion"]];

pub(crate) fn run(args: &SweepArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let file = config.map(|path| settings::table(path, "sweep")).transpose()?.unwrap_or_default();
    let flags = settings::as_table(args)?;
    let mut settings = laid_over(file, flags.clone());
    let shared: Table = SHARED.iter().filter_map(|name| settings.remove_entry(*name)).collect();
    let shared: Shared = Value::Table(shared).try_into().context("settings of `sweep`")?;
    let out = shared.out.clone().context("sweep needs --out: the folder to write")?;
    Settings::check_column(shared.column.as_deref(), shared.vectors.as_deref())?;
    let configs = configs(settings, &flags)?;
    let rows = match (&shared.activations, &shared.vectors) {
        (Some(activations), None) => {
            let dataset = ActivationDataset::open(Location::named(activations)?)?;
            sweep(SweepData::Harvested(&dataset), configs, &shared, &out, terminal)?
        }
        (None, Some(vectors)) => {
            let dataset = VectorDataset::open(Location::named(vectors)?, shared.column.as_deref(), terminal)?;
            sweep(SweepData::Vectors(&dataset), configs, &shared, &out, terminal)?
        }
        (Some(_), Some(_)) => bail!("sweep takes activations or vectors, not both: remove one from the config file"),
        (None, None) => {
            bail!("sweep needs --activations, what refract harvest wrote, or --vectors, parquet files of any tool")
        }
    };
    sweep_table::print(&rows, terminal);
    terminal.line(format!("{DIM}FVU against L0, in a browser: {}{DIM:#}", out.join(PARETO_FILE).display()));
    terminal.json(&serde_json::json!({ "out": out, "runs": rows }))?;
    refuse_none_finished(&rows)
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
    shared: &Shared,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<Vec<SweepRow>> {
    let plan = SweepPlan::new(data, configs, shared.at_once)?;
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

/// The config of every run; `flags` are those settings that were given as such.
fn configs(mut settings: Table, flags: &Table) -> anyhow::Result<Vec<TrainConfig>> {
    let listed = match settings.remove("run") {
        None => vec![Table::new()],
        Some(runs) => runs.try_into().context("[[sweep.run]]: expected tables of train's settings")?,
    };
    let mut configs = vec![];
    for run in listed {
        if let Some(name) = SHARED.iter().find(|name| run.contains_key(**name)) {
            bail!("[[sweep.run]]: `{name}` is the same for all runs: set it in [sweep] or as --{name}");
        }
        if let Some((name, flag)) = against_a_flag(&run, flags) {
            bail!("[[sweep.run]]: `{name}` is set there and --{flag} was given, which is for all runs: leave out one");
        }
        for settings in combinations(laid_over(settings.clone(), run))? {
            let named = serde_json::to_string(&settings)?;
            let said = || format!("a run of `sweep`, {named}");
            let settings: Settings = Value::Table(settings).try_into().with_context(said)?;
            configs.push(settings.config().with_context(said)?);
        }
    }
    Ok(configs)
}

/// A setting of a listed run that a flag settles too, and that flag: flags win over the file.
fn against_a_flag<'a>(run: &'a Table, flags: &Table) -> Option<(&'a str, &'a str)> {
    let excluded = |name: &'a str| {
        let other = EXCLUSIVE.iter().find_map(|[a, b]| if name == *a { Some(*b) } else { (name == *b).then_some(*a) });
        [name].into_iter().chain(other).map(move |flag| (name, flag))
    };
    run.keys().flat_map(|name| excluded(name)).find(|(_, flag)| flags.contains_key(*flag))
}

fn laid_over(mut under: Table, over: Table) -> Table {
    if over.contains_key("activations") && under.contains_key("vectors") {
        // It was one of those vectors.
        under.remove("column");
    }
    for [one, other] in EXCLUSIVE {
        if over.contains_key(one) {
            under.remove(other);
        }
        if over.contains_key(other) {
            under.remove(one);
        }
    }
    under.extend(over);
    under
}

/// Every combination of the values of lists.
fn combinations(settings: Table) -> anyhow::Result<Vec<Table>> {
    let mut runs = vec![Table::new()];
    let architectures =
        settings.get("arch").map(|arch| arch.as_array().map_or(std::slice::from_ref(arch), Vec::as_slice));
    let are_crosscoders = architectures.is_some_and(|all| all.iter().all(|arch| arch.as_str() == Some("crosscoder")));
    for (name, value) in settings {
        let values = match value {
            // One list is one value of these.
            Value::Array(values)
                if (name == "prefixes" || name == "hook-point" && are_crosscoders)
                    && !values.iter().any(Value::is_array) =>
            {
                vec![Value::Array(values)]
            }
            Value::Array(values) => values,
            value => vec![value],
        };
        anyhow::ensure!(!values.is_empty(), "sweep: `{name}` is an empty list: expected one value or more");
        let with = |run: &Table, value: &Value| {
            let mut run = run.clone();
            run.insert(name.clone(), value.clone());
            run
        };
        runs = runs.iter().flat_map(|run| values.iter().map(|value| with(run, value)).collect::<Vec<_>>()).collect();
    }
    Ok(runs)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<TrainConfig> {
        configs(text.parse().unwrap(), &Table::new()).unwrap()
    }

    #[test]
    fn a_grid_has_every_combination_and_listed_runs_lie_over_it() {
        let grid = parsed("k = [4, 8]\narch = ['topk', 'batch-topk']\nd-sae = 64\nlr = [0.1, 0.01]\n");
        assert_eq!(grid.len(), 8);
        assert!(grid.iter().all(|config| config.d_sae == Some(64)));
        let listed = parsed(
            "k = [4, 8]\nd-sae = 64\n[[run]]\narch = 'matryoshka'\nprefixes = [8, 16]\n[[run]]\nexpansion = 2\nk = 3\n",
        );
        let found: Vec<_> = listed.iter().map(|config| (config.k, config.d_sae, config.prefixes.len())).collect();
        assert_eq!(found, [(4, Some(64), 2), (8, Some(64), 2), (3, None, 0)]);
    }

    #[test]
    fn a_list_of_lists_is_a_crosscoders_places() {
        let runs =
            parsed("arch = 'crosscoder'\nhook-point = [['blocks.0.hook_resid_post', 'blocks.1.hook_resid_post']]");
        assert_eq!(runs.len(), 1);
        assert_eq!(runs[0].hook_points.len(), 2);
        // Where all are crosscoders, as the flags give it.
        let places = "hook-point = ['blocks.0.hook_resid_post', 'blocks.1.hook_resid_post']";
        let runs = parsed(&format!("arch = ['crosscoder']\nk = [4, 8]\n{places}"));
        assert!(runs.len() == 2 && runs.iter().all(|config| config.hook_points.len() == 2));
    }

    #[test]
    fn a_listed_run_does_not_win_over_a_flag() {
        let refused = |flags: &str| {
            let settings = "[[run]]\nk = 3\n[[run]]\nexpansion = 2\n".parse().unwrap();
            format!("{:#}", configs(settings, &flags.parse().unwrap()).unwrap_err())
        };
        assert!(refused("k = [4, 8]").contains("`k` is set there and --k was given"));
        assert!(refused("d-sae = [64]").contains("`expansion` is set there and --d-sae was given"));
        let beside = "[[run]]\nk = 3\n".parse().unwrap();
        assert_eq!(configs(beside, &"lr = [0.1]".parse().unwrap()).unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_is_named() {
        let refused = |text: &str| format!("{:#}", configs(text.parse().unwrap(), &Table::new()).unwrap_err());
        assert!(refused("k = []").contains("`k` is an empty list"));
        assert!(refused("[[run]]\nout = 'a'").contains("`out` is the same for all runs"));
        let message = refused("arch = ['topk']\nbandwidth = 0.5");
        assert!(
            message.contains("\"arch\":\"topk\"") && message.contains("--bandwidth has no effect on topk"),
            "{message}"
        );
        assert!(refused("learning-rate = 1").contains("learning-rate"));
    }
}
