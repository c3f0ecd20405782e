//! `refract train`.

use std::path::Path;

use anyhow::bail;
use harvester::{ActivationDataset, Location, VectorDataset, open_corpus};
use trainer::{HELD_OUT_FOLDER, LiveEstimate, RunStage, SaeManifest, SweepPlan, TrainConfig, TrainData};

use crate::{
    cli::{DataArgs, HarvestArgs, HarvestConfigArgs, LiveArgs, TrainArgs},
    settings::{given, required, with_file},
    terminal::{Terminal, grouped, human_bytes, human_seconds},
};

pub(crate) fn run(args: TrainArgs, file: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    args.data.check(args.config.architecture.as_slice())?;
    let config = TrainConfig::from_settings(&given(&args.config)?)?;
    let out = required(&args.data.out, "train", "out")?;
    let manifest = match Rows::open(&args.data, terminal)? {
        Some(rows) => train(rows.data(), &config, &out, terminal)?,
        None if !args.live.corpus.is_empty() => train_live(args.live, &config, file, &out, terminal)?,
        None => bail!(
            "train needs `activations` (the folder of refract harvest), `corpus` (text for a running model) or \
             `vectors` (parquet files of any tool)"
        ),
    };
    report(&manifest, &out, terminal);
    let (held_out, results) = (&manifest.held_out, &manifest.results);
    terminal.json(
        &serde_json::json!({ "out": out, "hook_point": manifest.hook_point, "held_out": held_out, "results": results }),
    )
}

/// The rows to train on, opened.
pub(crate) enum Rows {
    Harvested(Box<ActivationDataset>),
    Vectors(Box<VectorDataset>),
}

impl Rows {
    /// Opens the data that the flags name; `None` if they name none.
    pub(crate) fn open(args: &DataArgs, terminal: &Terminal) -> anyhow::Result<Option<Self>> {
        Ok(match (&args.activations, &args.vectors) {
            (Some(file), _) if file.is_file() => bail!(
                "{}: expected the folder that refract harvest wrote, found a file. Vectors of other tools: `vectors`",
                file.display()
            ),
            (Some(folder), _) => Some(Self::Harvested(ActivationDataset::open(Location::named(folder)?)?.into())),
            (None, Some(vectors)) => {
                let dataset = VectorDataset::open(Location::named(vectors)?, args.column.as_deref(), terminal)?;
                Some(Self::Vectors(dataset.into()))
            }
            (None, None) => None,
        })
    }

    pub(crate) fn data(&self) -> TrainData<'_> {
        match self {
            Self::Harvested(dataset) => dataset.as_ref().into(),
            Self::Vectors(vectors) => vectors.as_ref().into(),
        }
    }
}

/// Shows the estimate and trains.
pub(crate) fn train(
    data: TrainData<'_>,
    config: &TrainConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    say_beginning(out, config, || needs(data, config), terminal)?;
    Ok(trainer::train(data, config, out, terminal)?)
}

/// The same on a running model, with the settings of `[harvest]` in `file`.
fn train_live(
    live: LiveArgs,
    config: &TrainConfig,
    file: Option<&Path>,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let LiveArgs { model, corpus, ctx_len, compute } = live;
    let harvest = HarvestConfigArgs { ctx_len, compute, ..HarvestConfigArgs::default() };
    let flags = HarvestArgs { model, corpus, config: harvest, ..HarvestArgs::default() };
    let args = with_file("harvest", flags, file)?;
    let model = args.model(terminal)?;
    let harvest = args.config(model.config())?;
    let needs = LiveEstimate::new(&model, &harvest, config)?;
    // The folder of the held-out contexts: a resumed run reads the corpus as that harvest did.
    let held_out = out.join(HELD_OUT_FOLDER);
    let corpus = open_corpus(&args.corpus, &args.corpus_options()?, &held_out.as_path().into())?;
    say_beginning(out, config, || Ok(live_needs(&needs, config)), terminal)?;
    Ok(trainer::train_live(&model, corpus, &harvest, config, out, terminal)?)
}

/// Says at which stage a run begins, with the estimate of a run that begins from nothing.
fn say_beginning(
    out: &Path,
    config: &TrainConfig,
    needs: impl FnOnce() -> anyhow::Result<String>,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let kept = trainer::initial_weights_kept(config)?.map(|kept| format!("\n{kept}")).unwrap_or_default();
    let curves = out.join(trainer::CURVES_FILE);
    let needs = || Ok::<_, anyhow::Error>(format!("{}{kept}\ncurves, in a browser: {}", needs()?, curves.display()));
    terminal.say_when_begun(match SaeManifest::stage(out)? {
        RunStage::Finished => format!("{}: finished before", out.display()),
        RunStage::Checkpoint => format!("{}: going on from its last checkpoint", out.display()),
        RunStage::Begun => format!("{}: no checkpoint yet: beginning again\n{}", out.display(), needs()?),
        RunStage::New => needs()?,
    });
    Ok(())
}

/// The first line of a run: its estimate. A run is a sweep of one.
fn needs(data: TrainData<'_>, config: &TrainConfig) -> anyhow::Result<String> {
    let plan = SweepPlan::new(data, vec![config.clone()], Some(1))?;
    let run = &plan.runs()[0];
    let d_out = if run.d_out == run.d_in { String::new() } else { format!(", d_out {}", run.d_out) };
    Ok(format!(
        "{} tokens ({} in the dataset), d_in {}{d_out}, d_sae {}, {}: about {}, {} of memory",
        grouped(config.tokens),
        grouped(data.n_rows()),
        run.d_in,
        run.d_sae,
        active(config),
        human_seconds(plan.seconds()),
        human_bytes(plan.memory()),
    ))
}

fn live_needs(needs: &LiveEstimate, config: &TrainConfig) -> String {
    format!(
        "{} tokens through {} layers and into an SAE, d_in {}, d_sae {}, {}: about {}, {} tokens in the shuffle buffer \
         before the first step, nothing on disk but {} tokens held out",
        grouped(config.tokens),
        needs.layers,
        needs.d_in,
        needs.d_sae,
        active(config),
        human_seconds(needs.seconds),
        grouped(needs.buffer_tokens),
        grouped(needs.held_out_tokens),
    )
}

/// Prints the results of training.
pub(crate) fn report(manifest: &SaeManifest, out: &Path, terminal: &Terminal) {
    terminal.begin();
    let (config, Some(results)) = (&manifest.config, &manifest.results) else { return };
    let (arch, active, place) = (config.architecture, active(config), place(manifest));
    terminal.line(format!("{}: {arch}, {active}, {place}, after {} tokens", out.display(), grouped(results.tokens)));
    if let Some(held_out) = &results.held_out {
        let dead = match results.tokens < config.dead_after_tokens {
            true => "fewer tokens than --dead-after-tokens, too few to tell dead latents".to_string(),
            false => format!("{} dead latents", results.dead),
        };
        terminal.line(format!("held out: L0 {:.1}, FVU {:.3}; {dead}", held_out.l0, held_out.fvu));
    }
    results.doubts(config).iter().for_each(|doubt| terminal.say(doubt));
}

/// The hook points that it reads, and the one that it predicts if it is a transcoder.
fn place(manifest: &SaeManifest) -> String {
    let inputs: Vec<_> = manifest.config.hook_points.iter().map(ToString::to_string).collect();
    match (&inputs[..], manifest.config.target_hook_point, &manifest.vectors) {
        ([], _, Some(vectors)) => format!("on `{}`", vectors.column),
        ([], _, None) => "on activations".to_string(),
        (inputs, Some(target), _) => format!("from {} to {target}", inputs.join(" and ")),
        (inputs, None, _) => format!("at {}", inputs.join(" and ")),
    }
}

/// The setting that decides how many latents are active.
pub(crate) fn active(config: &TrainConfig) -> String {
    match config.sparsity_coefficient {
        Some(coefficient) => format!("sparsity coefficient {coefficient}"),
        None if config.architecture.has_sparsity_loss() => format!("L0 about {}", config.k),
        None => format!("k {}", config.k),
    }
}
