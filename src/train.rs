//! `refract train`.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::bail;
use harvester::{Monitor, human::grouped};
use trainer::{HELD_OUT_FOLDER, SaeManifest, TrainConfig, TrainData};

use crate::{
    cli::{HarvestArgs, LiveArgs, TrainArgs, required},
    settings::{of_args, parse},
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
        None if !args.live.corpus.is_empty() => train_live(args.live.as_harvest(file), &config, &out, terminal)?,
        None => bail!(
            "train needs `activations` (the folder of refract harvest), `corpus` (text for a running model) or \
             `vectors` (parquet files of any tool)"
        ),
    };
    report(&manifest, &out, terminal);
    let (hook_point, held_out, results) = (manifest.config.hook_points.first(), &manifest.held_out, &manifest.results);
    terminal
        .json(&serde_json::json!({ "out": out, "hook_point": hook_point, "held_out": held_out, "results": results }))
}

impl LiveArgs {
    /// The command of `refract harvest` with the same model, corpus and settings.
    fn as_harvest(&self, file: Option<PathBuf>) -> Vec<OsString> {
        let flag = |name: &str, value: &dyn AsRef<std::ffi::OsStr>| {
            let mut word = OsString::from(format!("--{name}="));
            word.push(value);
            word
        };
        let mut words = vec!["refract".into(), "harvest".into()];
        words.extend(file.map(|file| flag("config", &file)));
        words.extend(self.model.iter().map(|model| flag("model", model)));
        words.extend(self.corpus.iter().map(|path| flag("corpus", path)));
        words.extend(self.ctx_len.map(|ctx_len| flag("ctx-len", &ctx_len.to_string())));
        words.extend(self.compute.map(|compute| flag("compute", &compute.to_string())));
        words
    }
}

/// Trains on a running model, with what the command line of a harvest says.
fn train_live(
    harvest: Vec<OsString>,
    config: &TrainConfig,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<SaeManifest> {
    let args: HarvestArgs = parse(harvest)?;
    let model = args.model(terminal)?;
    let harvest = args.config(model.config())?;
    // The folder of the held-out contexts: a resumed run reads the corpus as that harvest did.
    let corpus = args.corpus(&out.join(HELD_OUT_FOLDER).as_path().into())?;
    Ok(trainer::train_live(&model, corpus, &harvest, config, out, terminal)?)
}

/// Prints the results of training.
fn report(manifest: &SaeManifest, out: &Path, terminal: &Terminal) {
    let (config, Some(results)) = (&manifest.config, &manifest.results) else { return };
    let (arch, sparsity, place) = (config.architecture, config.sparsity(), manifest.place());
    terminal.line(format!("{}: {arch}, {sparsity}, {place}, after {} tokens", out.display(), grouped(results.tokens)));
    if let Some(held_out) = &results.held_out {
        let dead = match results.tokens < config.dead_after_tokens {
            true => "fewer tokens than --dead-after-tokens, too few to tell dead latents".to_string(),
            false => format!("{} dead latents", results.dead),
        };
        terminal.line(format!("held out: L0 {:.1}, FVU {:.3}; {dead}", held_out.l0, held_out.fvu));
    }
    results.doubts(config).iter().for_each(|doubt| terminal.say(doubt));
}
