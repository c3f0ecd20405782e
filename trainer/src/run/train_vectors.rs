//! [`train_vectors`]: trains an SAE on vectors that another program computed. It is the loop of [`crate::train()`] with
//! other data.

use std::path::Path;

use harvester::{Monitor, VectorDataset};

use crate::{Result, TrainConfig, data::vector_data::VectorData, manifest::SaeManifest, run::train::train_on};

/// Trains an SAE on `vectors` into the folder `out`. The held-out rows are drawn one by one from the config's seed,
/// because files may be sorted. Resumes like [`crate::train()`]; files that have changed since the run began are
/// refused.
///
/// # Errors
/// As [`crate::train()`], or when the config names a hook point.
pub fn train_vectors(
    vectors: &VectorDataset,
    config: &TrainConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<SaeManifest> {
    config.check_vectors(vectors.dir())?;
    train_on(&VectorData(vectors), config, out, monitor)
}
