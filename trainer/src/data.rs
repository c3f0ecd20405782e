//! Training rows: their sources, the rows that are used, and the order and units in which a run sees them.

pub(crate) mod activation_source;
pub(crate) mod activations;
pub(crate) mod harvested_data;
pub(crate) mod live_source;
pub(crate) mod rows;
pub(crate) mod shard_source;
pub(crate) mod shuffle_buffer;
pub(crate) mod standardize;
pub(crate) mod training_data;
pub(crate) mod vector_data;
