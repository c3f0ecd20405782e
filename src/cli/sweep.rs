//! [`SweepArgs`]: the flags of `refract sweep`. What train takes once and runs are compared by is a list here; what
//! is the same for all runs is in [`RunArgs`].

use clap::Args;
use harvester::HookPoint;
use serde::Serialize;
use trainer::TrainArchitecture;

use super::run::{RunArgs, architectures, number};

/// Flags of `refract sweep`: those of train of which several values are often compared take lists.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    /// Learners in memory at once; the rest follow in further passes [default: what fits in half of the memory].
    #[arg(long)]
    pub(crate) at_once: Option<usize>,
    /// What is trained [default: batch-topk].
    #[arg(long, value_delimiter = ',', num_args = 1.., visible_alias = "architecture", value_parser = architectures())]
    pub(crate) arch: Vec<TrainArchitecture>,
    /// Columns of the activations, a run each [default: the only one]; with `--arch crosscoder` alone, those of each.
    #[arg(long, value_delimiter = ',', num_args = 1.., conflicts_with = "vectors")]
    pub(crate) hook_point: Vec<HookPoint>,
    /// Active latents a token, as train takes it [default: 32].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) k: Vec<usize>,
    /// Numbers of latents [default: as many as --init-from has, or --expansion times the width of what is read].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) d_sae: Vec<usize>,
    /// Latents for each value of the activations [default: 8].
    #[arg(long, value_delimiter = ',', num_args = 1.., visible_alias = "expansion-factor", conflicts_with = "d_sae")]
    pub(crate) expansion: Vec<usize>,
    /// Weights of the sparsity loss, as train takes it.
    #[arg(
        long,
        value_delimiter = ',',
        num_args = 1..,
        visible_aliases = ["l1-coefficient", "l0-coefficient"],
        value_parser = number
    )]
    pub(crate) sparsity_coefficient: Vec<f64>,
    /// Peak learning rates [default: by width, 0.004 at 4,608 latents].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_parser = number)]
    pub(crate) lr: Vec<f64>,
    /// Seeds of the weights and of the order of the tokens [default: 0].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) seed: Vec<u64>,
}
