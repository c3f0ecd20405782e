//! `refract train`.

use std::path::{Path, PathBuf};

use anyhow::bail;
use harvester::Monitor;
use trainer::{HELD_OUT_FOLDER, SaeManifest, TrainConfig, TrainData};

use crate::{
    cli::{HarvestArgs, TrainArgs, required, usage},
    settings::{self, of_args},
    terminal::Terminal,
};

/// `file` has settings of harvest, for training on a running model.
pub(crate) fn run(args: &TrainArgs, file: Option<PathBuf>, terminal: &Terminal) -> anyhow::Result<()> {
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
