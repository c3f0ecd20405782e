//! `refract train`.

use std::path::Path;

use anyhow::{bail, ensure};
use harvester::{ActivationDataset, Location, VectorDataset};
use trainer::{PlannedRun, Reconstruction, SaeManifest, SweepData, SweepPlan, TrainConfig};

use crate::{
    cli::TrainArgs,
    estimate::step_seconds,
    settings,
    terminal::{Terminal, grouped, human_bytes, human_seconds},
    train_live,
};

pub(crate) fn run(args: TrainArgs, file: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    args.data.check(args.config.architecture.as_slice())?;
    let config = TrainConfig::from_settings(&settings::given(&args.config)?)?;
    let out = settings::required(&args.data.out, "train", "out")?;
    let manifest = match (&args.data.activations, &args.data.vectors) {
        (Some(activations), _) => train(activations, &config, &out, terminal)?,
        (None, Some(vectors)) => train_on_vectors(vectors, args.data.column.as_deref(), &config, &out, terminal)?,
        (None, None) if args.live.corpus.is_empty() => {
            bail!(
                "train needs `activations`, what refract harvest wrote, `corpus`, what a running model is to read, or \
                 `vectors`, parquet files of any tool"
            )
        }
        (None, None) => train_live::train(args.live, &config, file, &out, terminal)?,
    };
    report(&manifest, &out, terminal);
    let (held_out, results) = (&manifest.held_out, &manifest.results);
    terminal.json(
        &serde_json::json!({ "out": out, "hook_point": manifest.hook_point, "held_out": held_out, "results": results }),
    )
}

/// Says what will be needed and trains.
pub(crate) fn train(
    activations: &Path,
    config: &TrainConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    ensure!(
        !activations.is_file(),
        "{}: expected the folder that refract harvest wrote, found a file. Vectors of other tools: `vectors`",
        activations.display()
    );
    let dataset = ActivationDataset::open(Location::named(activations)?)?;
    say_beginning(out, config, || needs(SweepData::Harvested(&dataset), config), terminal)?;
    Ok(trainer::train(&dataset, config, out, terminal)?)
}

/// The same on vectors.
fn train_on_vectors(
    vectors: &Path,
    column: Option<&str>,
    config: &TrainConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let dataset = VectorDataset::open(Location::named(vectors)?, column, terminal)?;
    say_beginning(out, config, || needs(SweepData::Vectors(&dataset), config), terminal)?;
    Ok(trainer::train_vectors(&dataset, config, out, terminal)?)
}

/// Says where a run begins, and what it will take where it begins at nothing.
pub(crate) fn say_beginning(
    out: &Path,
    config: &TrainConfig,
    needs: impl FnOnce() -> anyhow::Result<String>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let kept = trainer::initial_weights_kept(config)?.map(|kept| format!("\n{kept}")).unwrap_or_default();
    let curves = out.join(trainer::CURVES_FILE);
    let needs = || Ok::<_, anyhow::Error>(format!("{}{kept}\ncurves, in a browser: {}", needs()?, curves.display()));
    match SaeManifest::read(out) {
        Ok(manifest) if manifest.is_finished(out)? => {
            terminal.say_when_begun(format!("{}: finished before", out.display()));
        }
        Ok(_) if SaeManifest::has_checkpoint(out)? => {
            terminal.say_when_begun(format!("{}: going on from its last checkpoint", out.display()));
        }
        Ok(_) => {
            terminal.say_when_begun(format!("{}: no checkpoint yet: beginning again\n{}", out.display(), needs()?))
        }
        Err(_) => terminal.say_when_begun(needs()?),
    }
    Ok(())
}

/// What came out of training.
pub(crate) fn report(manifest: &SaeManifest, out: &Path, terminal: &Terminal) {
    terminal.begin();
    let Some(results) = &manifest.results else { return };
    let (arch, place) = (manifest.config.architecture, place(manifest));
    let active = active(&manifest.config);
    terminal.line(format!("{}: {arch}, {active}, {place}, after {} tokens", out.display(), grouped(results.tokens)));
    if let Some(held_out) = &results.held_out {
        let dead = match results.tokens < manifest.config.dead_after_tokens {
            true => "too few tokens for `dead_after_tokens` to tell dead latents".to_string(),
            false => format!("{} dead latents", results.dead),
        };
        terminal.line(format!("held out: L0 {:.1}, FVU {:.3}; {dead}", held_out.l0, held_out.fvu));
        doubts(&manifest.config, held_out).iter().for_each(|doubt| terminal.say(doubt));
    }
}

/// What makes an SAE look unlike what was asked for, and what to try.
fn doubts(config: &TrainConfig, held_out: &Reconstruction) -> Vec<String> {
    /// L0 of rows held out may be so many times k, or a share of it, before one wonders.
    const FAR: f64 = 1.5;
    if held_out.l0 < 0.5 {
        return vec!["hardly a latent is active: try a smaller `sparsity_coefficient`, or a smaller `lr`".into()];
    }
    let mut doubts = vec![];
    if held_out.fvu > 1.0 {
        doubts.push("it is worse than the mean: train on more `tokens`, or with a smaller `lr`".into());
    }
    let times = held_out.l0 / config.k as f64;
    if config.sparsity_coefficient.is_none() && !(1.0 / FAR..=FAR).contains(&times) {
        let (l0, k) = (held_out.l0, config.k);
        doubts.push(format!("L0 is {l0:.1} where {k} was asked for: train on more `tokens`, or with a smaller `lr`"));
    }
    doubts
}

/// Where it reads, and where it writes if that is elsewhere.
fn place(manifest: &SaeManifest) -> String {
    let inputs = if manifest.hook_points.is_empty() { manifest.hook_point.as_slice() } else { &manifest.hook_points };
    let inputs: Vec<_> = inputs.iter().map(ToString::to_string).collect();
    match (&inputs[..], manifest.target_hook_point, &manifest.vectors) {
        ([], _, Some(vectors)) => format!("on `{}`", vectors.column),
        ([], _, None) => "on activations".to_string(),
        (inputs, Some(target), _) => format!("from {} to {target}", inputs.join(" and ")),
        (inputs, None, _) => format!("at {}", inputs.join(" and ")),
    }
}

/// What decides how many latents are active.
pub(crate) fn active(config: &TrainConfig) -> String {
    match config.sparsity_coefficient {
        Some(coefficient) => format!("sparsity coefficient {coefficient}"),
        None if config.architecture.has_sparsity_loss() => format!("L0 about {}", config.k),
        None => format!("k {}", config.k),
    }
}

/// The first line of a run: what it will take. A run is a sweep of one.
fn needs(data: SweepData<'_>, config: &TrainConfig) -> anyhow::Result<String> {
    let plan = SweepPlan::new(data, vec![config.clone()], Some(1))?;
    let PlannedRun { d_in, d_sae, .. } = plan.runs()[0];
    let d_target = target_width(data, config);
    let shape = d_target.filter(|d_out| *d_out != d_in).map(|d_out| format!(", d_out {d_out}")).unwrap_or_default();
    let (n, dtype, made) = match data {
        SweepData::Harvested(dataset) => (dataset.n_rows(), dataset.manifest().config.dtype, "harvested"),
        SweepData::Vectors(vectors) => (vectors.n_rows(), vectors.dtype(), "there"),
    };
    let rows = n * ((d_in + d_target.unwrap_or(0)) * dtype.bytes()) as u64;
    Ok(format!(
        "{} tokens ({} {made}), d_in {d_in}{shape}, d_sae {d_sae}, {}: about {}, {} of memory",
        grouped(config.tokens),
        grouped(n),
        active(config),
        human_seconds(step_seconds(d_in, d_sae, config.tokens)),
        human_bytes(plan.memory().saturating_add(rows.min(config.buffer_bytes))),
    ))
}

/// Width of the column that is predicted, of a transcoder.
fn target_width(data: SweepData<'_>, config: &TrainConfig) -> Option<usize> {
    let SweepData::Harvested(dataset) = data else { return None };
    let target = config.target_hook_point?;
    dataset.manifest().hook_points.iter().find(|at| at.name == target).map(|at| at.d_model)
}
