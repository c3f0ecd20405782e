//! [`Cli`]: the flags of every command, as typed, a file each group of commands. Flags that are also settings of a
//! config file are optional and serialise under the same names; what they resolve to is each command's own business.

mod harvest;
mod look;
mod run;
mod sae;
mod sweep;
mod train;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::{
    harvest::{HarvestArgs, MergeArgs},
    look::{ConvertArgs, DemoArgs, FindArgs, InspectArgs, ShowArgs},
    sae::{EvaluateArgs, IndexArgs, LatentValue, SaeArgs, SteerArgs},
    sweep::SweepArgs,
    train::{LiveArgs, TrainArgs},
};

/// Split a language model's residual stream into the features it is made of.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Settings of harvest, train, sweep, evaluate, index and steer, a table for each, under the names of their flags;
    /// flags win.
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Results as JSON on standard output, nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; twice for debugging. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// How logs are written to standard error.
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole pipeline on the default model and the bundled corpora, in a few minutes.
    #[command(after_help = "Example:\n  refract demo --out demo")]
    Demo(DemoArgs),
    /// Run a model over text and write its activations.
    #[command(after_help = "Example:\n  refract harvest --corpus data/corpora/*.jsonl --hook-point \
                            blocks.14.hook_resid_post --tokens 150000 --out runs/activations")]
    Harvest(HarvestArgs),
    /// Make one dataset of the harvests of a corpus' parts.
    #[command(after_help = "Example:\n  refract merge runs/parts --out runs/activations")]
    Merge(MergeArgs),
    /// Fit a sparse autoencoder to harvested activations, to those of a running model, or to any vectors; or a
    /// transcoder or crosscoder to several places of a model.
    #[command(
        allow_negative_numbers = true,
        after_help = "Examples:\n  refract train --activations runs/activations --k 32 --d-sae 4608 --out runs/sae\n  \
                      refract train --model default --corpus data/corpora/*.jsonl \
                      --hook-point blocks.14.hook_resid_post --out runs/sae\n  \
                      refract train --vectors data/digits/digits-2000.parquet --d-sae 1024 --tokens 200000 \
                      --batch 512 --out runs/digits\n\n\
                      A transcoder of an MLP, and a crosscoder of three layers (of activations harvested with these \
                      --hook-point):\n  \
                      refract train --activations runs/mlp --arch transcoder --skip \
                      --hook-point blocks.14.ln2.hook_normalized \\\n    \
                      --target-hook-point blocks.14.hook_mlp_out --out runs/transcoder\n  \
                      refract train --activations runs/layers --arch crosscoder \
                      --hook-point blocks.10.hook_resid_post \\\n    \
                      blocks.14.hook_resid_post blocks.18.hook_resid_post --out runs/crosscoder"
    )]
    Train(Box<TrainArgs>),
    /// Train many SAEs in one pass over the data, every combination of the values given, and compare them.
    #[command(
        allow_negative_numbers = true,
        after_help = "Example, of eight SAEs:\n  refract sweep --activations runs/activations --k 16,32 --d-sae 2304,4608 \\\n    \
                      --arch topk,batch-topk --out runs/sweep\n\n\
                      Each run is a folder in --out, the same to the bit as one of `refract train` with these options. \
                      pareto.html there plots FVU against L0; sweep.parquet and sweep.json are the table.\n\n\
                      Every other option of train goes into the table [sweep] of --config, as a value or a list of \
                      values. Runs that are no grid are listed there, each over the rest of [sweep]:\n  \
                      [[sweep.run]]\n  arch = \"jumprelu\"\n  bandwidth = [0.25, 0.5]\n  [[sweep.run]]\n  \
                      arch = \"crosscoder\"\n  hook-point = [[\"blocks.10.hook_resid_post\", \"blocks.14.hook_resid_post\"]]\n\n\
                      Runs at different hook points, or of other tokens, batch, seed, buffer or held-out share, have \
                      passes of their own, one after the other."
    )]
    Sweep(Box<SweepArgs>),
    /// Measure an SAE on held-out text, or on all of other --activations: L0, FVU, dead latents and, where one pass
    /// can go on with what it rebuilds, CE loss score.
    #[command(after_help = "Example:\n  refract evaluate --sae runs/sae")]
    Evaluate(EvaluateArgs),
    /// Find when each latent fires, on what, and what it writes.
    #[command(after_help = "Example:\n  refract index --sae runs/sae --out runs/features")]
    Index(IndexArgs),
    /// Show one latent, or the most interpretable ones.
    #[command(after_help = "Example:\n  refract show --features runs/features 1234")]
    Show(ShowArgs),
    /// The latents that tell two sources of the corpus apart.
    #[command(after_help = "Example:\n  refract find --features runs/features --positive code --negative speeches")]
    Find(FindArgs),
    /// Write with latents clamped, beside the same without.
    #[command(
        allow_negative_numbers = true,
        after_help = "Example:\n  refract steer --sae runs/sae --prompt 'The weather today' --clamp 1234=0 --scale 77=3"
    )]
    Steer(SteerArgs),
    /// Write an SAE as another tool reads it.
    #[command(after_help = "Example:\n  refract convert runs/sae --to dictionary-learning --out runs/dictionary\n\n\
                            Each FORMAT is read as well, and so are the folders of Llama Scope: which one an SAE is of, is\n\
                            found out from its files. Every command that takes --sae reads them too.")]
    Convert(ConvertArgs),
    /// Explain a folder or model that refract reads or writes.
    #[command(after_help = "Example:\n  refract inspect runs/activations --verify")]
    Inspect(InspectArgs),
}
