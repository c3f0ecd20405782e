//! Activation shards: parquet files in which a row is a token. [`ShardWriter`] cuts the stream of contexts into row
//! groups and parts and keeps the manifest true; [`ActivationDataset`] reads the folder back, a row group at a time.
//!
//! A context's rows are contiguous and lie in one row group, so each row group can be shuffled, dropped or shown alone.

mod dataset;
mod journal;
mod open_part;
mod part_file;
mod part_writer;
mod rows;
mod schema;
mod stored_batch;
#[cfg(test)]
pub(crate) mod testing;
mod value_chunks;
mod writer;

pub(crate) use dataset::folders_of;
pub use dataset::{ActivationDataset, RowGroup};
pub(crate) use open_part::part_statistics;
pub(crate) use part_file::PartFile;
pub use rows::{ActivationRows, TokenRows, Values};
pub(crate) use schema::ShardSchema;
pub use schema::{Layout, StorageDtype};
pub(crate) use stored_batch::{StoredBatch, norms};
pub use writer::ShardWriter;
pub(crate) use writer::{has_journal, is_journal_of, part_file};
