//! Activation shards: parquet files in which a row is a token. [`ShardWriter`] cuts the stream of contexts into row
//! groups and parts and keeps the manifest true; [`ActivationDataset`] reads the folder back, a row group at a time.
//!
//! A context's rows are contiguous and lie in one row group, so each row group can be shuffled, dropped or shown alone.

mod dataset;
mod part_writer;
mod plain_lists;
mod rows;
mod schema;
#[cfg(test)]
pub(crate) mod testing;
mod writer;

pub use dataset::{ActivationDataset, RowGroup};
pub use rows::{ActivationRows, TokenRows, Values};
pub use schema::StorageDtype;
pub use writer::ShardWriter;
pub(crate) use writer::push_tokens;
