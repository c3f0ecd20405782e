//! [`TrainArgs`] and [`SweepArgs`]: the flags of `refract train` and `sweep`. [`DataArgs`] are those of the data, which
//! both have; [`LiveArgs`] those of training on a running model; and a sweep has every setting of train as a list.

use std::path::PathBuf;

use clap::{ArgAction, Args, Command};
use harvester::{Compute, HookPoint};
use serde::Serialize;
use trainer::{AdamConfig, JumpReluLoss, TrainArchitecture, TrainSource};

use super::value::{architectures, count, mib, number};

/// Position in the help of flags that do not change the result: after the others, each of which has its number among
/// all flags.
const LAST: usize = 500;

/// Flags of `refract train`.
#[derive(Debug, Args)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    #[command(flatten)]
    pub(crate) config: TrainConfigArgs,
    #[command(flatten)]
    pub(crate) live: LiveArgs,
}

/// The data to read and the folder to write.
#[derive(Debug, Args)]
pub(crate) struct DataArgs {
    /// The folder that `refract harvest` wrote, a folder of the parts of one corpus, or a URL [this, --vectors or the
    /// --corpus of train is required, here or in --config].
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// Vectors of any origin: a parquet file, or a folder or URL of them, with a column of lists of numbers.
    #[arg(long, conflicts_with = "activations")]
    pub(crate) vectors: Option<PathBuf>,
    /// The column of --vectors to read [default: the only one that holds lists].
    #[arg(long, conflicts_with = "activations")]
    pub(crate) column: Option<String>,
    /// The folder to write. The same command resumes an unfinished run there [required, here or in --config].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

impl DataArgs {
    /// The rows that the flags name.
    pub(crate) fn source(&self) -> TrainSource {
        TrainSource {
            activations: self.activations.clone(),
            vectors: self.vectors.clone(),
            column: self.column.clone(),
        }
    }
}

/// Settings of [`trainer::TrainConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct TrainConfigArgs {
    /// Tokens to train on; more than the dataset has means several epochs.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) tokens: Option<u64>,
    /// Tokens per step.
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) batch: Option<usize>,
    /// Memory for activations that are shuffled together.
    #[arg(long = "buffer-mib", value_name = "MIB", value_parser = mib, display_order = LAST)]
    pub(crate) buffer_bytes: Option<u64>,
    /// Steps from one checkpoint to the next.
    #[arg(long, value_name = "STEPS", display_order = LAST, value_parser = count::<u64>)]
    pub(crate) checkpoint_every: Option<u64>,
    /// Begin from this SAE, of any format that convert reads, instead of random weights. Its k is the default of --k.
    #[arg(long, value_name = "SAE", display_order = LAST)]
    pub(crate) init_from: Option<PathBuf>,
    /// The kind of SAE to train.
    #[arg(long = "arch", visible_alias = "architecture", value_name = "ARCH", value_parser = architectures())]
    pub(crate) architecture: Option<TrainArchitecture>,
    /// The hook point to read; several for a crosscoder [default: the only one of the activations].
    #[arg(long = "hook-point", value_name = "HOOK_POINT", num_args = 1.., conflicts_with = "vectors")]
    pub(crate) hook_points: Vec<HookPoint>,
    /// The column that a transcoder predicts from --hook-point.
    #[arg(long, value_name = "HOOK_POINT", conflicts_with = "vectors")]
    pub(crate) target_hook_point: Option<HookPoint>,
    /// Active latents per token; for relu, gated and jumprelu the L0 to which the sparsity coefficient is adapted; for
    /// dense, the number of latents.
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) k: Option<usize>,
    /// Number of latents [default: that of --init-from, else --expansion times d_in; for dense, --k].
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) d_sae: Option<usize>,
    /// Latents per input dimension.
    #[arg(long = "expansion", visible_alias = "expansion-factor", value_name = "FACTOR", conflicts_with = "d_sae", value_parser = count::<usize>)]
    pub(crate) expansion_factor: Option<usize>,
    /// Weight of the sparsity loss, L1 for relu and gated, L0 for jumprelu, in training units [default: adapted so that
    /// L0 approaches --k].
    #[arg(long, value_name = "WEIGHT", visible_aliases = ["l1-coefficient", "l0-coefficient"], value_parser = number)]
    pub(crate) sparsity_coefficient: Option<f64>,
    /// Share of the steps in which a given --sparsity-coefficient rises.
    #[arg(long, value_name = "SHARE", value_parser = number)]
    pub(crate) sparsity_warmup: Option<f64>,
    /// Sparsity loss of jumprelu: `step` counts the active latents, `tanh` counts weak ones less.
    #[arg(long, value_name = "LOSS")]
    pub(crate) jumprelu_loss: Option<JumpReluLoss>,
    /// Width of the window around a threshold from which jumprelu learns it, in training units.
    #[arg(long, value_name = "WIDTH", value_parser = number)]
    pub(crate) bandwidth: Option<f64>,
    /// Sizes of the prefixes of a matryoshka dictionary, such as 256,1024; d_sae is always the last [default: a 16th, a
    /// quarter and half of d_sae].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_parser = count::<usize>)]
    pub(crate) prefixes: Vec<usize>,
    /// Give a transcoder a skip connection.
    #[arg(long)]
    pub(crate) skip: bool,
    /// Peak learning rate [default: 0.004 at 4,608 latents, less for more].
    #[arg(long, value_parser = number)]
    pub(crate) lr: Option<f64>,
    /// Share of the steps in which the learning rate rises.
    #[arg(long, value_name = "SHARE", value_parser = number)]
    pub(crate) warmup: Option<f64>,
    /// Share of the steps, at the end, in which it falls to zero.
    #[arg(long, value_name = "SHARE", value_parser = number)]
    pub(crate) decay: Option<f64>,
    /// `nadam`, Adam with Nesterov's momentum, or `adam` [default: nadam].
    #[arg(long = "optimizer", value_name = "NAME")]
    pub(crate) adam: Option<AdamConfig>,
    /// Weight decay of the encoder: share by which its weights shrink per step, per unit of learning rate [default:
    /// sqrt(d_in) / 24; 0 for relu, gated and dense].
    #[arg(long, value_name = "RATE", value_parser = number)]
    pub(crate) weight_decay: Option<f64>,
    /// Largest norm of the gradient; 0 for no limit.
    #[arg(long, value_name = "NORM", value_parser = number)]
    pub(crate) clip: Option<f64>,
    /// Rows further from the mean than this many times the usual distance are shortened to it [default: no limit].
    #[arg(long, value_name = "TIMES", value_parser = number)]
    pub(crate) row_limit: Option<f64>,
    /// Weight of the auxiliary loss, which trains dead latents; 0 turns it off.
    #[arg(long, value_name = "WEIGHT", value_parser = number)]
    pub(crate) auxk_alpha: Option<f64>,
    /// Dead latents per token in that loss [default: half the width of the reconstruction].
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) k_aux: Option<usize>,
    /// A latent that was not active for this many tokens is dead.
    #[arg(long, value_name = "TOKENS", value_parser = count::<u64>)]
    pub(crate) dead_after_tokens: Option<u64>,
    /// Share of the data that is never trained on: the last contexts; with --corpus the first contexts, as a share of
    /// --tokens or of the corpus, whichever is smaller; with --vectors, rows drawn from --seed.
    #[arg(long, value_name = "SHARE", value_parser = number)]
    pub(crate) held_out_fraction: Option<f64>,
    /// Seed of the initial weights and of the order of the tokens.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Number of latest checkpoints to keep.
    #[arg(long, value_name = "N", display_order = LAST, value_parser = count::<usize>)]
    pub(crate) keep_checkpoints: Option<usize>,
}

/// Flags of training on a running model; they win over the table `[harvest]`.
#[derive(Debug, Args, Serialize)]
#[command(
    next_help_heading = "Instead of --activations, a model that computes them (other settings: [harvest] in --config)"
)]
pub(crate) struct LiveArgs {
    /// The model, as harvest takes it.
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    pub(crate) model: Option<String>,
    /// The corpus, as harvest takes it.
    #[arg(long, num_args = 1.., conflicts_with_all = ["activations", "vectors", "column"])]
    pub(crate) corpus: Vec<PathBuf>,
    /// Tokens per context.
    #[arg(long, requires = "corpus", value_parser = count::<usize>, conflicts_with_all = ["activations", "vectors"])]
    pub(crate) ctx_len: Option<usize>,
    /// Numbers in the model's matrix products, f32 or int8.
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    pub(crate) compute: Option<Compute>,
}

/// Flags of `refract sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    _shared: SharedArgs,
    /// For their help: their values are lists.
    #[command(flatten)]
    _config: TrainConfigArgs,
}

/// The flags that all runs share.
#[derive(Debug, Args)]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// SAEs in memory at once; the others follow in further passes [default: what fits in half of the memory].
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub(crate) at_once: Option<usize>,
}

/// The command with settings of train that take several values each.
pub(super) fn with_lists(command: Command) -> Command {
    let settings = TrainConfigArgs::augment_args(Command::new("settings"));
    let is_setting = |flag: &clap::Arg| settings.get_arguments().any(|setting| setting.get_id() == flag.get_id());
    command.mut_args(|flag| match flag.get_action() {
        ArgAction::Set | ArgAction::Append if is_setting(&flag) => {
            // A path may contain a comma.
            let flag = if flag.get_id() == "init_from" { flag } else { flag.value_delimiter(',') };
            flag.action(ArgAction::Append).num_args(1..)
        }
        _ => flag,
    })
}
