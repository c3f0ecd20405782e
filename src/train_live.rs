//! `refract train` without `--activations`: the model runs while the SAE learns.

use std::path::Path;

use anyhow::ensure;
use harvester::{Checkpoint, HarvestConfig, HookPoint, ModelConfig, harvest::open_corpus, model_source::ModelSource};
use trainer::{SaeManifest, TrainConfig, manifest::HELD_OUT_FOLDER};

use crate::{
    cli::LiveArgs,
    harvest::{self, forward_efficiency},
    settings,
    terminal::{Terminal, grouped, human_seconds},
    train::{STEP_EFFICIENCY, say_beginning},
};

/// Says what will be needed and trains.
pub(crate) fn train(
    live: &LiveArgs,
    train_config: &TrainConfig,
    file: Option<&Path>,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let settings: harvest::Settings = settings::resolve("harvest", live, file)?;
    let model = settings.model.parse::<ModelSource>()?.resolve(terminal)?;
    let shape = Checkpoint::open(&model.path)?.config().clone();
    let mut harvest_config = settings.config(&shape)?;
    harvest_config.hook_points.retain(|point| train_config.hook_point.is_none_or(|wanted| wanted == *point));
    if let (true, Some(point)) = (harvest_config.hook_points.is_empty(), train_config.hook_point) {
        point.check(&shape)?;
        harvest_config.hook_points = vec![point];
    }
    let [point] = harvest_config.hook_points[..] else {
        anyhow::bail!("train needs --hook-point, one place in the model, such as blocks.14.hook_resid_post");
    };
    ensure!(
        harvest_config.part.is_none(),
        "`part` of [harvest] is for harvests that are merged: train on all of the corpus"
    );
    // Where the held-out contexts are harvested into: a run that goes on reads what that read.
    let held_out = out.join(HELD_OUT_FOLDER);
    let corpus = open_corpus(&settings.corpus, &settings.corpus_options()?, &held_out.as_path().into(), None)?;
    say_beginning(out, || needs(&shape, point, &harvest_config, train_config), terminal)?;
    let config = TrainConfig { hook_point: Some(point), ..train_config.clone() };
    Ok(trainer::train_live(&model, corpus, &harvest_config, &config, out, terminal)?)
}

/// The first line of a run: what it will take.
fn needs(shape: &ModelConfig, point: HookPoint, harvest: &HarvestConfig, config: &TrainConfig) -> String {
    let d_in = point.width(shape);
    let d_sae = config.d_sae.unwrap_or(config.expansion_factor.saturating_mul(d_in));
    let forward =
        shape.flop_per_token(point.layers_needed(), harvest.ctx_len) as f64 / forward_efficiency(harvest.compute);
    let step = 2.0 * d_in as f64 * d_sae as f64 / STEP_EFFICIENCY;
    let buffer = config.buffer_rows(harvest.dtype.row_bytes(d_in));
    let held_out = (config.tokens as f64 * config.held_out_fraction).ceil();
    // The buffer is filled whole, also the last time.
    let computed = config.rows_drawn().div_ceil(buffer.max(1)) as f64 * buffer as f64 + held_out;
    let seconds = (computed * forward + config.tokens as f64 * step) / harvester::machine::gemm_flops();
    format!(
        "{} tokens through {} layers and into an SAE, d_in {d_in}, d_sae {d_sae}, k {}: about {}, \
         {} tokens in the shuffle buffer before the first step, nothing on disk but {} tokens held out",
        grouped(config.tokens),
        point.layers_needed(),
        config.k,
        human_seconds(seconds),
        grouped(buffer),
        grouped(held_out as u64),
    )
}
