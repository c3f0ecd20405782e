//! `refract train` and `refract evaluate`.

use std::path::{Path, PathBuf};

use analyzer::{Evaluation, EvaluationConfig, LanguageModel};
use anyhow::{Context, bail};
use harvester::{ActivationDataset, HookPoint, Location, StorageDtype, VectorDataset};
use serde::{Deserialize, Serialize};
use trainer::{SaeManifest, TrainArchitecture, TrainConfig};

use crate::{
    cli::{EvaluateArgs, TrainArgs},
    placed::{SaeArgs, is_trained_on},
    settings,
    terminal::{DIM, Terminal, grouped, human_bytes, human_seconds},
    train_live,
};

/// The flags and the config file, resolved.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Settings {
    activations: Option<PathBuf>,
    vectors: Option<PathBuf>,
    column: Option<String>,
    out: Option<PathBuf>,
    arch: TrainArchitecture,
    hook_point: HookPoints,
    target_hook_point: Option<HookPoint>,
    k: usize,
    d_sae: Option<usize>,
    expansion: usize,
    tokens: u64,
    batch: usize,
    lr: f64,
    warmup: f64,
    decay: f64,
    clip: Option<f64>,
    auxk_alpha: f64,
    dead_after_tokens: u64,
    held_out_fraction: f64,
    seed: u64,
    buffer_mib: u64,
    checkpoint_every: u64,
    keep_checkpoints: usize,
}

/// `hook-point = "a"` or `hook-point = ["a", "b"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum HookPoints {
    One(HookPoint),
    Several(Vec<HookPoint>),
}

impl HookPoints {
    fn as_slice(&self) -> &[HookPoint] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        let config = TrainConfig::default();
        Self {
            activations: None,
            vectors: None,
            column: None,
            out: None,
            arch: config.architecture,
            hook_point: HookPoints::Several(vec![]),
            target_hook_point: config.target_hook_point,
            k: config.k,
            d_sae: config.d_sae,
            expansion: config.expansion_factor,
            tokens: config.tokens,
            batch: config.batch,
            lr: config.lr,
            warmup: config.warmup,
            decay: config.decay,
            clip: config.clip,
            auxk_alpha: config.auxk_alpha,
            dead_after_tokens: config.dead_after_tokens,
            held_out_fraction: config.held_out_fraction,
            seed: config.seed,
            buffer_mib: config.buffer_bytes >> 20,
            checkpoint_every: config.checkpoint_every,
            keep_checkpoints: config.keep_checkpoints,
        }
    }
}

impl Settings {
    /// Of two settings that exclude each other, the one given as a flag wins over the file's.
    fn settle(&mut self, args: &TrainArgs) {
        if args.expansion.is_some() {
            self.d_sae = None;
        }
        if !args.live.corpus.is_empty() {
            (self.activations, self.vectors) = (None, None);
        }
        if args.activations.is_some() {
            self.vectors = None;
        }
        if args.vectors.is_some() {
            self.activations = None;
        }
    }

    fn config(&self) -> anyhow::Result<TrainConfig> {
        Ok(TrainConfig {
            architecture: self.arch,
            hook_point: self.hook_point.as_slice().first().copied(),
            hook_points: if let [_, _, ..] = self.hook_point.as_slice() {
                self.hook_point.as_slice().to_vec()
            } else {
                vec![]
            },
            target_hook_point: self.target_hook_point,
            d_sae: self.d_sae,
            expansion_factor: self.expansion,
            k: self.k,
            tokens: self.tokens,
            batch: self.batch,
            lr: self.lr,
            warmup: self.warmup,
            decay: self.decay,
            clip: self.clip.filter(|clip| *clip != 0.0),
            auxk_alpha: self.auxk_alpha,
            dead_after_tokens: self.dead_after_tokens,
            held_out_fraction: self.held_out_fraction,
            seed: self.seed,
            buffer_bytes: settings::mib("buffer-mib", self.buffer_mib)?,
            checkpoint_every: self.checkpoint_every,
            keep_checkpoints: self.keep_checkpoints,
            ..TrainConfig::default()
        })
    }
}

pub(crate) fn run(args: &TrainArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let mut settings: Settings = settings::resolve("train", args, config)?;
    settings.settle(args);
    let train_config = settings.config()?;
    let out = settings.out.clone().context("train needs --out: the folder to write")?;
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
    say_beginning(out, || needs(&Rows::harvested(&dataset, config), config), terminal)?;
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
    let rows = Rows { n: dataset.n_rows(), d_in: dataset.width(), dtype: dataset.dtype(), made: "there" };
    say_beginning(out, || needs(&rows, config), terminal)?;
    Ok(trainer::train_vectors(&dataset, config, out, terminal)?)
}

/// Says where a run begins, and what it will take where it begins at nothing.
pub(crate) fn say_beginning(out: &Path, needs: impl FnOnce() -> String, terminal: &Terminal) -> anyhow::Result<()> {
    let needs = || format!("{}\ncurves, in a browser: {}", needs(), out.join(trainer::CURVES_FILE).display());
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
    let (arch, k) = (manifest.config.architecture, manifest.config.k);
    let place = match (manifest.hook_point, &manifest.vectors) {
        (Some(hook_point), _) => format!("at {hook_point}"),
        (None, Some(vectors)) => format!("on `{}`", vectors.column),
        (None, None) => "on activations".to_string(),
    };
    terminal.line(format!("{}: {arch}, k {k}, {place}, after {} tokens", out.display(), grouped(results.tokens)));
    if let Some(held_out) = &results.held_out {
        terminal
            .line(format!("held out: L0 {:.1}, FVU {:.3}; {} dead latents", held_out.l0, held_out.fvu, results.dead));
    }
}

/// The score and what it says, which is nothing where the loss does not rise without the activation.
fn score_note(score: Option<f64>, without: f64, ablated: f64) -> String {
    match score {
        Some(score) if ablated > without => format!("{score:.3} of what zero ablation destroys is kept"),
        Some(_) => "none: zero ablation lowers the loss here, so nothing is destroyed".to_string(),
        None => "none: zero ablation changes nothing here".to_string(),
    }
}

/// Share of the encoder's floor that a whole training step reaches (`just bench`).
pub(crate) const STEP_EFFICIENCY: f64 = 0.6;

/// What there is to train on.
struct Rows {
    n: u64,
    /// Width of all inputs together.
    d_in: usize,
    dtype: StorageDtype,
    made: &'static str,
}

impl Rows {
    fn harvested(dataset: &ActivationDataset, config: &TrainConfig) -> Self {
        let named = config.named_hook_points();
        let inputs = &named[..named.len() - usize::from(config.target_hook_point.is_some())];
        let summaries = dataset.manifest().hook_points.iter();
        let chosen = summaries.filter(|summary| inputs.is_empty() || inputs.contains(&summary.name));
        let widths = chosen.map(|summary| summary.d_model).take(inputs.len().max(1));
        Self { n: dataset.n_rows(), d_in: widths.sum(), dtype: dataset.manifest().config.dtype, made: "harvested" }
    }
}

/// The first line of a run: what it will take.
fn needs(rows: &Rows, config: &TrainConfig) -> String {
    let Rows { n, d_in, dtype, made } = *rows;
    let d_sae = config.d_sae.unwrap_or(config.expansion_factor.saturating_mul(d_in));
    let flop = 2.0 * d_in as f64 * d_sae as f64 * config.tokens as f64;
    let seconds = flop / harvester::machine::gemm_flops() / STEP_EFFICIENCY;
    // Weights and two moments, pre-activations of a batch, activations in the buffer.
    let data = n * (d_in * dtype.bytes()) as u64;
    let memory = (24.0 * d_in as f64 + 4.0 * config.batch as f64) * d_sae as f64;
    format!(
        "{} tokens ({} {made}), d_in {d_in}, d_sae {d_sae}, k {}: about {}, {} of memory",
        grouped(config.tokens),
        grouped(n),
        config.k,
        human_seconds(seconds),
        human_bytes((memory as u64).saturating_add(data.min(config.buffer_bytes))),
    )
}

/// [`EvaluationConfig`] under the names of the flags.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct EvaluateSettings {
    ce_tokens: u64,
}

impl Default for EvaluateSettings {
    fn default() -> Self {
        Self { ce_tokens: EvaluationConfig::default().ce_tokens }
    }
}

pub(crate) fn evaluate(args: &EvaluateArgs, config: Option<&Path>, terminal: &Terminal) -> anyhow::Result<()> {
    let EvaluateSettings { ce_tokens } = settings::resolve("evaluate", args, config)?;
    let sae = SaeArgs { sae: &args.sae, activations: args.activations.as_deref(), hook_point: args.hook_point };
    let evaluation = measure(sae, &EvaluationConfig { ce_tokens }, terminal)?;
    print(&evaluation, terminal);
    terminal.json(&evaluation)
}

/// Evaluates an SAE on the contexts that its manifest holds out.
pub(crate) fn measure(sae: SaeArgs<'_>, config: &EvaluationConfig, terminal: &Terminal) -> anyhow::Result<Evaluation> {
    let (placed, dataset) = sae.open()?;
    // Of other activations nothing was trained on.
    let held_out = match &placed.manifest {
        Some(manifest) if is_trained_on(manifest, &dataset)? => manifest.held_out.clone(),
        _ => 0..dataset.context_end(),
    };
    anyhow::ensure!(
        !held_out.is_empty(),
        "{} was trained with --held-out-fraction 0 or so few contexts that none was held out: name other --activations",
        sae.sae.display()
    );
    anyhow::ensure!(config.ce_tokens > 0, "--ce-tokens: expected 1 or more, found 0");
    placed.sae.config.check_autoencoder()?;
    let model = LanguageModel::load(&placed.model, terminal)?;
    Ok(analyzer::evaluate(&model, placed.site(), &dataset, held_out, config, terminal)?)
}

pub(crate) fn print(evaluation: &Evaluation, terminal: &Terminal) {
    let fact = |name: &str, value: String| terminal.line(format!("  {DIM}{name:22}{DIM:#} {value}"));
    fact("L0", format!("{:.1} latents a token", evaluation.reconstruction.l0));
    let explained = 100.0 * evaluation.reconstruction.explained_variance;
    fact("FVU", format!("{:.3} ({explained:.1} % of the variance explained)", evaluation.reconstruction.fvu));
    fact(
        "CE loss score",
        score_note(evaluation.ce_loss_score, evaluation.ce_loss_without_sae, evaluation.ce_loss_with_ablation),
    );
    fact(
        "CE loss",
        format!(
            "{:.3} without the SAE, {:.3} with it, {:.2} ablated (nats a token)",
            evaluation.ce_loss_without_sae, evaluation.ce_loss_with_sae, evaluation.ce_loss_with_ablation
        ),
    );
    fact("KL", format!("{:.3} nats from the model's own next token", evaluation.kl));
    let silent = 1.0 - evaluation.reconstruction.frac_alive;
    fact(
        "silent latents",
        format!(
            "{:.0} of {} ({:.1} %) on {} held-out tokens",
            silent * evaluation.d_sae as f64,
            grouped(evaluation.d_sae),
            100.0 * silent,
            grouped(evaluation.reconstruction.tokens)
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_where_ablation_does_no_harm_is_none() {
        let note = |without: f64, with: f64, ablated: f64| {
            score_note((ablated != without).then(|| (ablated - with) / (ablated - without)), without, ablated)
        };
        assert_eq!(note(3.0, 4.0, 13.0), "0.900 of what zero ablation destroys is kept");
        assert!(note(3.0, 3.5, 2.0).starts_with("none: zero ablation lowers the loss"));
        assert!(note(3.0, 3.5, 3.0).starts_with("none: zero ablation changes nothing"));
    }
}
