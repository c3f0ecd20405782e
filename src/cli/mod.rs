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
    sae::{CorpusTextArgs, DirectionArgs, EncodeArgs, EvaluateArgs, ExplainArgs, IndexArgs, MonitorArgs, SteerArgs},
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
    #[command(after_help = include_str!("examples/harvest.txt"))]
    Harvest(Box<HarvestArgs>),
    /// Make one of the harvests, or of the indexes, of a corpus' parts.
    #[command(after_help = "Example:\n  refract merge runs/parts --out runs/merged")]
    Merge(MergeArgs),
    /// Train a sparse autoencoder on harvested activations, on those of a running model, or on any vectors; or a
    /// transcoder or crosscoder of several hook points.
    #[command(
        allow_negative_numbers = true,
        after_help = "Example:\n  refract train --activations runs/activations \\\n    --d-sae 4608 --out runs/sae",
        after_long_help = include_str!("examples/train.txt")
    )]
    Train(Box<TrainArgs>),
    /// Train many SAEs in one pass over the data, one for every combination of the values given, and compare them.
    #[command(
        allow_negative_numbers = true,
        after_help = "Every option of train takes a list of values here.",
        after_long_help = include_str!("examples/sweep.txt")
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
    #[command(after_help = include_str!("examples/find.txt"))]
    Find(FindArgs),
    /// Encode any text: the active latents of each token. It needs no activations on disk.
    #[command(after_help = include_str!("examples/encode.txt"))]
    Encode(EncodeArgs),
    /// Explain the next token of a text: which latents fire on each token, and what the model loses without them.
    #[command(after_help = include_str!("examples/explain.txt"))]
    Explain(ExplainArgs),
    /// Find latents by words: in their labels, in the tokens that they promote, and in those on which they fire.
    #[command(after_help = "Example:\n  refract search --features runs/features whale")]
    Search(SearchArgs),
    /// Write text with latents clamped, directions added and other edits, beside the same without.
    #[command(
        allow_negative_numbers = true,
        after_help = include_str!("examples/steer.txt")
    )]
    Steer(Box<SteerArgs>),
    /// Watch texts with the rules of a guard, and measure how well they tell two groups of texts apart.
    #[command(after_help = include_str!("examples/monitor.txt"))]
    Monitor(MonitorArgs),
    /// Make a direction to steer along from two sets of texts.
    #[command(after_help = include_str!("examples/direction.txt"))]
    Direction(DirectionArgs),
    /// Find which latents of two SAEs are the same, by direction and by the tokens on which they fire.
    #[command(after_help = "Example:\n  refract compare runs/sae runs/other-seed")]
    Compare(CompareArgs),
    /// Write an SAE in the format of another tool.
    #[command(after_help = include_str!("examples/convert.txt"))]
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
