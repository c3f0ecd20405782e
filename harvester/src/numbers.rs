//! Numbers and their cost: storage types, statistics over rows, vector instructions, the speed and memory of this
//! machine, and how people read them.

pub mod human;
pub mod machine;
pub mod simd;
mod stats;
mod storage_dtype;

pub(crate) use self::stats::{HookPointStatistics, NormHistogram};
pub use self::{
    stats::{SINK_MULTIPLE, is_ordinary, norm},
    storage_dtype::StorageDtype,
};
