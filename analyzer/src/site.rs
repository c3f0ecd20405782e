//! [`Site`]: an SAE and where it sits in the model: what steering and evaluation need to know of it.

use harvester::{HookPoint, stats::norm};
use trainer::{Sae, SaeManifest};

use crate::Result;

/// An SAE in its place.
#[derive(Debug, Clone, Copy)]
pub struct Site<'a> {
    /// The SAE.
    pub sae: &'a Sae,
    /// Where in the model its activations are from.
    pub hook_point: HookPoint,
    /// Rows of a larger norm are attention sinks: it was not trained on them, and they are left alone.
    pub sink_norm: f32,
}

impl<'a> Site<'a> {
    /// The place that the SAE's manifest records.
    ///
    /// # Errors
    /// When it records none: the SAE was trained on vectors of no model.
    pub fn new(sae: &'a Sae, manifest: &SaeManifest) -> Result<Self> {
        let (_, hook_point) = manifest.site()?;
        Ok(Self { sae, hook_point, sink_norm: manifest.sink_norm })
    }

    /// Whether a row of a running pass is an attention sink.
    pub(crate) fn is_sink(&self, row: &[f32]) -> bool {
        norm(row) > self.sink_norm
    }
}
