//! [`Site`]: an SAE and where it sits in the model: what steering and evaluation need to know of it.

use harvester::{HookPoint, norm};
use trainer::{HookPoints, Sae};

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
    /// What the SAE reads, one after the other: one hook point, except of a crosscoder.
    pub(crate) fn inputs(&self) -> Vec<HookPoint> {
        match &self.sae.config().hook_points {
            HookPoints::Autoencoder(_) | HookPoints::Transcoder { .. } => vec![self.hook_point],
            crosscoder @ HookPoints::Crosscoder(_) => crosscoder.reads(),
        }
    }

    /// What it rebuilds: what it reads, except of a transcoder.
    ///
    /// # Errors
    /// A transcoder that does not say what it predicts.
    pub(crate) fn targets(&self) -> Result<Vec<HookPoint>> {
        match self.sae.config().hook_points {
            HookPoints::Autoencoder(_) | HookPoints::Crosscoder(_) => Ok(self.inputs()),
            HookPoints::Transcoder { to: Some(to), .. } => Ok(vec![to]),
            HookPoints::Transcoder { to: None, .. } => {
                let found = format!("one to {} values of an unnamed hook point", self.sae.d_out());
                let expected = "one that names the hook point that it predicts";
                Err(harvester::Error::invalid("transcoder", expected, found).into())
            }
        }
    }

    /// The hook point where a pass can go on with what the SAE rebuilds. `None` for a crosscoder, whose later hook points
    /// are computed from its earlier ones, and for a transcoder to a hook point before the one that it reads.
    pub fn spliced(&self) -> Option<HookPoint> {
        match self.sae.config().hook_points {
            HookPoints::Autoencoder(_) => Some(self.hook_point),
            HookPoints::Transcoder { to, .. } => to.filter(|to| self.hook_point <= *to),
            HookPoints::Crosscoder(_) => None,
        }
    }

    /// Whether a row of a running pass is an attention sink.
    pub(crate) fn is_sink(&self, row: &[f32]) -> bool {
        norm(row) > self.sink_norm
    }
}
