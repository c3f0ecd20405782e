//! [`TrainArgs`]: the flags of `refract train`, of which [`RunArgs`] are also `sweep`'s; and [`LiveArgs`], those by
//! which it runs the model itself.

use std::path::PathBuf;

use clap::Args;
use harvester::{Compute, HookPoint};
use serde::Serialize;
use trainer::{JumpReluLoss, TrainArchitecture};

use super::run::{LAST, RunArgs, architectures, jumprelu_losses, number};

/// Flags of `refract train`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    /// What is trained [default: batch-topk].
    #[arg(long, visible_alias = "architecture", value_parser = architectures())]
    pub(crate) arch: Option<TrainArchitecture>,
    /// Which column of the activations, or where in the model [default: the only one]; several for a crosscoder.
    #[arg(long, num_args = 1.., conflicts_with = "vectors")]
    pub(crate) hook_point: Vec<HookPoint>,
    /// The column to predict from --hook-point, for a transcoder.
    #[arg(long, conflicts_with = "vectors")]
    pub(crate) target_hook_point: Option<HookPoint>,
    /// Active latents a token; of relu, gated and jumprelu, those that the weight of the sparsity loss is adapted to;
    /// of dense, all latents [default: 32].
    #[arg(long)]
    pub(crate) k: Option<usize>,
    /// Number of latents [default: as many as --init-from has, or --expansion times the width of what is read; of
    /// dense, --k].
    #[arg(long)]
    pub(crate) d_sae: Option<usize>,
    /// Latents for each value of the activations [default: 8].
    #[arg(long, visible_alias = "expansion-factor", conflicts_with = "d_sae")]
    pub(crate) expansion: Option<usize>,
    /// Weight of the sparsity loss of relu and gated (L1) and of jumprelu (L0), in training units [default: adapted so
    /// that L0 approaches --k].
    #[arg(long, visible_aliases = ["l1-coefficient", "l0-coefficient"], value_parser = number)]
    pub(crate) sparsity_coefficient: Option<f64>,
    /// Share of the steps in which a given --sparsity-coefficient rises [default: 0.05].
    #[arg(long, value_parser = number)]
    pub(crate) sparsity_warmup: Option<f64>,
    /// What jumprelu counts as sparsity: `step`, the active latents, or `tanh`, weak ones less [default: step].
    #[arg(long, value_parser = jumprelu_losses())]
    pub(crate) jumprelu_loss: Option<JumpReluLoss>,
    /// Width of the window around a threshold from which jumprelu learns it, in training units [default: 0.5].
    #[arg(long, value_parser = number)]
    pub(crate) bandwidth: Option<f64>,
    /// Where the prefixes of a matryoshka dictionary end, such as 256,1024; the last is always all of it [default: a
    /// 16th, a quarter, half].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) prefixes: Vec<usize>,
    /// Give a transcoder a linear bypass.
    #[arg(long)]
    pub(crate) skip: bool,
    /// Peak learning rate [default: 0.004 at 4,608 latents, less for more].
    #[arg(long, value_parser = number)]
    pub(crate) lr: Option<f64>,
    /// Share of the steps in which the learning rate rises [default: 0.15].
    #[arg(long, value_parser = number)]
    pub(crate) warmup: Option<f64>,
    /// Share of the steps in which it falls to zero [default: 0.2].
    #[arg(long, value_parser = number)]
    pub(crate) decay: Option<f64>,
    /// Adam with Nesterov's momentum, or plain Adam [default: nadam].
    #[arg(long, value_parser = ["nadam", "adam"])]
    pub(crate) optimizer: Option<String>,
    /// By how much the encoder's weights shrink in a step, times the learning rate [default: the root of d_in, over
    /// 24; 0 for relu, gated and dense].
    #[arg(long, value_parser = number)]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 for none [default: 1].
    #[arg(long, value_parser = number)]
    pub(crate) clip: Option<f64>,
    /// Weight of the loss by which dead latents learn; 0 switches it off [default: 0.125].
    #[arg(long, value_parser = number)]
    pub(crate) auxk_alpha: Option<f64>,
    /// Dead latents a token in that loss [default: half the width of what is rebuilt].
    #[arg(long)]
    pub(crate) k_aux: Option<usize>,
    /// A latent that was not active for so many tokens is dead [default: 100000].
    #[arg(long)]
    pub(crate) dead_after_tokens: Option<u64>,
    /// Share of the contexts, the last ones, never trained on; with --corpus the first ones, of --tokens; of vectors,
    /// of the rows, drawn by --seed [default: 0.05].
    #[arg(long, value_parser = number)]
    pub(crate) held_out_fraction: Option<f64>,
    /// Seed of the weights and of the order of the tokens [default: 0].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// How many checkpoints are kept, the last ones [default: 2].
    #[arg(long, display_order = LAST)]
    pub(crate) keep_checkpoints: Option<usize>,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) live: LiveArgs,
}

/// Flags of training on a running model, under their names in the table `[harvest]`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(
    next_help_heading = "Instead of --activations, a model that computes them (other settings: [harvest] in --config)"
)]
pub(crate) struct LiveArgs {
    /// The model, as harvest takes it.
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    pub(crate) model: Option<String>,
    /// The corpus, as harvest takes it.
    #[arg(long, num_args = 1.., conflicts_with_all = ["activations", "vectors"])]
    pub(crate) corpus: Vec<PathBuf>,
    /// Tokens a context [default: 256].
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    pub(crate) ctx_len: Option<usize>,
    /// The numbers that the model's matrix products are computed in, f32 or int8 [default: f32].
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    pub(crate) compute: Option<Compute>,
}
