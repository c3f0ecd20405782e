//! [`SaeArgs`]: which SAE a command works with; and the flags of the commands that take one: `evaluate`, `index`,
//! `steer`.

use std::path::PathBuf;

use clap::Args;
use harvester::HookPoint;
use serde::Serialize;

/// The SAE, and the activations and the place that it is used on.
#[derive(Debug, Args)]
pub(crate) struct SaeArgs {
    /// The folder that `refract train` wrote, or an SAE of another tool, as `refract convert` reads it.
    #[arg(long)]
    pub(crate) sae: PathBuf,
    /// Activations of its model [default: those the SAE was trained on]. An SAE of another tool needs them: they say
    /// which model that is.
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// Where in the model its activations are from, for an SAE of another tool that does not say so.
    #[arg(long)]
    pub(crate) hook_point: Option<HookPoint>,
}

/// Flags of `refract evaluate`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) sae: SaeArgs,
    /// Tokens to run the whole model on [default: 8192].
    #[arg(long)]
    pub(crate) ce_tokens: Option<u64>,
}

/// Flags of `refract index`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct IndexArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) sae: SaeArgs,
    /// The folder to write.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) out: PathBuf,
    /// Strongest examples kept of each latent [default: 20].
    #[arg(long)]
    pub(crate) examples: Option<usize>,
    /// Tokens shown on each side of an example's peak [default: 12].
    #[arg(long)]
    pub(crate) reach: Option<usize>,
    /// Promoted and suppressed tokens kept [default: 10].
    #[arg(long)]
    pub(crate) logit_tokens: Option<usize>,
    /// Nearest latents kept [default: 5].
    #[arg(long)]
    pub(crate) neighbours: Option<usize>,
}

/// Flags of `refract steer`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SteerArgs {
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) sae: SaeArgs,
    /// The text to go on from.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) prompt: String,
    /// Put the prompt to a chat model as a user's message.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) chat: bool,
    /// Set a latent's activation on every token; 0 suppresses it.
    #[arg(long, value_name = "LATENT=VALUE", num_args = 1..)]
    #[serde(skip)]
    pub(crate) clamp: Vec<LatentValue>,
    /// Multiply a latent's activation where it is active.
    #[arg(long, value_name = "LATENT=FACTOR", num_args = 1..)]
    #[serde(skip)]
    pub(crate) scale: Vec<LatentValue>,
    /// New tokens at most [default: 48].
    #[arg(long)]
    pub(crate) max_new_tokens: Option<usize>,
    /// 0: always the likeliest token [default: 0].
    #[arg(long)]
    pub(crate) temperature: Option<f64>,
    /// Sample from the likeliest tokens that together have this probability [default: 1].
    #[arg(long)]
    pub(crate) top_p: Option<f64>,
    /// Seed of the sampling [default: 0].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
}

/// `LATENT=VALUE`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LatentValue {
    pub(crate) latent: u32,
    pub(crate) value: f32,
}

impl std::str::FromStr for LatentValue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=');
        let parsed = parts.and_then(|(latent, value)| Some((latent.parse().ok()?, value.parse().ok()?)));
        let (latent, value) = parsed.ok_or_else(|| format!("expected LATENT=VALUE, such as 1234=0, found `{text}`"))?;
        Ok(Self { latent, value })
    }
}
