//! [`Hook`]: sees activations as the forward pass produces them and may replace them. Harvesting, steering and
//! splicing an SAE into the model are this one mechanism with three implementations.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{HookPoint, Rows};
use crate::Result;

/// Watches or edits a forward pass.
pub trait Hook {
    /// Whether [`Hook::apply`] is to be called at `point`. The pass ends after the last point wanted when nobody
    /// asks for logits.
    fn wants(&self, point: HookPoint) -> bool;

    /// Sees the activation at `point`, each row of which `rows` names, and says what the rest of the pass uses.
    ///
    /// # Shapes
    /// `activation`: `[rows, width]`
    ///
    /// # Errors
    /// Whatever the implementation's tensor operations raise.
    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> Result<Edit>;
}

/// What the rest of a pass uses of an activation that a hook has seen.
#[derive(Debug, Clone)]
pub enum Edit {
    /// The activation as it is.
    Keep,
    /// Another of the same shape.
    Replace(Tensor),
    /// Each of several of the same shape: the rest of the pass runs once for each, so that one pass compares edits of
    /// the same text. Its result has the rows of the first, then those of the second, and so on. Refused in a pass with
    /// a cache, which holds one past of each sequence.
    Variants(Vec<Tensor>),
}

/// Wants nothing: the pass is the model's own, bit for bit.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {
    fn wants(&self, _point: HookPoint) -> bool {
        false
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, _activation: &Tensor) -> Result<Edit> {
        Ok(Edit::Keep)
    }
}

/// Keeps the activations at the points it was made for.
#[derive(Debug, Clone, Default)]
pub struct Capture {
    points: Vec<HookPoint>,
    captured: HashMap<HookPoint, Tensor>,
}

impl Capture {
    /// Captures at each of `points`.
    pub fn new(points: impl Into<Vec<HookPoint>>) -> Self {
        Self { points: points.into(), captured: HashMap::new() }
    }

    /// The activation last seen at `point`, `[rows, width]`; `None` where no pass has reached it since.
    pub fn take(&mut self, point: HookPoint) -> Option<Tensor> {
        self.captured.remove(&point)
    }
}

impl Hook for Capture {
    fn wants(&self, point: HookPoint) -> bool {
        self.points.contains(&point)
    }

    fn apply(&mut self, point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
        self.captured.insert(point, activation.clone()); // a tensor is reference-counted: no copy is made
        Ok(Edit::Keep)
    }
}
