//! `refract train`.

use std::path::Path;

use anyhow::bail;
use harvester::{ActivationDataset, Location, StorageDtype, VectorDataset};
use trainer::{SaeManifest, TrainConfig};

use crate::{
    cli::TrainArgs,
    settings,
    terminal::{Terminal, grouped, human_bytes, human_seconds},
    train_live,
    train_settings::Settings,
};

pub(crate) fn run(args: &TrainArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let mut settings: Settings = settings::resolve("train", args, config)?;
    settings.settle(args);
    let train_config = settings.config()?;
    let out = settings.out()?;
    let manifest = match (&settings.activations, &settings.vectors) {
        (Some(activations), None) => train(activations, &train_config, &out, terminal)?,
        (None, Some(vectors)) => train_on_vectors(vectors, settings.column.as_deref(), &train_config, &out, terminal)?,
        (Some(_), Some(_)) => bail!("train takes activations or vectors, not both: remove one from the config file"),
        (None, None) if args.live.corpus.is_empty() => {
            bail!(
                "train needs --activations, what refract harvest wrote, --corpus, what a running model is to read, or \
                 --vectors, parquet files of any tool"
            )
        }
        (None, None) => train_live::train(&args.live, &train_config, config, &out, terminal)?,
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
    let dataset = ActivationDataset::open(Location::named(activations)?)?;
    say_beginning(out, config, || needs(&Rows::harvested(&dataset, config), config), terminal)?;
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
    let width = dataset.width();
    let rows = Rows { n: dataset.n_rows(), d_in: width, d_out: width, dtype: dataset.dtype(), made: "there" };
    say_beginning(out, config, || needs(&rows, config), terminal)?;
    Ok(trainer::train_vectors(&dataset, config, out, terminal)?)
}

/// Says where a run begins, and what it will take where it begins at nothing.
pub(crate) fn say_beginning(
    out: &Path,
    config: &TrainConfig,
    needs: impl FnOnce() -> String,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let kept = trainer::initial_weights_kept(config)?.map(|kept| format!("\n{kept}")).unwrap_or_default();
    let needs = || format!("{}{kept}\ncurves, in a browser: {}", needs(), out.join(trainer::CURVES_FILE).display());
    match SaeManifest::read(out) {
        Ok(manifest) if manifest.complete => terminal.say(format!("{}: finished before", out.display())),
        Ok(_) if SaeManifest::has_checkpoint(out)? => {
            terminal.say(format!("{}: going on from its last checkpoint", out.display()));
        }
        Ok(_) => {
            terminal.say(format!("{}: no checkpoint yet: beginning again", out.display()));
            terminal.say_when_begun(needs());
        }
        Err(_) => terminal.say_when_begun(needs()),
    }
    Ok(())
}

/// What came out of training.
pub(crate) fn report(manifest: &SaeManifest, out: &Path, terminal: &Terminal) {
    let Some(results) = &manifest.results else { return };
    let (arch, place) = (manifest.config.architecture, place(manifest));
    let active = active(&manifest.config);
    terminal.line(format!("{}: {arch}, {active}, {place}, after {} tokens", out.display(), grouped(results.tokens)));
    if let Some(held_out) = &results.held_out {
        terminal
            .line(format!("held out: L0 {:.1}, FVU {:.3}; {} dead latents", held_out.l0, held_out.fvu, results.dead));
    }
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

/// Share of the encoder's floor that a whole training step reaches (`just bench`).
pub(crate) const STEP_EFFICIENCY: f64 = 0.6;

/// What there is to train on.
struct Rows {
    n: u64,
    /// Width of all inputs together.
    d_in: usize,
    /// Width of what is rebuilt.
    d_out: usize,
    dtype: StorageDtype,
    made: &'static str,
}

impl Rows {
    fn harvested(dataset: &ActivationDataset, config: &TrainConfig) -> Self {
        let manifest = dataset.manifest();
        let width = |point| manifest.hook_points.iter().find(|at| at.name == point).map_or(0, |at| at.d_model);
        let target = config.target_hook_point;
        let inputs: Vec<_> = config.named_hook_points().into_iter().filter(|point| Some(*point) != target).collect();
        let the_only_one = || manifest.hook_points.iter().find(|at| Some(at.name) != target).map_or(0, |at| at.d_model);
        let d_in = if inputs.is_empty() { the_only_one() } else { inputs.into_iter().map(width).sum() };
        let (n, dtype) = (dataset.n_rows(), manifest.config.dtype);
        Self { n, d_in, d_out: target.map_or(d_in, width), dtype, made: "harvested" }
    }
}

/// The first line of a run: what it will take.
fn needs(rows: &Rows, config: &TrainConfig) -> String {
    let Rows { n, d_in, d_out, dtype, made } = *rows;
    let d_sae = config.n_latents(d_in);
    let flop = 2.0 * d_in as f64 * d_sae as f64 * config.tokens as f64;
    let seconds = flop / harvester::machine::gemm_flops() / STEP_EFFICIENCY;
    // Weights and two moments, pre-activations of a batch, activations in the buffer.
    let row = if config.target_hook_point.is_some() { d_in + d_out } else { d_in };
    let data = n * (row * dtype.bytes()) as u64;
    let memory = (12.0 * (d_in + d_out) as f64 + 4.0 * config.batch as f64) * d_sae as f64;
    let shape = if d_in == d_out { String::new() } else { format!(", d_out {d_out}") };
    format!(
        "{} tokens ({} {made}), d_in {d_in}{shape}, d_sae {d_sae}, {}: about {}, {} of memory",
        grouped(config.tokens),
        grouped(n),
        active(config),
        human_seconds(seconds),
        human_bytes((memory as u64).saturating_add(data.min(config.buffer_bytes))),
    )
}
