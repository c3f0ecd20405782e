//! [`SweepArgs`]: the flags of `refract sweep`. What runs are compared by is a list here; what is the same for all runs
//! is in [`RunArgs`].

use clap::Args;
use harvester::HookPoint;
use serde::{Deserialize, Serialize};
use trainer::TrainArchitecture;

use super::{
    run::{DataArgs, RunArgs},
    value::{architectures, number},
};

/// Flags of `refract sweep`.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) data: DataArgs,
    /// SAEs in memory at once; the others follow in further passes [default: what fits in half of the memory].
    #[arg(long, value_name = "N")]
    pub(crate) at_once: Option<usize>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) grid: GridArgs,
}

/// Those settings of train of which several values are often compared, and those that all runs share.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct GridArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) run: RunArgs,
    /// What is trained.
    #[arg(
        long = "arch",
        visible_alias = "architecture",
        value_name = "ARCH",
        value_delimiter = ',',
        num_args = 1..,
        value_parser = architectures()
    )]
    pub(crate) architecture: Vec<TrainArchitecture>,
    /// Columns of the activations, one run each; with `--arch crosscoder` alone, those of each run [default: the only
    /// one].
    #[arg(
        long = "hook-point",
        value_name = "HOOK_POINT",
        value_delimiter = ',',
        num_args = 1..,
        conflicts_with = "vectors"
    )]
    pub(crate) hook_points: Vec<HookPoint>,
    /// Active latents per token, as train takes it.
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) k: Vec<usize>,
    /// Numbers of latents [default: that of --init-from, else --expansion times d_in].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) d_sae: Vec<usize>,
    /// Latents per input dimension.
    #[arg(
        long = "expansion",
        visible_alias = "expansion-factor",
        value_name = "FACTOR",
        value_delimiter = ',',
        num_args = 1..,
        conflicts_with = "d_sae"
    )]
    pub(crate) expansion_factor: Vec<usize>,
    /// Weights of the sparsity loss, as train takes it.
    #[arg(
        long,
        value_name = "WEIGHT",
        value_delimiter = ',',
        num_args = 1..,
        visible_aliases = ["l1-coefficient", "l0-coefficient"],
        value_parser = number
    )]
    pub(crate) sparsity_coefficient: Vec<f64>,
    /// Peak learning rates [default: 0.004 at 4,608 latents, less for more].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_parser = number)]
    pub(crate) lr: Vec<f64>,
    /// Seeds of the initial weights and of the order of the tokens.
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    pub(crate) seed: Vec<u64>,
}
