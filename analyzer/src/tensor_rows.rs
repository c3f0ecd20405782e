//! Functions that the hooks of this crate share: activations as rows of numbers.

use candle_core::Tensor;

use crate::Result;

/// The rows of an activation. `[rows, d]`, row-major
pub(crate) fn rows(activation: &Tensor) -> Result<Vec<f32>> {
    Ok(activation.flatten_all()?.to_vec1()?)
}

/// The activation with its rows replaced by `rows`, row-major.
pub(crate) fn replaced(activation: &Tensor, rows: Vec<f32>) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows, activation.shape(), activation.device())?)
}
