//! The flags of the commands that take no settings from `--config`: `show`, `find`, `inspect`, `convert`, `demo`.

use std::path::PathBuf;

use clap::Args;
use harvester::HookPoint;
use trainer::SaeFormat;

/// Flags of `refract demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Where everything goes. A second run reuses what the first finished.
    #[arg(long, default_value = "demo")]
    pub(crate) out: PathBuf,
    /// Tokens to harvest.
    #[arg(long, default_value_t = 160_000)]
    pub(crate) tokens: u64,
    /// Tokens to train on, going over the harvested ones several times.
    #[arg(long, default_value_t = 1_600_000)]
    pub(crate) train_tokens: u64,
}

/// Flags of `refract show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The folder that `refract index` wrote.
    #[arg(long)]
    pub(crate) features: PathBuf,
    /// The latents to show [default: the most interpretable ones].
    pub(crate) latents: Vec<u32>,
    /// How many latents to show where none is named.
    #[arg(long, default_value_t = 12, conflicts_with = "latents")]
    pub(crate) top: usize,
    /// Examples shown of each.
    #[arg(long, default_value_t = 5)]
    pub(crate) examples: usize,
}

/// Flags of `refract find`.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    /// The folder that `refract index` wrote.
    #[arg(long)]
    pub(crate) features: PathBuf,
    /// Sources in which the latents should fire: names of the corpus' files, as `refract inspect` lists them.
    #[arg(long, num_args = 1.., required = true)]
    pub(crate) positive: Vec<String>,
    /// Sources in which they should not.
    #[arg(long, num_args = 1.., required = true)]
    pub(crate) negative: Vec<String>,
    /// How many latents to list.
    #[arg(long, default_value_t = 10)]
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
    /// Where in the model its activations are from, for an SAE that does not say so.
    #[arg(long)]
    pub(crate) hook_point: Option<HookPoint>,
    /// The model's name, for an SAE that does not say so.
    #[arg(long)]
    pub(crate) model_name: Option<String>,
}

/// Flags of `refract inspect`.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A folder of activations or of their parts, an SAE of any format, features, a sweep, a model folder, a .gguf
    /// file, `default` or `wheel:NAME`.
    pub(crate) path: PathBuf,
    /// Read every byte and compare it with the recorded checksums, which folders of refract have.
    #[arg(long)]
    pub(crate) verify: bool,
}
