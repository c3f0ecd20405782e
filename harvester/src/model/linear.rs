//! [`Linear`]: `y = x W^T + b`, the matrix products in which nearly all of a forward pass is spent.

use candle_core::Tensor;

use crate::Result;

/// A matrix as checkpoints store it, with an optional bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// `[d_out, d_in]`
    weight: Tensor,
    /// `[d_out]`
    bias: Option<Tensor>,
}

impl Linear {
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// # Shapes
    /// `x`: `[batch, pos, d_in]` -> `[batch, pos, d_out]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, pos, d_in) = x.dims3()?;
        // One product over all tokens: a batched one would pack the weight again for every row of the batch.
        let y = x.reshape((batch * pos, d_in))?.matmul(&self.weight.t()?)?; // [batch * pos, d_out]
        let y = match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        };
        Ok(y.reshape((batch, pos, ()))?)
    }
}
