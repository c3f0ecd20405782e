//! Numbers and their cost: storage types, statistics over rows, vector instructions, and the speed and memory of this
//! machine.

pub mod machine;
pub mod simd;
mod stats;
mod storage_dtype;

pub(crate) use self::stats::{HookPointStatistics, NormHistogram};
pub use self::{
    stats::{SINK_MULTIPLE, is_ordinary, norm},
    storage_dtype::StorageDtype,
};
