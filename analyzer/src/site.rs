//! [`Site`]: an SAE and where it sits in the model: what steering and evaluation need to know of it.

use harvester::{HookPoint, norm};
use trainer::Sae;

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

impl Site<'_> {
    /// What the SAE reads, one after the other: one place, but of a crosscoder.
    pub(crate) fn inputs(&self) -> Vec<HookPoint> {
        match &self.sae.config.columns[..] {
            [] => vec![self.hook_point],
            columns => columns.iter().map(|(point, _)| *point).collect(),
        }
    }

    /// What it rebuilds: what it reads, but of a transcoder.
    ///
    /// # Errors
    /// A transcoder that does not say what it predicts.
    pub(crate) fn targets(&self) -> Result<Vec<HookPoint>> {
        match (self.sae.config.is_transcoder(), self.sae.config.hook_point_out) {
            (false, _) => Ok(self.inputs()),
            (true, Some(target)) => Ok(vec![target]),
            (true, None) => {
                let found = format!("one to {} values of a place not named", self.sae.d_out());
                Err(harvester::Error::invalid("transcoder", "one that names the place that it predicts", found).into())
            }
        }
    }

    /// The place where a pass can go on with what the SAE rebuilds. `None` for a crosscoder, whose later places are
    /// computed from its earlier ones, and for a transcoder to a place that is reached before the one that it reads.
    pub fn spliced(&self) -> Option<HookPoint> {
        if !self.sae.config.columns.is_empty() {
            return None;
        }
        let place = if self.sae.config.is_transcoder() { self.sae.config.hook_point_out? } else { self.hook_point };
        (self.hook_point <= place).then_some(place)
    }

    /// Whether a row of a running pass is an attention sink.
    pub(crate) fn is_sink(&self, row: &[f32]) -> bool {
        norm(row) > self.sink_norm
    }
}
