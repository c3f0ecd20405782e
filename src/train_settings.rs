//! [`Settings`] of `refract train`: the flags and the config file, resolved, and what they make of a [`TrainConfig`].
//! An option that the architecture has no use for is refused, wherever it was given.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use harvester::HookPoint;
use serde::Deserialize;
use trainer::{AdamConfig, JumpReluLoss, TrainArchitecture, TrainConfig};

use crate::{cli::TrainArgs, settings};

/// Names are those of the flags. What is `None` was not given, and has [`TrainConfig`]'s default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Settings {
    pub(crate) activations: Option<PathBuf>,
    pub(crate) vectors: Option<PathBuf>,
    pub(crate) column: Option<String>,
    pub(crate) out: Option<PathBuf>,
    #[serde(alias = "architecture")]
    arch: Option<TrainArchitecture>,
    hook_point: HookPoints,
    target_hook_point: Option<HookPoint>,
    k: Option<usize>,
    d_sae: Option<usize>,
    #[serde(alias = "expansion-factor")]
    expansion: Option<usize>,
    #[serde(alias = "l1-coefficient", alias = "l0-coefficient")]
    sparsity_coefficient: Option<f64>,
    sparsity_warmup: Option<f64>,
    jumprelu_loss: Option<JumpReluLoss>,
    bandwidth: Option<f64>,
    prefixes: Option<Vec<usize>>,
    skip: Option<bool>,
    tokens: Option<u64>,
    batch: Option<usize>,
    lr: Option<f64>,
    warmup: Option<f64>,
    decay: Option<f64>,
    optimizer: Option<Optimizer>,
    weight_decay: Option<f64>,
    clip: Option<f64>,
    auxk_alpha: Option<f64>,
    k_aux: Option<usize>,
    dead_after_tokens: Option<u64>,
    held_out_fraction: Option<f64>,
    seed: Option<u64>,
    buffer_mib: Option<u64>,
    checkpoint_every: Option<u64>,
    keep_checkpoints: Option<usize>,
    init_from: Option<PathBuf>,
}

/// The names of `--optimizer`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Optimizer {
    Nadam,
    Adam,
}

/// `hook-point = "a"` or `hook-point = ["a", "b"]`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum HookPoints {
    One(HookPoint),
    Several(Vec<HookPoint>),
}

impl Default for HookPoints {
    fn default() -> Self {
        Self::Several(vec![])
    }
}

impl HookPoints {
    fn as_slice(&self) -> &[HookPoint] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Several(several) => several,
        }
    }
}

impl Settings {
    /// Of two settings that exclude each other, the one given as a flag wins over the file's.
    pub(crate) fn settle(&mut self, args: &TrainArgs) {
        if args.expansion.is_some() {
            self.d_sae = None;
        }
        if args.d_sae.is_some() {
            self.expansion = None;
        }
        let (live, harvested) = (!args.live.corpus.is_empty(), args.run.activations.is_some());
        if live {
            self.activations = None;
        }
        if (live || harvested) && self.vectors.take().is_some() {
            // The file's column was one of the file's vectors.
            self.column.clone_from(&args.run.column);
        }
        if args.run.vectors.is_some() {
            self.activations = None;
        }
    }

    /// Refuses a column of vectors where there are none.
    pub(crate) fn check_column(column: Option<&str>, vectors: Option<&Path>) -> anyhow::Result<()> {
        anyhow::ensure!(
            column.is_none() || vectors.is_some(),
            "--column has no effect without --vectors, which it is of"
        );
        Ok(())
    }

    /// What to train and how.
    ///
    /// # Errors
    /// An option that has no effect, or not as many hook points as the architecture needs.
    pub(crate) fn config(&self) -> anyhow::Result<TrainConfig> {
        let default = TrainConfig::default();
        let hook_points = self.hook_point.as_slice();
        let buffer_mib = self.buffer_mib.unwrap_or(default.buffer_bytes >> 20);
        let config = TrainConfig {
            architecture: self.arch.unwrap_or(default.architecture),
            hook_point: hook_points.first().copied(),
            hook_points: if hook_points.len() > 1 { hook_points.to_vec() } else { vec![] },
            target_hook_point: self.target_hook_point,
            d_sae: self.d_sae,
            expansion_factor: self.expansion.unwrap_or(default.expansion_factor),
            k: self.k.unwrap_or(default.k),
            sparsity_coefficient: self.sparsity_coefficient,
            sparsity_warmup: self.sparsity_warmup.unwrap_or(default.sparsity_warmup),
            jumprelu_loss: self.jumprelu_loss.unwrap_or(default.jumprelu_loss),
            bandwidth: self.bandwidth.unwrap_or(default.bandwidth),
            prefixes: self.prefixes.clone().unwrap_or(default.prefixes),
            skip: self.skip.unwrap_or(default.skip),
            tokens: self.tokens.unwrap_or(default.tokens),
            batch: self.batch.unwrap_or(default.batch),
            lr: self.lr,
            warmup: self.warmup.unwrap_or(default.warmup),
            decay: self.decay.unwrap_or(default.decay),
            adam: AdamConfig { nesterov: self.optimizer != Some(Optimizer::Adam), ..default.adam },
            weight_decay: self.weight_decay,
            clip: self.clip.or(default.clip).filter(|clip| *clip != 0.0),
            auxk_alpha: self.auxk_alpha.unwrap_or(default.auxk_alpha),
            k_aux: self.k_aux,
            dead_after_tokens: self.dead_after_tokens.unwrap_or(default.dead_after_tokens),
            held_out_fraction: self.held_out_fraction.unwrap_or(default.held_out_fraction),
            seed: self.seed.unwrap_or(default.seed),
            buffer_bytes: settings::mib("buffer-mib", buffer_mib)?,
            checkpoint_every: self.checkpoint_every.unwrap_or(default.checkpoint_every),
            keep_checkpoints: self.keep_checkpoints.unwrap_or(default.keep_checkpoints),
            log_every: default.log_every,
            init_from: self.init_from.clone(),
        };
        self.refuse_unused(config.architecture)?;
        if self.vectors.is_some() && !config.architecture.maps_one_column() {
            let arch = config.architecture;
            bail!("--arch {arch} is of several places of a model, which --vectors have not: it needs --activations");
        }
        config.check_columns()?;
        Ok(config)
    }

    /// Refuses what was given and would do nothing.
    fn refuse_unused(&self, arch: TrainArchitecture) -> anyhow::Result<()> {
        use TrainArchitecture::{Dense, JumpRelu, Matryoshka, Transcoder};
        let (adapted, fixed) = ("relu, gated and jumprelu", self.sparsity_coefficient.is_some());
        let sparse = "every architecture but dense, none of whose latents can be silent";
        let options = [
            ("sparsity-coefficient", fixed, arch.has_sparsity_loss(), adapted),
            ("sparsity-warmup", self.sparsity_warmup.is_some(), arch.has_sparsity_loss(), adapted),
            ("jumprelu-loss", self.jumprelu_loss.is_some(), arch == JumpRelu, "jumprelu"),
            ("bandwidth", self.bandwidth.is_some(), arch == JumpRelu, "jumprelu"),
            ("prefixes", self.prefixes.is_some(), arch == Matryoshka, "matryoshka"),
            ("skip", self.skip.is_some(), arch == Transcoder, "transcoder"),
            ("auxk-alpha", self.auxk_alpha.is_some(), arch != Dense, sparse),
            ("k-aux", self.k_aux.is_some(), arch != Dense, sparse),
            ("dead-after-tokens", self.dead_after_tokens.is_some(), arch != Dense, sparse),
            ("expansion", self.expansion.is_some(), arch != Dense, "every architecture but dense, which has k latents"),
        ];
        if let Some((name, _, _, used_by)) = options.into_iter().find(|(_, given, used, _)| *given && !used) {
            bail!("--{name} has no effect on {arch}: it is an option of {used_by}");
        }
        let pairs = [
            (
                "sparsity-warmup",
                self.sparsity_warmup.is_some() && !fixed,
                "without --sparsity-coefficient: else the weight is adapted",
            ),
            ("expansion", self.expansion.is_some() && self.d_sae.is_some(), "with --d-sae"),
            (
                "expansion",
                self.expansion.is_some() && self.init_from.is_some(),
                "with --init-from: there are as many latents as that SAE has",
            ),
            ("k-aux", self.k_aux.is_some() && self.auxk_alpha == Some(0.0), "with --auxk-alpha 0"),
            (
                "k",
                self.k.is_some() && self.d_sae.is_some() && arch == Dense,
                "on dense with --d-sae: all latents are active",
            ),
        ];
        match pairs.into_iter().find(|(_, useless, _)| *useless) {
            Some((name, _, why)) => bail!("--{name} has no effect {why}"),
            None => Ok(()),
        }
    }

    /// The folder to write.
    pub(crate) fn out(&self) -> anyhow::Result<PathBuf> {
        self.out.clone().context("train needs --out: the folder to write")
    }
}
