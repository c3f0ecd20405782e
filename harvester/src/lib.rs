//! Runs a small open transformer over text and streams the requested residual-stream activations into parquet shards.
//! First stage of `refract`: everything downstream reads the folder that [`harvest()`] writes.
//!
//! The modules below stand in order: each uses only what stands before it (`tests/module_order.rs` checks this).
//! `source` finds the model, `model` runs it and lets hooks see its activations, `text` turns documents into contexts
//! of tokens, `language_model` is a model with its tokenizer, `activations` is the folder on disk, `harvest` is the
//! loop that fills it, and `vectors` reads parquet files of any origin.

mod error;
mod settings;
mod monitor;
mod numbers;
mod progress;
mod store;
mod source;
mod model;
mod text;
mod language_model;
mod activations;
mod harvest;
mod vectors;

pub use activations::{
    ActivationDataset, ActivationRows, Counts, DocumentRecord, DocumentsFile, HarvestConfig, HarvestManifest,
    HookPointSummary, Layout, NormQuantiles, Part, RowGroup, ShardWriter, SourceCounts, TokenRows, Values,
};
pub use error::{Error, Result};
pub use harvest::{LiveModel, StreamedBatch, forward_estimate, harvest, merge, open_corpus};
pub use language_model::{LanguageModel, ModelIdentity};
pub use model::{
    Batch, Compute, Edit, Family, Hook, HookPattern, HookPoint, KvCache, ModelConfig, NoHook, Row, Rows, Site,
};
pub use monitor::{Monitor, Silent};
pub use numbers::{SINK_MULTIPLE, StorageDtype, gemm_flops, human, is_ordinary, norm, simd};
pub use progress::Progress;
pub use settings::{Settings, config_of};
pub use source::ModelSource;
pub use store::{
    ArtifactRef, Cell, Column, Location, Manifest, OutputFolder, Table, TableReader, TableWriter, Value, differences,
    go_on, sha256_bytes, sha256_file, write_atomically,
};
pub use text::{
    ChatDate, Context, ContextCursor, Corpus, CorpusOptions, CorpusPart, CorpusSource, LongDocuments, NamedSource,
    Packing, Role, SpecialToken, TextTokenizer,
};
pub use vectors::{VectorDataset, VectorFile};
