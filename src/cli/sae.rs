//! [`SaeArgs`]: the SAE that a command works with; and the flags of the commands that take one: `evaluate`, `index`,
//! `steer`.

use std::path::PathBuf;

use analyzer::SaeSource;
use clap::Args;
use harvester::{Compute, CorpusPart, HookPoint};
use serde::Serialize;

use super::value::{at_least_1, count, number, required, share};

/// The SAE, and the activations and the hook point with which it is used.
#[derive(Debug, Clone, Args)]
pub(crate) struct SaeArgs {
    /// The folder that `refract train` wrote, or an SAE of another tool, as `refract convert` reads it [required, here
    /// or in --config].
    #[arg(long)]
    pub(crate) sae: Option<PathBuf>,
    /// Activations of its model [default: those that the SAE was trained on]. An SAE of another tool needs them: they
    /// say which model it belongs to.
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// The hook point of its activations, for an SAE of another tool that does not name it.
    #[arg(long)]
    pub(crate) hook_point: Option<HookPoint>,
    /// The model's present place, if it has moved: a folder, a .gguf file, or a name as for harvest. It must be the
    /// same model.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Use the SAE on another model of the same width (another checkpoint, precision or fine-tune): that of
    /// --activations; without activations, as in steer, --model.
    #[arg(long)]
    pub(crate) other_model: bool,
}

impl SaeArgs {
    /// The SAE that the flags name.
    pub(crate) fn source(&self) -> anyhow::Result<SaeSource> {
        let sae = required(&self.sae, "this command", "sae")?;
        let Self { activations, hook_point, model, other_model, .. } = self.clone();
        Ok(SaeSource { sae, activations, hook_point, model, other_model })
    }
}

/// Flags of `refract evaluate`.
#[derive(Debug, Args)]
pub(crate) struct EvaluateArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    #[command(flatten)]
    pub(crate) config: EvaluationArgs,
}

/// Settings of [`analyzer::EvaluationConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct EvaluationArgs {
    /// Tokens to run the whole model on.
    #[arg(long, value_name = "TOKENS", value_parser = count::<u64>)]
    pub(crate) ce_tokens: Option<u64>,
}

/// Flags of `refract index`.
#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// The folder to write. The same command resumes an unfinished run there [required, here or in --config].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: IndexConfigArgs,
    #[command(flatten)]
    pub(crate) corpus: CorpusTextArgs,
}

/// Flags of a corpus that the SAE's model reads; they win over the table `[harvest]`.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "A corpus that the model reads (other settings: [harvest] in --config)")]
pub(crate) struct CorpusTextArgs {
    /// The corpus, as harvest takes it. Contexts are made as for the SAE's activations.
    #[arg(long, num_args = 1..)]
    pub(crate) corpus: Vec<PathBuf>,
    /// Stop after this many tokens [default: the whole corpus].
    #[arg(long, requires = "corpus", value_parser = count::<u64>)]
    pub(crate) tokens: Option<u64>,
    /// Tokens per context [default: as the SAE was trained].
    #[arg(long, requires = "corpus", value_parser = count::<usize>)]
    pub(crate) ctx_len: Option<usize>,
    /// Numbers in the model's matrix products, f32 or int8.
    #[arg(long, requires = "corpus")]
    pub(crate) compute: Option<Compute>,
    /// Read one part of the corpus, 0/16 to 15/16, each into its own folder, as for merge.
    #[arg(long, value_name = "INDEX/OF", requires = "corpus")]
    #[serde(skip)]
    pub(crate) part: Option<CorpusPart>,
}

/// Settings of [`analyzer::IndexConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct IndexConfigArgs {
    /// Strongest examples kept per latent, repeated text once.
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub(crate) examples: Option<usize>,
    /// Tokens shown on each side of an example's peak.
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) reach: Option<usize>,
    /// Promoted and suppressed tokens kept per latent, each.
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub(crate) logit_tokens: Option<usize>,
    /// Nearest latents kept per latent, and of those that fire together.
    #[arg(long, alias = "neighbours", value_name = "N", value_parser = count::<usize>)]
    pub(crate) neighbors: Option<usize>,
    /// Size of the sample of the text: its tokens and their active latents, together at most.
    #[arg(long, value_name = "ENTRIES", value_parser = count::<u64>)]
    pub(crate) sample: Option<u64>,
    /// Do not measure what each latent does to the next token.
    #[arg(long)]
    pub(crate) no_effects: bool,
    /// Write latents.parquet too, the active latents of every token.
    #[arg(long)]
    pub(crate) latents: bool,
}

/// Flags of `refract steer`.
#[derive(Debug, Args)]
pub(crate) struct SteerArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// The text to continue; or several, or files with one in each line or .jsonl with `text` and `source`: then a table
    /// tells the effect, by source [required, here or in --config, without --interactive].
    #[arg(long, num_args = 1..)]
    pub(crate) prompt: Vec<String>,
    /// Ask for prompts, with the model loaded once. A line `/clamp 12=4` changes the edits.
    #[arg(long, conflicts_with_all = ["prompt", "sweep"])]
    pub(crate) interactive: bool,
    /// Put the prompt to a chat model as a user's message.
    #[arg(long)]
    pub(crate) chat: bool,
    /// Try multiples of the strengths of all edits, and plot effect against fluency
    /// [without values: 0.25 0.5 1 1.5 2 3].
    #[arg(long, value_name = "FACTOR", num_args = 0.., value_delimiter = ',', value_parser = number,
          default_missing_values = ["0.25", "0.5", "1", "1.5", "2", "3"])]
    pub(crate) sweep: Vec<f64>,
    /// Rules that watch the text as it is written, and edit or end it.
    #[arg(long, value_name = "FILE.toml", conflicts_with_all = ["interactive", "sweep"])]
    pub(crate) guard: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) edits: EditArgs,
    /// The folder that `refract index` wrote for the SAE, for strengths in `max` and `kl`, and for labels.
    #[arg(long)]
    pub(crate) features: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: GenerateArgs,
}

/// Flags of `refract monitor`.
#[derive(Debug, Args)]
pub(crate) struct MonitorArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// The rules of the guard.
    #[arg(long, value_name = "FILE.toml")]
    pub(crate) guard: PathBuf,
    /// Texts, as harvest takes a corpus: prints where rules begin and cease to hold.
    #[arg(long, num_args = 1.., required_unless_present = "positive", conflicts_with = "positive")]
    pub(crate) corpus: Vec<PathBuf>,
    /// Texts that should be found: measures how well they are, beside --negative.
    #[arg(long, num_args = 1.., requires = "negative")]
    pub(crate) positive: Vec<PathBuf>,
    /// Texts that should not be found.
    #[arg(long, num_args = 1.., requires = "positive")]
    pub(crate) negative: Vec<PathBuf>,
    /// Most tokens to read, of each group.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) tokens: Option<u64>,
}

/// The edits of a text.
#[derive(Debug, Args, Serialize)]
#[command(next_help_heading = "Edits, in this order (a STRENGTH is 4, 1.5max, 0.4norm or 0.25kl)")]
pub(crate) struct EditArgs {
    /// Any edit, as `floor 12=3` or as JSON, which can name positions, conditions and other SAEs; [[steer.edit]] in
    /// --config.
    #[arg(long, value_name = "EDIT", num_args = 1..)]
    pub(crate) edit: Vec<String>,
    /// Set a latent's activation; 0 suppresses it.
    #[arg(long, value_name = "LATENT=STRENGTH", num_args = 1..)]
    pub(crate) clamp: Vec<String>,
    /// Multiply a latent's activation where it is active.
    #[arg(long, value_name = "LATENT=FACTOR", num_args = 1..)]
    pub(crate) scale: Vec<String>,
    /// Add a latent's direction, or the vector of a file, such as `refract direction` writes.
    #[arg(long, value_name = "LATENT|FILE=STRENGTH", num_args = 1..)]
    pub(crate) add: Vec<String>,
    /// Positions of the edits that are not JSON: all, prompt, generated, last_prompt, a range such as 8..20, or several
    /// of them with commas between [default: all].
    #[arg(long)]
    pub(crate) at: Option<String>,
}

/// Flags of `refract direction`.
#[derive(Debug, Args)]
pub(crate) struct DirectionArgs {
    /// Texts to which the direction leads, or files of them, as for steer.
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) positive: Vec<String>,
    /// The texts from which it leads.
    #[arg(long, value_name = "TEXT", num_args = 1.., required = true)]
    pub(crate) negative: Vec<String>,
    /// Where it is made and used.
    #[arg(long, value_name = "POINT")]
    pub(crate) hook_point: HookPoint,
    /// The model, as for harvest.
    #[arg(long, default_value = "default")]
    pub(crate) model: String,
    #[command(flatten)]
    pub(crate) config: DirectionConfigArgs,
    /// Write it as a control vector of llama.cpp too.
    #[arg(long, value_name = "FILE.gguf")]
    pub(crate) export: Option<PathBuf>,
    /// The .safetensors file to write.
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// Settings of [`analyzer::DirectionConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct DirectionConfigArgs {
    /// The difference of the means, or the first principal component of the differences of pairs.
    #[arg(long, value_parser = ["mean", "pca"])]
    pub(crate) method: Option<String>,
    /// The tokens of a text that count.
    #[arg(long, value_parser = ["all", "last"])]
    pub(crate) tokens: Option<String>,
}

/// Settings of [`analyzer::GenerateConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct GenerateArgs {
    /// New tokens at most.
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) max_new_tokens: Option<usize>,
    /// Temperature of the sampling; 0: always the likeliest token.
    #[arg(long, value_parser = number)]
    pub(crate) temperature: Option<f64>,
    /// Sample from this many of the likeliest tokens; 0: all.
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) top_k: Option<usize>,
    /// Sample from the likeliest tokens that together have this probability.
    #[arg(long, value_parser = number)]
    pub(crate) top_p: Option<f64>,
    /// Make tokens that are in the text already less likely, by this factor of their logits.
    #[arg(long, value_name = "FACTOR", value_parser = number)]
    pub(crate) repetition_penalty: Option<f64>,
    /// Seed of the sampling.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Numbers in the model's matrix products, f32 or int8, which writes several times faster.
    #[arg(long)]
    pub(crate) compute: Option<Compute>,
}

/// Flags of `refract encode`.
#[derive(Debug, Args)]
pub(crate) struct EncodeArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// Texts to encode, each a document of its own [this or --corpus is required].
    #[arg(long, num_args = 1.., conflicts_with = "corpus")]
    pub(crate) text: Vec<String>,
    /// The folder that `refract index` wrote for the SAE: latents then have labels, and dense ones are not listed.
    #[arg(long)]
    pub(crate) features: Option<PathBuf>,
    /// Latents listed for each token; --json and --out have all.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = at_least_1)]
    pub(crate) per_token: usize,
    /// Latents that fire on a larger share of the tokens of --features are not listed.
    #[arg(long, value_name = "SHARE", default_value_t = 0.05, value_parser = share, allow_negative_numbers = true)]
    pub(crate) max_density: f64,
    /// Write latents.parquet and documents.parquet into this new folder, instead of listing latents.
    #[arg(long, conflicts_with = "features")]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) corpus: CorpusTextArgs,
}

/// Flags of `refract explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) sae: SaeArgs,
    /// The text whose next token is explained.
    #[arg(long)]
    pub(crate) text: String,
    /// The folder that `refract index` wrote for the SAE: latents then have labels, and dense ones are left out.
    #[arg(long)]
    pub(crate) features: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: ExplainConfigArgs,
}

/// Settings of [`analyzer::ExplainConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct ExplainConfigArgs {
    /// The token to explain, with the space before it [default: the model's own next token].
    #[arg(long)]
    pub(crate) token: Option<String>,
    /// How effects are found: by running the model without the latent, or, for `direct`, by reading its direction off
    /// the head, which ignores the layers above.
    #[arg(long, value_parser = ["ablation", "direct"])]
    pub(crate) method: Option<String>,
    /// Latents listed for each token.
    #[arg(long, value_name = "N", value_parser = at_least_1)]
    pub(crate) per_token: Option<usize>,
    /// Latents listed that matter for the next token.
    #[arg(long, value_name = "N", value_parser = at_least_1)]
    pub(crate) top: Option<usize>,
    /// Latents that fire on a larger share of the tokens of --features are not listed.
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    pub(crate) max_density: Option<f64>,
    /// Latents tried on the whole text; 0: none.
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub(crate) whole_text: Option<usize>,
    /// Latents to measure even if they are silent.
    #[arg(long, value_name = "LATENT", num_args = 1..)]
    pub(crate) latents: Option<Vec<u32>>,
}
