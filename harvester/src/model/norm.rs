//! [`Norm`]: the normalisation before attention, before the MLP and before the head; in some families also of what
//! attention and MLP add.

use candle_core::Tensor;
use candle_nn::ops;

use super::NormKind;
use crate::Result;

/// ```text
/// rms:    y = x / sqrt(mean(x^2) + eps) * weight
/// layer:  y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    kind: NormKind,
    /// `[d_model]`; where a family stores it less one (Gemma), the one was added on load.
    weight: Tensor,
    /// `[d_model]`; zeros for `rms`, which has none.
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, weight: Tensor, bias: Option<Tensor>, eps: f64) -> Result<Self> {
        let bias = match bias {
            Some(bias) => bias,
            None => weight.zeros_like()?,
        };
        Ok(Self { kind, weight, bias, eps })
    }

    /// # Shapes
    /// `x`: `[batch, pos, d_model]` -> the same
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let eps = self.eps as f32;
        Ok(match self.kind {
            NormKind::Rms => ops::rms_norm(&x.contiguous()?, &self.weight, eps)?,
            NormKind::Layer => ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, eps)?,
        })
    }

    pub(crate) fn weight(&self) -> &Tensor {
        &self.weight
    }
}
