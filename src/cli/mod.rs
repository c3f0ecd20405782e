//! [`Cli`]: the flags of every command, one file for each group of commands. A flag that is a setting of a library is
//! optional here, and its field has the library's name; [`crate::settings`] does the rest.

mod harvest;
mod look;
mod sae;
mod train;
mod value;

use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value as Json;

pub(crate) use self::{
    harvest::{HarvestArgs, HarvestConfigArgs, MergeArgs},
    look::{
        CompareArgs, CompletionsArgs, ConvertArgs, DemoArgs, FindArgs, InspectArgs, ListArgs, ManArgs, SearchArgs,
        ShowArgs,
    },
    sae::{CorpusTextArgs, DirectionArgs, EncodeArgs, EvaluateArgs, ExplainArgs, IndexArgs, SteerArgs},
    train::{SharedArgs, SweepArgs, TrainArgs},
    value::{required, usage},
};

/// Split a language model's residual stream into the features it is made of.
#[derive(Debug, Parser)]
#[command(
    name = "refract",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = "Example, the whole pipeline in a few minutes:\n  refract demo"
)]
pub(crate) struct Cli {
    #[command(flatten)]
    _global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Settings of harvest, train, sweep, evaluate, index, encode and steer, one table each, under the names of their flags;
    /// flags win.
    #[arg(long, global = true, value_name = "FILE.toml")]
    pub(crate) config: Option<PathBuf>,
    /// Print results as JSON on standard output, and nothing else there.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; twice for debugging. RUST_LOG overrides it.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Format of the logs on standard error.
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
    /// Run the whole pipeline on the default model and the bundled corpora, in a few minutes.
    #[command(after_help = "Example:\n  refract demo --out demo")]
    Demo(DemoArgs),
    /// Run a model over text and write its activations.
    #[command(after_help = "Example:\n  refract harvest --corpus data/corpora/*.jsonl \\\n    \
                            --hook-point blocks.14.hook_resid_post \\\n    --tokens 150k --out runs/activations")]
    Harvest(Box<HarvestArgs>),
    /// Make one of the harvests, or of the indexes, of a corpus' parts.
    #[command(after_help = "Example:\n  refract merge runs/parts --out runs/merged")]
    Merge(MergeArgs),
    /// Train a sparse autoencoder on harvested activations, on those of a running model, or on any vectors; or a
    /// transcoder or crosscoder of several hook points.
    #[command(
        allow_negative_numbers = true,
        after_help = "Example:\n  refract train --activations runs/activations \\\n    --d-sae 4608 --out runs/sae",
        after_long_help = "Examples:\n  refract train --activations runs/activations \\\n    \
                      --d-sae 4608 --out runs/sae\n\n  \
                      refract train --model default \\\n    --corpus data/corpora/*.jsonl \\\n    \
                      --hook-point blocks.14.hook_resid_post --out runs/live\n\n  \
                      refract train --vectors data/digits/digits-2000.parquet \\\n    \
                      --d-sae 1024 --tokens 200k --batch 512 --out runs/digits\n\n\
                      A transcoder of an MLP, on activations that were harvested at these hook points:\n  \
                      refract train --activations runs/mlp \\\n    --arch transcoder --skip \\\n    \
                      --hook-point blocks.14.ln2.hook_normalized \\\n    \
                      --target-hook-point blocks.14.hook_mlp_out \\\n    --out runs/transcoder\n\n\
                      A crosscoder of three layers:\n  \
                      refract train --activations runs/layers \\\n    --arch crosscoder \\\n    \
                      --hook-point blocks.10.hook_resid_post \\\n    \
                      blocks.14.hook_resid_post blocks.18.hook_resid_post \\\n    --out runs/crosscoder"
    )]
    Train(Box<TrainArgs>),
    /// Train many SAEs in one pass over the data, one for every combination of the values given, and compare them.
    #[command(
        allow_negative_numbers = true,
        after_help = "Every option of train takes a list of values here.",
        after_long_help = "Every option of train takes a list of values here, separated by commas or spaces. Each run is a \
                      folder in --out, equal to the bit to one of `refract train` with these options. pareto.html \
                      there plots FVU against L0; sweep.parquet and sweep.json are the table.\n\n\
                      Runs that form no grid are listed in --config, each over the rest of [sweep]:\n  \
                      [[sweep.run]]\n  arch = \"jumprelu\"\n  bandwidth = [0.25, 0.5]\n  [[sweep.run]]\n  \
                      arch = \"crosscoder\"\n  \
                      hook-point = [[\"blocks.10.hook_resid_post\",\n                 \
                      \"blocks.14.hook_resid_post\"]]\n\n\
                      Runs that differ in hook point, tokens, batch, seed, buffer or held-out share have passes of \
                      their own, one after another.\n\n\
                      Example, of eight SAEs:\n  \
                      refract sweep --activations runs/activations \\\n    \
                      --k 16,32 --d-sae 2304,4608 \\\n    --arch topk,batch-topk --out runs/sweep"
    )]
    Sweep(Box<SweepArgs>),
    /// Measure an SAE on held-out text, or on all of other --activations: L0, FVU, dead latents, and the CE loss score
    /// if its reconstruction can replace an activation.
    #[command(after_help = "Example:\n  refract evaluate --sae runs/sae")]
    Evaluate(EvaluateArgs),
    /// Find when each latent fires, on what, and what it does to the next token.
    #[command(after_help = "Example:\n  refract index --sae runs/sae --out runs/features")]
    Index(IndexArgs),
    /// Show some latents, or those whose labels predict best.
    #[command(after_help = "Example:\n  refract show --features runs/features 1234")]
    Show(ShowArgs),
    /// Find the latents that tell two groups of texts apart, by document: sources of the index, files, or quoted texts.
    #[command(after_help = "Example:\n  refract find --features runs/features \\\n    \
                            --positive speeches --negative prose")]
    Find(FindArgs),
    /// Encode any text: the active latents of each token. It needs no activations on disk.
    #[command(after_help = "Example:\n  refract encode --sae runs/sae --features runs/features \\\n    \
                            --text 'It was a dark night.'")]
    Encode(EncodeArgs),
    /// Explain the next token of a text: which latents fire on each token, and what the model loses without them.
    #[command(after_help = "Example:\n  refract explain --sae runs/sae --features runs/features \\\n    \
                            --text 'The capital of France is'")]
    Explain(ExplainArgs),
    /// Find latents by words: in their labels, in the tokens that they promote, and in those on which they fire.
    #[command(after_help = "Example:\n  refract search --features runs/features whale")]
    Search(SearchArgs),
    /// Write text with latents clamped, directions added and other edits, beside the same without.
    #[command(
        allow_negative_numbers = true,
        after_help = "Example:\n  refract steer --sae runs/sae \\\n    \
                      --prompt 'The weather today' --clamp 1234=0 --scale 77=3\n\n\
                      Any edit; its name is clamp, floor, cap, suppress, scale, add, ablate, swap or splice:\n  \
                      refract steer --sae runs/sae --prompt Hi \\\n    --edit 'floor 12=3' \\\n    \
                      '{\"kind\": \"splice\", \"at\": \"generated\"}'"
    )]
    Steer(Box<SteerArgs>),
    /// Make a direction to steer along from two sets of texts.
    #[command(after_help = "Example:\n  refract direction --hook-point blocks.14.hook_resid_post \\\n    \
                            --positive glad.txt --negative sad.txt --out glad.safetensors")]
    Direction(DirectionArgs),
    /// Find which latents of two SAEs are the same, by direction and by the tokens on which they fire.
    #[command(after_help = "Example:\n  refract compare runs/sae runs/other-seed")]
    Compare(CompareArgs),
    /// Write an SAE in the format of another tool.
    #[command(after_help = "Each FORMAT is read as well, and so are the folders of Llama Scope: the format of an \
                      SAE is found out from its files. Every command that takes --sae reads them too.\n\n\
                      Example:\n  refract convert runs/sae \\\n    --to dictionary-learning --out runs/dictionary")]
    Convert(ConvertArgs),
    /// Explain a folder or a model that refract reads or writes.
    #[command(after_help = "Example:\n  refract inspect runs/activations --verify")]
    Inspect(InspectArgs),
    /// Print the completions of a shell.
    #[command(after_help = "Example:\n  refract completions bash > refract.bash")]
    Completions(CompletionsArgs),
    /// Print the manual page, or write one page per command.
    #[command(after_help = "Example:\n  refract man --out ~/.local/share/man/man1")]
    Man(ManArgs),
}

/// The command line, whose help shows the libraries' defaults.
pub(crate) fn command() -> clap::Command {
    let command = Cli::command().mut_subcommand("sweep", train::with_lists);
    let command = with_defaults(command, "harvest", &harvester::HarvestConfig::default());
    let command = with_defaults(command, "harvest", &harvester::CorpusOptions::default());
    let command = with_defaults(command, "train", &trainer::TrainConfig::default());
    let command = with_defaults(command, "sweep", &trainer::TrainConfig::default());
    let command = with_defaults(command, "evaluate", &analyzer::EvaluationConfig::default());
    let command = with_defaults(command, "index", &analyzer::IndexConfig::default());
    let command = with_defaults(command, "explain", &analyzer::ExplainConfig::default());
    let command = with_defaults(command, "steer", &analyzer::GenerateConfig::default());
    let command = with_defaults(command, "direction", &analyzer::DirectionConfig::default());
    let is_used = |flag: &clap::Arg| USED.split(' ').any(|used| used == flag.get_id().as_str());
    let short = |flag: clap::Arg| if is_used(&flag) { flag } else { flag.hide_short_help(true) };
    let commands = ["harvest", "train", "sweep"].into_iter();
    commands.fold(command, |all, name| all.mut_subcommand(name, |command| command.mut_args(short)))
}

/// The flags of harvest, train and sweep that `-h` shows; `--help` shows all.
const USED: &str = "model corpus hook_points out tokens ctx_len batch activations vectors architecture k d_sae lr";

/// Adds to the help of each flag the default of the field with its name.
fn with_defaults(command: clap::Command, subcommand: &str, config: &impl Serialize) -> clap::Command {
    let defaults = serde_json::to_value(config).unwrap_or_default();
    command.mut_subcommand(subcommand, |command| {
        command.mut_args(|flag| {
            let default = match defaults.get(flag.get_id().as_str()) {
                Some(Json::String(text)) => text.clone(),
                Some(Json::Number(number)) if flag.get_value_names().is_some_and(|names| names == ["MIB"]) => {
                    (number.as_u64().unwrap_or_default() >> 20).to_string()
                }
                Some(Json::Number(number)) => number.as_f64().unwrap_or_default().to_string(),
                _ => return flag,
            };
            let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
            flag.help(format!("{help} [default: {default}]"))
        })
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use analyzer::{EvaluationConfig, ExplainConfig, GenerateConfig, IndexConfig};
    use harvester::{CorpusOptions, HarvestConfig};
    use trainer::TrainConfig;

    use super::{
        harvest::CorpusArgs,
        sae::{EvaluationArgs, ExplainConfigArgs, GenerateArgs, IndexConfigArgs},
        train::TrainConfigArgs,
        *,
    };

    /// Every flag has the name of a field.
    #[test]
    fn every_flag_is_a_setting_of_a_library() {
        fn check<A: Serialize + Default, T: Serialize + Default>(apart: &[&str]) {
            let fields = |value: Json| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let library = fields(serde_json::to_value(T::default()).unwrap());
            let flags = fields(serde_json::to_value(A::default()).unwrap());
            let unknown: Vec<_> =
                flags.iter().filter(|flag| !library.contains(flag) && !apart.contains(&flag.as_str())).collect();
            assert!(unknown.is_empty(), "{unknown:?}");
        }
        check::<HarvestConfigArgs, HarvestConfig>(&["no_shuffle"]);
        check::<CorpusArgs, CorpusOptions>(&["keep_duplicates"]);
        check::<TrainConfigArgs, TrainConfig>(&["init_from"]); // left out where it is none
        check::<EvaluationArgs, EvaluationConfig>(&[]);
        check::<IndexConfigArgs, IndexConfig>(&["no_effects"]);
        check::<ExplainConfigArgs, ExplainConfig>(&[]);
        check::<GenerateArgs, GenerateConfig>(&[]);
    }
}
