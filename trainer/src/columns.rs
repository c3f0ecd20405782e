//! [`Columns`]: which places of a model a row is made of, and in which order. One is what an SAE reads; several inputs
//! are a crosscoder's; an input and a target are a transcoder's.
//!
//! ```text
//! row = (inputs[0], inputs[1], .., target)
//! ```

use std::path::Path;

use harvester::{HarvestManifest, HookPoint};

use crate::{Error, Result, TrainConfig};

/// The hook points of a run's rows; none where the rows are vectors of no model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Columns {
    /// What the encoder reads.
    pub(crate) inputs: Vec<HookPoint>,
    /// What the decoder writes, where that is not the inputs again.
    pub(crate) target: Option<HookPoint>,
}

impl Columns {
    /// The columns that `config` names, all of them harvested; without a name, the only one that is there.
    pub(crate) fn of(config: &TrainConfig, manifest: &HarvestManifest) -> Result<Self> {
        let inputs = match (config.hook_point, &config.hook_points[..]) {
            (Some(only), []) => vec![only],
            (None, []) => vec![the_only_one(config.target_hook_point, manifest)?],
            (Some(first), several) if several[0] != first => {
                let expected = format!("the first of hook_points, {}, or none", several[0]);
                return Err(Error::invalid("hook_point", expected, first.to_string()));
            }
            (_, several) => several.to_vec(),
        };
        let columns = Self { inputs, target: config.target_hook_point };
        let all = columns.all();
        all.iter().try_for_each(|point| manifest.hook_point(*point).map(drop))?;
        match all.iter().enumerate().find(|(place, point)| all[..*place].contains(point)) {
            Some((_, twice)) => Err(Error::invalid("--hook-point", "each place once", format!("{twice} twice"))),
            None => Ok(columns),
        }
    }

    /// Refuses names of columns for data that have none.
    pub(crate) fn none(config: &TrainConfig, vectors: &Path) -> Result<Self> {
        match config.named_hook_points().first() {
            None => Ok(Self::default()),
            Some(point) => {
                let expected = format!("none: {} holds vectors, not a model's activations", vectors.display());
                Err(Error::invalid("--hook-point", expected, point.to_string()))
            }
        }
    }

    /// The inputs, then the target: the order in a row.
    pub(crate) fn all(&self) -> Vec<HookPoint> {
        self.inputs.iter().copied().chain(self.target).collect()
    }
}

/// The only column beside the target.
fn the_only_one(target: Option<HookPoint>, manifest: &HarvestManifest) -> Result<HookPoint> {
    let harvested = manifest.hook_points.iter().map(|summary| summary.name);
    let candidates: Vec<_> = harvested.filter(|point| Some(*point) != target).collect();
    match candidates[..] {
        [only] => Ok(only),
        _ => {
            let names: Vec<_> = candidates.iter().map(ToString::to_string).collect();
            Err(Error::invalid("--hook-point", format!("one of {}", names.join(", ")), "none"))
        }
    }
}
