//! [`SaeSite`]: an SAE with its hook point, for steering and evaluation.

use harvester::{HookPoint, Row, is_ordinary, norm};
use trainer::{HookPoints, Sae};

use crate::Result;

/// An SAE with its hook point.
#[derive(Debug, Clone, Copy)]
pub struct SaeSite<'a> {
    /// The SAE.
    pub sae: &'a Sae,
    /// The hook point of its activations.
    pub hook_point: HookPoint,
    /// Rows with a larger norm are attention sinks: the SAE was not trained on them, and they are not changed.
    pub sink_norm: f32,
}

impl SaeSite<'_> {
    /// The hook points that the SAE reads, in order: one, except for a crosscoder.
    pub(crate) fn inputs(&self) -> Vec<HookPoint> {
        match &self.sae.config().hook_points {
            HookPoints::Autoencoder(_) | HookPoints::Transcoder { .. } => vec![self.hook_point],
            crosscoder @ HookPoints::Crosscoder(_) => crosscoder.reads(),
        }
    }

    /// The hook points that it reconstructs: those that it reads, except for a transcoder.
    ///
    /// # Errors
    /// A transcoder that does not name the hook point that it predicts.
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

    /// The hook point at which a pass can continue with the SAE's reconstruction. `None` for a crosscoder, whose later
    /// hook points are computed from its earlier ones, and for a transcoder to a hook point before the one that it
    /// reads.
    pub fn spliced(&self) -> Option<HookPoint> {
        match self.sae.config().hook_points {
            HookPoints::Autoencoder(_) => Some(self.hook_point),
            HookPoints::Transcoder { to, .. } => to.filter(|to| self.hook_point <= *to),
            HookPoints::Crosscoder(_) => None,
        }
    }

    /// True if a row of a running pass counts, by the rule of training ([`harvester::is_ordinary`]). `x`: `[d_in]`
    pub(crate) fn is_ordinary(&self, row: Row, x: &[f32]) -> bool {
        is_ordinary(row.position as u32, norm(x), self.sink_norm)
    }
}
