//! Numbers and their cost: storage types, statistics over rows, vector instructions, the speed of this machine, and how
//! people read them.

pub mod human;
mod machine;
pub mod simd;
mod stats;
mod storage_dtype;

pub(crate) use self::stats::{HookPointStatistics, NormHistogram};
pub use self::{
    machine::gemm_flops,
    stats::{SINK_MULTIPLE, is_ordinary, norm},
    storage_dtype::StorageDtype,
};
