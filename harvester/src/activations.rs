//! A folder of activations: parquet files with one row per token, and a manifest that describes how they were made.
//! [`ShardWriter`] cuts the stream of contexts into row groups and parts and keeps the manifest up to date;
//! [`ActivationDataset`] reads the folder back, one row group at a time.
//!
//! The rows of a context are contiguous and in one row group, so each row group can be shuffled, dropped or shown
//! alone.

mod dataset;
mod documents;
mod earlier;
mod harvest_config;
mod harvest_folder;
mod journal;
mod layout;
mod manifest;
mod merged_manifest;
mod open_part;
mod part_names;
mod part_writer;
mod rows;
mod schema;
mod stored_batch;
#[cfg(test)]
pub(crate) mod testing;
mod value_chunks;
mod writer;

pub(crate) use self::{
    dataset::folders_of,
    documents::{DOCUMENTS, Reached, concatenate, write_documents},
    harvest_folder::begin_harvest,
    merged_manifest::merged_manifest,
    stored_batch::{StoredBatch, norms},
};
pub use self::{
    dataset::{ActivationDataset, RowGroup},
    documents::{DocumentRecord, DocumentsFile},
    harvest_config::HarvestConfig,
    layout::Layout,
    manifest::{Counts, HarvestManifest, HookPointSummary, NormQuantiles, Part, SourceCounts},
    rows::{ActivationRows, TokenRows, Values},
    writer::ShardWriter,
};
