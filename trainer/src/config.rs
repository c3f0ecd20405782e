//! [`TrainConfig`]: the settings of a training run. All of them except `FREE_OPTIONS` (`manifest`) change the result,
//! so the resolved config is stored in the manifest, and a run can only be continued with the same config. The defaults
//! were chosen by measurement; the tables are in this crate's README.

use std::path::PathBuf;

use harvester::HookPoint;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    sae::{HookPoints, Sae},
    step::{
        adam::AdamConfig,
        architecture::{JumpReluLoss, TrainArchitecture},
        config::StepConfig,
    },
};

mod check;
mod hook_points;
mod memory;
mod settings;

pub(crate) use self::{check::check_memory, memory::memory_bytes, settings::recorded};

/// The settings of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainConfig {
    /// Default `batch-topk`.
    pub architecture: TrainArchitecture,
    /// The hook points to read: one, or several for a crosscoder. Default: the only hook point in the folder.
    pub hook_points: Vec<HookPoint>,
    /// The hook point that a transcoder predicts from the one it reads. Default: none.
    pub target_hook_point: Option<HookPoint>,
    /// Number of latents. Default: that of the SAE in `init_from` if given, else `expansion_factor` times the width of
    /// the activations.
    pub d_sae: Option<usize>,
    /// Number of latents per dimension of the activations. Default 8. Unused if `d_sae` is given.
    pub expansion_factor: usize,
    /// Active latents per token: exactly (`topk`), on average (the BatchTopK family), or as the target to which the
    /// weight of the sparsity loss is adapted (`relu`, `gated`, `jumprelu`). For `dense`, the number of latents if
    /// `d_sae` is not given. Default: that of the SAE in `init_from` if given and known, else 32.
    pub k: usize,
    /// Weight of the sparsity loss: L1 of `relu` and `gated`, L0 (or tanh) of `jumprelu`, per token and in training
    /// units. Default: adapted during training so that L0 approaches k.
    pub sparsity_coefficient: Option<f64>,
    /// Share of the steps over which a given weight of the sparsity loss rises from 0. Default 0.05 (Anthropic, April
    /// 2024).
    pub sparsity_warmup: f64,
    /// Sparsity loss of `jumprelu`. Default `step`.
    pub jumprelu_loss: JumpReluLoss,
    /// Width of the window around a `jumprelu` threshold from which it learns, in training units. Default 0.5.
    pub bandwidth: f64,
    /// Sizes of the prefixes of a `matryoshka` dictionary, in latents; the whole dictionary is added if it is missing.
    /// Default: 1/16, 1/4, 1/2 and all of it.
    pub prefixes: Vec<usize>,
    /// True if a `transcoder` has a skip connection. Default false.
    pub skip: bool,
    /// Training tokens; more than the dataset has means several epochs. Default 1,500,000.
    pub tokens: u64,
    /// Tokens per step, two or more. Default 4,096.
    pub batch: usize,
    /// Peak learning rate. Default 4e-3 at 4,608 latents, at most 1e-2: it is proportional to 1 / sqrt(latents), as in
    /// dictionary_learning and sparsify.
    pub lr: Option<f64>,
    /// Share of the steps over which the learning rate rises. Default 0.15.
    pub warmup: f64,
    /// Share of the steps, at the end, over which the learning rate falls to zero. Default 0.2.
    pub decay: f64,
    /// Constants of the optimizer.
    pub adam: AdamConfig,
    /// Weight decay of the encoder: share by which its weights shrink per step, per unit of learning rate. Default:
    /// sqrt(width of the input) / 24, but at most 1 / lr; 0 for `relu` and `gated`, whose own loss shrinks activations,
    /// and for `dense`.
    pub weight_decay: Option<f64>,
    /// Largest norm of the whole gradient; larger gradients are scaled down to it. Otherwise, a few rows with ten times
    /// the usual norm would dominate the second moments for a thousand steps. 0, or `None`: no limit. Default 1.
    pub clip: Option<f64>,
    /// Largest distance of a training row from the mean, as a multiple of the root mean square distance: longer rows are
    /// shortened to it, so that one row does not decide a step. 0, or `None`: no limit. Default `None`.
    pub row_limit: Option<f64>,
    /// Weight of the auxiliary loss, which trains dead latents; 0 turns it off. Default 1/8.
    pub auxk_alpha: f64,
    /// Dead latents per token in the auxiliary loss. Default: half the width of the reconstruction, or all latents if
    /// there are fewer.
    pub k_aux: Option<usize>,
    /// A latent that was not active for this many tokens is dead. Default 100,000.
    pub dead_after_tokens: u64,
    /// Share of the data that is never trained on. Harvested activations: the last contexts. A running model: the first
    /// contexts, as a share of `tokens` or of the corpus, whichever is smaller. Vectors: rows drawn from the seed.
    /// Default 0.05.
    pub held_out_fraction: f64,
    /// Seed of the initial weights and of the order of the tokens. Default 0.
    pub seed: u64,
    /// Largest size, in bytes, of the activations that are held in memory and shuffled together. Default 512 MiB.
    pub buffer_bytes: u64,
    /// Steps between checkpoints. Does not change the result. Default 100.
    pub checkpoint_every: u64,
    /// Number of latest checkpoints to keep. Does not change the result. Default 2.
    pub keep_checkpoints: usize,
    /// Steps between lines of `metrics.jsonl`. Default 10.
    pub log_every: u64,
    /// The SAE to begin from, in any format. It is identified by its content, not its path. Default: random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init_from: Option<PathBuf>,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            architecture: TrainArchitecture::BatchTopK,
            hook_points: vec![],
            target_hook_point: None,
            d_sae: None,
            expansion_factor: 8,
            k: 32,
            sparsity_coefficient: None,
            sparsity_warmup: 0.05,
            jumprelu_loss: JumpReluLoss::Step,
            bandwidth: 0.5,
            prefixes: Vec::new(),
            skip: false,
            tokens: 1_500_000,
            batch: 4096,
            lr: None,
            warmup: 0.15,
            decay: 0.2,
            adam: AdamConfig::default(),
            weight_decay: None,
            clip: Some(1.0),
            row_limit: None,
            auxk_alpha: 1.0 / 8.0,
            k_aux: None,
            dead_after_tokens: 100_000,
            held_out_fraction: 0.05,
            seed: 0,
            buffer_bytes: 512 << 20,
            checkpoint_every: 100,
            keep_checkpoints: 2,
            log_every: 10,
            init_from: None,
        }
    }
}

/// The learning rate that suits `d_sae` latents: 4e-3 at 4,608, where it was measured (the README's table), and 1e-2 at
/// 512 (the table of known features).
pub(crate) fn default_lr(d_sae: usize) -> f64 {
    let lr = 4e-3 * (4608.0 / d_sae.max(1) as f64).sqrt();
    lr.min(1e-2)
}

/// A [`TrainConfig`] that was completed from the activations and checked against them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Resolved {
    /// The config with every `Option` that the activations determine filled in.
    pub(crate) config: TrainConfig,
    /// The hook points that the SAE reads and reconstructs.
    pub(crate) hook_points: HookPoints,
    /// Width of each column: first the inputs', then the target's.
    pub(crate) widths: Vec<usize>,
    /// Width of all inputs together.
    pub(crate) d_in: usize,
    /// Width of the reconstruction: of the target, or of the inputs.
    pub(crate) d_out: usize,
    pub(crate) d_sae: usize,
    pub(crate) k_aux: usize,
    /// Peak learning rate.
    pub(crate) lr: f64,
    pub(crate) weight_decay: f64,
    pub(crate) n_steps: u64,
    /// The SAE to begin from; `None` once the run has begun.
    pub(crate) initial: Option<Sae>,
}

/// Training tokens on which densities are counted, and on which the threshold is calibrated if too few tokens are held
/// out. Also the largest number of held-out tokens on which it is calibrated.
pub(crate) const CALIBRATION_TOKENS: u64 = 32_768;

impl TrainConfig {
    /// The setting that decides how many latents are active, in words.
    pub fn sparsity(&self) -> String {
        match self.sparsity_coefficient {
            Some(coefficient) => format!("sparsity coefficient {coefficient}"),
            None if self.architecture.has_sparsity_loss() => format!("L0 about {}", self.k),
            None => format!("k {}", self.k),
        }
    }

    /// Steps of a run: the number of whole batches in `tokens`.
    pub(crate) fn n_steps(&self) -> u64 {
        self.tokens.checked_div(self.batch as u64).unwrap_or(0)
    }

    /// Tokens of these steps.
    pub(crate) fn trained_tokens(&self) -> u64 {
        self.n_steps() * self.batch as u64
    }

    /// Rows that a run on a running model draws: those of its steps and, after them, those on which densities are
    /// counted.
    pub(crate) fn rows_drawn(&self) -> u64 {
        self.trained_tokens().saturating_add(self.tokens.min(CALIBRATION_TOKENS))
    }

    /// Rows in its buffer, of `row_bytes` each: never more than are trained on. It depends only on the config, because
    /// the end of a block determines the order of the rows.
    pub(crate) fn buffer_rows(&self, row_bytes: usize) -> u64 {
        self.buffer_bytes.div_ceil(row_bytes.max(1) as u64).min(self.trained_tokens())
    }

    /// The hook points in the config: the inputs, then the target.
    pub(crate) fn named_hook_points(&self) -> Vec<HookPoint> {
        self.hook_points.iter().copied().chain(self.target_hook_point).collect()
    }

    /// Completes the config from the data and checks it against them. `widths` are those of the data's columns, the
    /// target's last.
    pub(crate) fn resolve(&self, hook_points: HookPoints, widths: Vec<usize>) -> Result<Resolved> {
        let (inputs, target) = widths.split_at(widths.len() - usize::from(hook_points.is_transcoder()));
        let d_in = inputs.iter().sum();
        let d_out = target.first().copied().unwrap_or(d_in);
        let d_sae = self.n_latents(d_in);
        let k_aux = self.k_aux.unwrap_or((d_out / 2).min(d_sae).max(1));
        let n_steps = self.n_steps();
        let lr = self.lr.unwrap_or_else(|| default_lr(d_sae));
        let weight_decay = self.weight_decay.unwrap_or_else(|| self.default_weight_decay(d_in, lr));
        let config = Self {
            hook_points: hook_points.reads(),
            d_sae: Some(d_sae),
            k: if self.architecture == TrainArchitecture::Dense { d_sae } else { self.k },
            k_aux: Some(k_aux),
            prefixes: self.resolve_prefixes(d_sae)?,
            lr: Some(lr),
            weight_decay: Some(weight_decay),
            clip: self.clip.filter(|clip| *clip != 0.0),
            row_limit: self.row_limit.filter(|limit| *limit != 0.0),
            init_from: self.absolute_init_from()?,
            ..self.clone()
        };
        let resolved = Resolved {
            config,
            hook_points,
            widths,
            d_in,
            d_out,
            d_sae,
            k_aux,
            lr,
            weight_decay,
            n_steps,
            initial: None,
        };
        resolved.check()?;
        Ok(resolved)
    }

    /// Number of latents if the inputs have `d_in` values together. `dense` has k latents, as many as are active in
    /// other architectures.
    fn n_latents(&self, d_in: usize) -> usize {
        let dense = self.architecture == TrainArchitecture::Dense;
        self.d_sae.unwrap_or_else(|| if dense { self.k } else { self.expansion_factor.saturating_mul(d_in) })
    }

    /// The default for the architecture: 1 at a width of 576, where it was measured (README, quality). The size of
    /// Adam's steps is lr for any gradient, and the weights of a row of norm 1 are about 1 / sqrt(d_in). So the decay
    /// is the same share of a step at every width.
    fn default_weight_decay(&self, d_in: usize, lr: f64) -> f64 {
        use TrainArchitecture::{Dense, Gated, Relu};
        let shrinks_by_itself = matches!(self.architecture, Relu | Gated | Dense);
        let default = if shrinks_by_itself { 0.0 } else { (d_in as f64).sqrt() / 24.0 };
        // A decay of more than the whole weight would change its sign.
        default.min(1.0 / lr)
    }

    fn absolute_init_from(&self) -> Result<Option<PathBuf>> {
        let Some(path) = &self.init_from else { return Ok(None) };
        Ok(Some(std::path::absolute(path).map_err(Error::io("find", path))?))
    }

    /// The prefixes, ascending, the last one d_sae; empty for all architectures except `matryoshka`.
    fn resolve_prefixes(&self, d_sae: usize) -> Result<Vec<usize>> {
        if self.architecture != TrainArchitecture::Matryoshka {
            return Ok(Vec::new());
        }
        let mut prefixes = self.prefixes.clone();
        if prefixes.is_empty() {
            prefixes.extend([16, 4, 2].map(|share| d_sae / share).into_iter().filter(|&prefix| prefix > 0));
            prefixes.dedup();
        }
        if !prefixes.is_sorted_by(|a, b| a < b) || prefixes.iter().any(|&prefix| prefix == 0 || prefix > d_sae) {
            let expected = format!("ascending numbers from 1 to d_sae, {d_sae}");
            return Err(Error::invalid("`prefixes`", expected, format!("{prefixes:?}")));
        }
        if prefixes.last() != Some(&d_sae) {
            prefixes.push(d_sae);
        }
        Ok(prefixes)
    }
}

impl Resolved {
    pub(crate) fn step_config(&self) -> StepConfig {
        let config = &self.config;
        let has_dead_latents = config.architecture != TrainArchitecture::Dense;
        StepConfig {
            architecture: config.architecture,
            k: config.k,
            adam: config.adam,
            weight_decay: self.weight_decay,
            clip: config.clip,
            auxk_alpha: if has_dead_latents { config.auxk_alpha } else { 0.0 },
            k_aux: self.k_aux,
            dead_after_tokens: config.dead_after_tokens,
            sparsity_coefficient: config.sparsity_coefficient,
            sparsity_warmup_steps: (config.sparsity_warmup * self.n_steps as f64).round() as u64,
            jumprelu_loss: config.jumprelu_loss,
            bandwidth: config.bandwidth,
            prefixes: config.prefixes.clone(),
            blocks: if config.architecture == TrainArchitecture::Crosscoder {
                self.widths.clone()
            } else {
                vec![self.d_in]
            },
            d_out: self.d_out,
            skip: config.skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_with_the_whole_dictionary() {
        let config = |prefixes: &[usize]| TrainConfig {
            architecture: TrainArchitecture::Matryoshka,
            prefixes: prefixes.to_vec(),
            ..TrainConfig::default()
        };
        assert_eq!(config(&[]).resolve_prefixes(64).ok(), Some(vec![4, 16, 32, 64]));
        assert_eq!(config(&[]).resolve_prefixes(2).ok(), Some(vec![1, 2]));
        assert_eq!(config(&[10, 40]).resolve_prefixes(64).ok(), Some(vec![10, 40, 64]));
        assert_eq!(config(&[10, 64]).resolve_prefixes(64).ok(), Some(vec![10, 64]));
        let refused = |prefixes| config(prefixes).resolve_prefixes(64).map_err(|error| error.to_string());
        let message =
            |found: &str| format!("`prefixes`: expected ascending numbers from 1 to d_sae, 64, found {found}");
        assert_eq!(refused(&[65]), Err(message("[65]")));
        assert_eq!(refused(&[0, 8]), Err(message("[0, 8]")));
        assert_eq!(refused(&[40, 10]), Err(message("[40, 10]")));
        assert_eq!(refused(&[40, 40]), Err(message("[40, 40]")));
        assert_eq!(TrainConfig::default().resolve_prefixes(64).ok(), Some(vec![]), "others have none");
    }

    #[test]
    fn a_buffer_holds_no_more_than_is_trained_on() {
        let config = |tokens, buffer_bytes| TrainConfig { tokens, batch: 1000, buffer_bytes, ..TrainConfig::default() };
        assert_eq!(config(2500, 1 << 29).buffer_rows(1152), 2000);
        assert_eq!(config(2500, 1 << 29).rows_drawn(), 2000 + 2500);
        assert_eq!(config(1_500_500, 1 << 40).buffer_rows(1152), 1_500_000);
        assert_eq!(config(1_500_500, 1 << 40).rows_drawn(), 1_500_000 + CALIBRATION_TOKENS);
        assert_eq!(config(2500, 1153).buffer_rows(1152), 2);
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let message = serde_json::from_str::<TrainConfig>("{\"learning_rate\": 1}").map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("learning_rate") && message.contains("`lr`")));
    }
}
