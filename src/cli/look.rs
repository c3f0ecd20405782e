//! The flags of the commands that take no settings from `--config`: `demo`, `show`, `find`, `convert`, `inspect`,
//! `completions`, `man`.

use std::path::PathBuf;

use analyzer::RankBy;
use clap::Args;
use harvester::{Compute, HookPoint};
use trainer::SaeFormat;

use super::value::{at_least_1, count, latent, share};

/// Flags of `refract demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// The folder to write. A second run reuses what the first one finished.
    #[arg(long, default_value = "demo")]
    pub(crate) out: PathBuf,
    /// Tokens to harvest.
    #[arg(long, default_value = "400k", value_parser = count::<u64>)]
    pub(crate) tokens: u64,
    /// Tokens to train on, several epochs of those harvested.
    #[arg(long, value_name = "TOKENS", default_value = "2.4M", value_parser = count::<u64>)]
    pub(crate) train_tokens: u64,
    /// Numbers in the model's matrix products when it is steered, f32 or int8, which writes several times faster.
    #[arg(long, default_value = "f32")]
    pub(crate) compute: Compute,
}

/// Flags of `refract show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The folder that `refract index` wrote.
    #[arg(long)]
    pub(crate) features: PathBuf,
    /// The latents to show [default: those whose labels predict best, of different kinds].
    #[arg(allow_negative_numbers = true, value_parser = latent)]
    pub(crate) latents: Vec<u32>,
    /// Number of latents to show if none is named.
    #[arg(long, default_value_t = 12, conflicts_with = "latents", value_parser = at_least_1)]
    pub(crate) top: usize,
    /// Examples shown per latent.
    #[arg(long, default_value_t = 5, value_parser = count::<usize>)]
    pub(crate) examples: usize,
}

/// An index, and how many of its latents to list.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The folder that `refract index` wrote.
    #[arg(long)]
    pub(crate) features: PathBuf,
    /// Number of latents to list.
    #[arg(long, default_value_t = 10, value_parser = at_least_1)]
    pub(crate) top: usize,
    /// Leave out latents that fire on a larger share of the tokens.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, value_parser = share, allow_negative_numbers = true)]
    pub(crate) max_density: f64,
}

/// Flags of `refract find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// Texts in which the latents should fire: sources of the index, as `refract inspect` lists them; files or folders,
    /// which the model reads; or texts in quotes.
    #[arg(long, num_args = 1.., required = true)]
    pub(crate) positive: Vec<String>,
    /// Texts in which they should not.
    #[arg(long, num_args = 1.., required = true)]
    pub(crate) negative: Vec<String>,
    /// Order: auc; frequency, the difference of the shares of documents; normalized-mean, that of the mean activations.
    #[arg(long, default_value = "auc")]
    pub(crate) rank: RankBy,
    /// Fit a probe, a score for a guard, on the first latents of the list, and write it to this file.
    #[arg(long, value_name = "FILE.json")]
    pub(crate) fit: Option<PathBuf>,
    /// Number of latents of the probe.
    #[arg(long, default_value_t = 8, requires = "fit", value_parser = at_least_1)]
    pub(crate) fit_latents: usize,
    #[command(flatten)]
    pub(crate) sae: IndexedSaeArgs,
}

/// The SAE of an index, for texts that the model reads.
#[derive(Debug, Args)]
pub(crate) struct IndexedSaeArgs {
    /// The SAE, if it has moved [default: the one that was indexed].
    #[arg(long)]
    pub(crate) sae: Option<PathBuf>,
    /// Activations of its model, for an SAE of another tool that has moved.
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
}

/// Flags of `refract search`.
#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    #[command(flatten)]
    pub(crate) list: ListArgs,
    /// What to look for: words in labels, in the tokens that a latent promotes, and in those on which it fires.
    #[arg(conflicts_with = "text")]
    pub(crate) words: Vec<String>,
    /// A text that the model reads, instead of words: lists the latents that fire on it, those first that are seldom so
    /// strong.
    #[arg(long)]
    pub(crate) text: Option<String>,
    #[command(flatten)]
    pub(crate) sae: IndexedSaeArgs,
}

/// Flags of `refract compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// Two SAEs of one hook point: folders that `refract train` wrote, or SAEs of other tools.
    #[arg(value_name = "SAE", num_args = 2, required = true)]
    pub(crate) saes: Vec<PathBuf>,
    /// Activations of their model [default: those that the first was trained on].
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// Tokens on which the activations of the latents are compared, rounded up to a whole context.
    #[arg(long, default_value = "100k", value_parser = count::<u64>)]
    pub(crate) tokens: u64,
    /// Number of latents to list of each SAE that have no counterpart.
    #[arg(long, default_value_t = 10, value_parser = at_least_1)]
    pub(crate) top: usize,
}

/// Flags of `refract convert`.
#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The SAE: the folder that `refract train` wrote, or a folder or file of another tool.
    #[arg(value_name = "SAE")]
    pub(crate) sae: PathBuf,
    /// The format to write.
    #[arg(long, value_name = "FORMAT", help = format!("The format to write: {}", SaeFormat::written()))]
    pub(crate) to: SaeFormat,
    /// The folder to write.
    #[arg(long)]
    pub(crate) out: PathBuf,
    /// The hook point of its activations, for an SAE that does not name it.
    #[arg(long)]
    pub(crate) hook_point: Option<HookPoint>,
    /// The model's name in the files that are written [default: its name on the Hub, as far as it is known].
    #[arg(long)]
    pub(crate) model_name: Option<String>,
}

/// Flags of `refract inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A folder of activations or of their parts, an SAE of any format, features, a sweep, a model's folder, a .gguf
    /// file, `default` or `wheel:NAME`.
    pub(crate) path: PathBuf,
    /// Read every byte and compare it with the checksums that folders of refract record.
    #[arg(long)]
    pub(crate) verify: bool,
}

/// Flags of `refract completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Flags of `refract man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The folder to write one page per command into [default: print the page of refract].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}
