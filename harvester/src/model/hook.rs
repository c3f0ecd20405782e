//! [`Hook`]: sees activations as the forward pass produces them and may replace them. Harvesting, steering and
//! splicing an SAE into the model are this one mechanism with three implementations.

use std::collections::HashMap;

use candle_core::Tensor;

use super::HookPoint;
use crate::Result;

/// Watches or edits a forward pass.
pub trait Hook {
    /// Whether [`Hook::apply`] is to be called at `point`. The pass ends after the last point wanted when nobody
    /// asks for logits.
    fn wants(&self, point: HookPoint) -> bool;

    /// Sees the activation at `point` and returns what the rest of the pass uses instead, or `None` to leave it.
    ///
    /// # Shapes
    /// `activation`: `[batch, pos, width]`. A replacement has the same `pos` and `width`; its `batch` may grow, so that
    /// one pass compares several edits of the same text.
    ///
    /// # Errors
    /// Whatever the implementation's tensor operations raise.
    fn apply(&mut self, point: HookPoint, activation: &Tensor) -> Result<Option<Tensor>>;
}

/// Wants nothing: the pass is the model's own, bit for bit.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHook;

impl Hook for NoHook {
    fn wants(&self, _point: HookPoint) -> bool {
        false
    }

    fn apply(&mut self, _point: HookPoint, _activation: &Tensor) -> Result<Option<Tensor>> {
        Ok(None)
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

    /// The activation last seen at `point`, `[batch, pos, width]`; `None` where no pass has reached it since.
    pub fn take(&mut self, point: HookPoint) -> Option<Tensor> {
        self.captured.remove(&point)
    }
}

impl Hook for Capture {
    fn wants(&self, point: HookPoint) -> bool {
        self.points.contains(&point)
    }

    fn apply(&mut self, point: HookPoint, activation: &Tensor) -> Result<Option<Tensor>> {
        self.captured.insert(point, activation.clone()); // a tensor is reference-counted: no copy is made
        Ok(None)
    }
}
