//! [`Site`]: an SAE and where it sits in the model: what steering and evaluation need to know of it.

use harvester::{HookPoint, stats::norm};
use trainer::Sae;

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

impl Site<'_> {
    /// Whether a row of a running pass is an attention sink.
    pub(crate) fn is_sink(&self, row: &[f32]) -> bool {
        norm(row) > self.sink_norm
    }
}
