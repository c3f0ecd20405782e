//! [`train_live`]: trains an SAE on the activations of a running model, which arrive through a bounded channel and are
//! not written to disk. It is the loop of [`crate::train()`] with another source.

use std::{path::Path, sync::Arc};

use harvester::{
    ActivationDataset, Corpus, HarvestConfig, HarvestManifest, HookPoint, LanguageModel, LiveModel, Manifest, Monitor,
    OutputFolder,
};

use crate::{
    Error, Result, TrainConfig,
    config::Resolved,
    data::{
        harvested_data::HarvestedData,
        live_source::{LiveRows, LiveSource},
        standardize::Standard,
    },
    manifest::{HELD_OUT_FOLDER, SaeManifest, option_differences},
    run::{Run, estimate, score::curve_rows, train::resolve_widths},
    sae::HookPoints,
};

/// Trains an SAE on the activations of a running model into the folder `out`, without writing the activations to disk.
/// The first contexts, a share of `held_out_fraction` of `tokens` or of the corpus if that is smaller, are harvested into `out/held-out`. They are never trained on;
/// the mean and the attention sinks are measured on them, and evaluation and the index can use them like any folder of
/// activations. Resumes like [`crate::train()`].
///
/// # Errors
/// As [`crate::train()`], or when the model or the corpus cannot be used.
pub fn train_live(
    model: &LanguageModel,
    corpus: Corpus,
    harvest_config: &HarvestConfig,
    config: &TrainConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<SaeManifest> {
    let (harvest_config, hook_points, widths) = live_config(model, config, harvest_config)?;
    let corpus = Arc::new(corpus);
    let all = HarvestConfig { tokens: None, ..harvest_config.clone() };
    let corpus_tokens = LiveModel::new(model, corpus.clone(), &all)?.estimated_tokens()?;
    let held_out_tokens = held_out_tokens(config, corpus_tokens)?;
    let held_out_config = HarvestConfig { tokens: Some(held_out_tokens), ..harvest_config };
    // Invalid configs are refused before minutes of harvesting.
    let resolved = resolve_widths(config, hook_points.clone(), widths)?;
    let folder = OutputFolder::open(out)?;
    let earlier = earlier_run(&folder, &resolved)?;
    let estimate = || estimate::of_live(&resolved, model.config(), &held_out_config, held_out_tokens);
    estimate::say_beginning(earlier.as_ref(), (config, &resolved), out, estimate, monitor)?;
    let dataset = hold_out(model, &corpus, &held_out_config, &out.join(HELD_OUT_FOLDER), monitor)?;
    let data = HarvestedData::new(&dataset, hook_points);
    let manifest = folder.begin(SaeManifest::begin_live(&dataset, &data, &resolved, out)?)?;
    if manifest.is_finished(out)? {
        return Ok(manifest);
    }
    folder.keep_command(monitor.command())?;
    let rows = live_rows(&dataset, &manifest, &resolved)?;
    let live = LiveModel::new(model, corpus, &held_out_config)?;
    let (training_rows, held_out) = (resolved.config.tokens, data.all()?);
    let batch = resolved.config.batch;
    let curve_rows = curve_rows(held_out.as_ref(), batch, &Standard::of(&data)?.scales)?;
    let run = Run::open(&data, &manifest, resolved, curve_rows, out, monitor)?;
    let progress = run.progress();
    let drawn = progress.step * batch as u64;
    let source = LiveSource::new(&live, rows, (progress.cursor, drawn), out, monitor);
    let manifest = run.complete(manifest, source, training_rows, held_out.as_ref())?;
    folder.keep_command(None)?;
    Ok(manifest)
}

/// The earlier run in a folder. Refuses the folder of another run, as far as this can be known before the held-out
/// activations exist.
fn earlier_run(folder: &OutputFolder, resolved: &Resolved) -> Result<Option<SaeManifest>> {
    let Some(found) = folder.find::<SaeManifest>()? else { return Ok(None) };
    let mut differences = option_differences(&found.config, &resolved.config);
    if found.live_from.is_none() {
        differences.push("rows: from a folder or a file there, from a running model here".into());
    }
    match differences.is_empty() {
        true => Ok(Some(found)),
        false if found.is_begun(folder)? => {
            Err(harvester::Error::OtherRun { place: folder.location().to_string(), differences }.into())
        }
        false => Ok(None),
    }
}

/// The hook points that the model runs for, and no others: those named for training, else the one named for harvesting;
/// and the width of each column of a row.
fn live_config(
    model: &LanguageModel,
    config: &TrainConfig,
    harvest_config: &HarvestConfig,
) -> Result<(HarvestConfig, HookPoints, Vec<usize>)> {
    if let Some(part) = harvest_config.part {
        return Err(Error::invalid(
            "`part`",
            "none: only harvests are merged, so train on all of the corpus",
            part.to_string(),
        ));
    }
    let width_of = |point: HookPoint| {
        point.check(model.config())?;
        Ok(point.width(model.config()))
    };
    let hook_points = config.hook_points_among(&harvest_config.hook_points, width_of)?;
    let widths = hook_points.columns().into_iter().map(width_of).collect::<Result<_>>()?;
    Ok((HarvestConfig { hook_points: hook_points.columns(), ..harvest_config.clone() }, hook_points, widths))
}

/// The rows to stream; their statistics come from the held-out activations.
fn live_rows(dataset: &ActivationDataset, manifest: &SaeManifest, resolved: &Resolved) -> Result<LiveRows> {
    let harvest = &dataset.manifest;
    let hook_points = resolved.hook_points.columns();
    let sink_norms: Vec<f32> =
        hook_points.iter().map(|point| Ok(harvest.hook_point(*point)?.sink_norm)).collect::<Result<_>>()?;
    let row_bytes = resolved.widths.iter().map(|width| harvest.config.dtype.row_bytes(*width)).sum();
    Ok(LiveRows {
        hook_points,
        widths: resolved.widths.clone(),
        sink_norms,
        first: manifest.live_from.unwrap_or_default(),
        block_rows: resolved.config.buffer_rows(row_bytes),
        rows_drawn: resolved.config.rows_drawn(),
    })
}

/// Tokens of the contexts that a live run holds out. Training tokens may be several passes over the corpus.
fn held_out_tokens(config: &TrainConfig, corpus_tokens: u64) -> Result<u64> {
    let tokens = (config.tokens.min(corpus_tokens) as f64 * config.held_out_fraction).ceil();
    if tokens >= 1.0 {
        return Ok(tokens as u64);
    }
    let expected = "above 0: the activations' mean and their sinks are measured on held-out contexts";
    Err(Error::invalid("`held_out_fraction`", expected, config.held_out_fraction.to_string()))
}

/// Harvests the held-out contexts, or opens them if they exist.
fn hold_out(
    model: &LanguageModel,
    corpus: &Corpus,
    config: &HarvestConfig,
    dir: &Path,
    monitor: &dyn Monitor,
) -> Result<ActivationDataset> {
    // A larger number of tokens would extend the folder and so change it for the run that began with it.
    if let Ok(found) = HarvestManifest::read(dir) {
        let tokens = |config: &HarvestConfig| config.tokens.unwrap_or_default();
        let mut lines = harvester::differences("tokens held out", &tokens(&found.config), &tokens(config));
        // A block ends with a forward pass, so that the order of the rows depends on it.
        lines.extend(harvester::differences("`batch` of the harvest", &found.config.batch, &config.batch));
        if !lines.is_empty() {
            return Err(harvester::Error::OtherRun { place: dir.display().to_string(), differences: lines }.into());
        }
    }
    harvester::harvest(model, corpus, config, dir, monitor)?;
    Ok(ActivationDataset::open(dir)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn several_passes_hold_out_no_more_than_a_share_of_the_corpus() {
        let held_out = |tokens| {
            let config = TrainConfig { tokens, held_out_fraction: 0.05, ..TrainConfig::default() };
            held_out_tokens(&config, 300_000).unwrap()
        };
        assert_eq!([100_000, 300_000, 3_000_000, 6_000_000].map(held_out), [5_000, 15_000, 15_000, 15_000]);
    }
}
