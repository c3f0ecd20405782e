//! [`merge`]: one artifact of those of the parts of a corpus, whichever stage wrote them.

use std::path::{Path, PathBuf};

use harvester::{HarvestManifest, Location, Monitor};
use serde_json::{Value, json};

use crate::{FeaturesManifest, Result, artifact::ArtifactKind, merge_indexes};

/// What was merged.
#[derive(Debug)]
pub enum Merged {
    /// Activations.
    Activations(Box<HarvestManifest>),
    /// Indexes.
    Features(Box<FeaturesManifest>),
}

impl Merged {
    /// What there is now, a line each.
    pub fn summary(&self) -> Vec<String> {
        match self {
            Self::Activations(manifest) => vec![manifest.to_string()],
            Self::Features(manifest) => manifest.summary().to_vec(),
        }
    }

    /// The same for programs. `out` is the folder as it was named.
    pub fn to_json(&self, out: &Path) -> Value {
        match self {
            Self::Activations(it) => json!({ "out": out, "counts": it.counts, "complete": it.complete }),
            Self::Features(it) => json!({ "out": out, "d_sae": it.d_sae, "tokens": it.tokens }),
        }
    }
}

/// Merges `folders` into `out`: indexes if the first of them is one, else harvests.
///
/// # Errors
/// As [`merge_indexes`] and [`harvester::merge()`].
pub fn merge(folders: &[PathBuf], out: &Path, monitor: &dyn Monitor) -> Result<Merged> {
    if let Some(Ok(ArtifactKind::Features)) = folders.first().map(|folder| ArtifactKind::of(folder)) {
        return Ok(Merged::Features(merge_indexes(folders, None, out, monitor)?.into()));
    }
    let folders: Vec<_> = folders.iter().map(|folder| Location::named(folder)).collect::<Result<_, _>>()?;
    Ok(Merged::Activations(harvester::merge(&folders, Location::named(out)?, monitor)?.into()))
}
