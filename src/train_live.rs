//! `refract train` without `--activations`: the model runs while the SAE learns.

use std::path::Path;

use anyhow::ensure;
use harvester::{HarvestConfig, ModelConfig, open_corpus};
use trainer::{HELD_OUT_FOLDER, SaeManifest, TrainConfig};

use crate::{
    cli::{HarvestArgs, HarvestConfigArgs, LiveArgs},
    estimate::step_seconds,
    harvest::forward_efficiency,
    settings,
    terminal::{Terminal, grouped, human_seconds},
    train::{active, say_beginning},
};

/// Says what will be needed and trains.
pub(crate) fn train(
    live: LiveArgs,
    train_config: &TrainConfig,
    file: Option<&Path>,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let LiveArgs { model, corpus, ctx_len, compute } = live;
    let config = HarvestConfigArgs { ctx_len, compute, ..HarvestConfigArgs::default() };
    let flags = HarvestArgs { model, corpus, config, ..HarvestArgs::default() };
    let args = settings::with_file("harvest", flags, file)?;
    let model = args.model(terminal)?;
    let shape = model.config();
    let mut harvest_config = args.config(shape)?;
    let train_config = &name_hook_points(train_config, &mut harvest_config, shape)?.with_initial_width()?;
    ensure!(
        harvest_config.part.is_none(),
        "`part` of [harvest] is for harvests that are merged: train on all of the corpus"
    );
    // Where the held-out contexts are harvested into: a run that goes on reads what that read.
    let held_out = out.join(HELD_OUT_FOLDER);
    let corpus = open_corpus(&args.corpus, &args.corpus_options()?, &held_out.as_path().into(), None)?;
    say_beginning(out, train_config, || Ok(needs(shape, &harvest_config, train_config)), terminal)?;
    Ok(trainer::train_live(&model, corpus, &harvest_config, train_config, out, terminal)?)
}

/// Settles where the activations are from: what is named for training, else the one place named for harvesting. The
/// model runs for these and for no others.
fn name_hook_points(
    config: &TrainConfig,
    harvest: &mut HarvestConfig,
    shape: &ModelConfig,
) -> anyhow::Result<TrainConfig> {
    let mut config = config.clone();
    if config.hook_points.is_empty() {
        let others = harvest.hook_points.iter().filter(|point| Some(**point) != config.target_hook_point);
        let [point] = others.collect::<Vec<_>>()[..] else {
            anyhow::bail!("train needs `hook_points`, one place in the model, such as blocks.14.hook_resid_post");
        };
        config.hook_points = vec![*point];
    }
    harvest.hook_points = config.named_hook_points();
    harvest.hook_points.iter().try_for_each(|point| point.check(shape))?;
    Ok(config)
}

/// The first line of a run: what it will take.
fn needs(shape: &ModelConfig, harvest: &HarvestConfig, config: &TrainConfig) -> String {
    let points = &harvest.hook_points;
    let n_inputs = points.len() - usize::from(config.target_hook_point.is_some());
    let d_in: usize = points[..n_inputs].iter().map(|point| point.width(shape)).sum();
    let layers = points.iter().map(|point| point.layers_needed()).max().unwrap_or(0);
    let d_sae = config.n_latents(d_in);
    let forward = shape.flop_per_token(layers, harvest.ctx_len) as f64 / forward_efficiency(harvest.compute);
    let buffer = config.buffer_rows(points.iter().map(|point| harvest.dtype.row_bytes(point.width(shape))).sum());
    let held_out = (config.tokens as f64 * config.held_out_fraction).ceil();
    // The buffer is filled whole, also the last time.
    let computed = config.rows_drawn().div_ceil(buffer.max(1)) as f64 * buffer as f64 + held_out;
    let seconds = computed * forward / harvester::machine::gemm_flops() + step_seconds(d_in, d_sae, config.tokens);
    format!(
        "{} tokens through {} layers and into an SAE, d_in {d_in}, d_sae {d_sae}, {}: about {}, \
         {} tokens in the shuffle buffer before the first step, nothing on disk but {} tokens held out",
        grouped(config.tokens),
        layers,
        active(config),
        human_seconds(seconds),
        grouped(buffer),
        grouped(held_out as u64),
    )
}
