//! Runs a small open transformer over text and streams the residual-stream activations it is asked for into parquet
//! shards. First stage of `refract`: everything downstream reads the folder that [`harvest()`] writes.
//!
//! The data path, one file each: [`model_source`] finds the model, [`model`] runs it, [`corpus`] and [`contexts`]
//! turn text into token contexts, [`hook`] picks activations out of the forward pass, [`shard`] and [`manifest`]
//! put them on disk so that a later reader needs nothing else.

pub mod activation_stream;
pub mod atomic;
pub mod contexts;
pub mod corpus;
pub mod corpus_part;
mod dataset_folder;
pub mod error;
pub mod harvest;
pub mod harvest_config;
mod harvest_folder;
pub mod hook;
pub mod hook_pattern;
pub mod hook_point;
pub mod location;
pub mod machine;
pub mod manifest;
pub mod manifest_file;
pub mod merge;
pub mod model;
pub mod model_source;
pub mod monitor;
pub mod packing;
pub mod shard;
pub mod stats;
pub mod tokenizer;
pub mod vectors;

pub use activation_stream::{ActivationStream, LiveModel, StreamedBatch};
pub use atomic::{AtomicFile, Published, sha256_bytes, sha256_file, write_atomically};
pub use contexts::{Context, ContextCursor, Contexts, LeftOut};
pub use corpus::{Corpus, CorpusOptions, CorpusSource, Document, DocumentOrder};
pub use corpus_part::CorpusPart;
pub use dataset_folder::{RESUME_FOLDER, resume_folder};
pub use error::{Error, Result};
pub use harvest::harvest;
pub use harvest_config::{HarvestConfig, SpecialToken};
pub use harvest_folder::{create_folder, lock};
pub use hook::{Capture, Hook, NoHook};
pub use hook_pattern::HookPattern;
pub use hook_point::{HookPoint, Site};
pub use location::Location;
pub use manifest::{HarvestManifest, HookPointSummary, ModelIdentity};
pub use manifest_file::{read_manifest, write_manifest};
pub use merge::merge;
pub use model::{Checkpoint, Compute, GgufMetadata, KvCache, ModelConfig, Transformer};
pub use model_source::{ModelSource, ResolvedModel};
pub use monitor::{Monitor, Silent};
pub use packing::{ContextOptions, LongDocuments, Packing};
pub use shard::{ActivationDataset, ActivationRows, Layout, RowGroup, ShardWriter, StorageDtype, TokenRows, Values};
pub use tokenizer::{ChatMessage, TextTokenizer};
pub use vectors::{VectorDataset, VectorFile};
