//! [`Hook`]: sees activations as the forward pass computes them, and may replace them. Harvesting, steering and
//! splicing an SAE into the model are three implementations of it.

use std::collections::HashMap;

use candle_core::Tensor;

use super::{HookPoint, Rows};
use crate::Result;

/// Watches or edits a forward pass. [`Send`], because a pass of few tokens runs on another thread.
pub trait Hook: Send {
    /// True if [`Hook::apply`] is to be called at `point`. If no logits are needed, the pass ends after the last such
    /// point.
    fn wants(&self, point: HookPoint) -> bool;

    /// Sees the activation at `point`, with its rows described by `rows`, and returns what the rest of the pass uses.
    ///
    /// # Shapes
    /// `activation`: `[rows, width]`
    ///
    /// # Errors
    /// Any error of the implementation's tensor operations.
    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> Result<Edit>;
}

/// The activation that the rest of a pass uses after a hook.
#[derive(Debug, Clone)]
pub enum Edit {
    /// The same activation.
    Keep,
    /// Another activation of the same shape.
    Replace(Tensor),
    /// Several activations of the same shape. The rest of the pass runs once for each, so that one pass compares edits
    /// of the same text. Its result has the rows of the first variant, then those of the second, and so on. In a pass
    /// with a cache, all variants continue the past that it holds, and the cache stays as it was: so thousands of edits
    /// of one token share everything before it.
    Variants(Vec<Tensor>),
}

/// Hooks nothing: the pass gives exactly the model's own bits.
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

/// Keeps the activations at the given points.
#[derive(Debug, Clone, Default)]
pub(crate) struct Capture {
    points: Vec<HookPoint>,
    captured: HashMap<HookPoint, Tensor>,
}

impl Capture {
    /// Captures at each of `points`.
    pub(crate) fn new(points: impl Into<Vec<HookPoint>>) -> Self {
        Self { points: points.into(), captured: HashMap::new() }
    }

    /// The last activation at `point`, `[rows, width]`; `None` if no pass has reached it since the previous call.
    pub(crate) fn take(&mut self, point: HookPoint) -> Option<Tensor> {
        self.captured.remove(&point)
    }
}

impl Hook for Capture {
    fn wants(&self, point: HookPoint) -> bool {
        self.points.contains(&point)
    }

    fn apply(&mut self, point: HookPoint, _rows: &Rows, activation: &Tensor) -> Result<Edit> {
        self.captured.insert(point, activation.clone()); // tensors are reference-counted: nothing is copied
        Ok(Edit::Keep)
    }
}
