//! Functions that the hooks of this crate share: activations as rows of numbers.

use candle_core::{CpuStorage, Storage, Tensor};

use crate::Result;

/// The rows of an activation. `[rows, d]`, row-major
pub(crate) fn rows(activation: &Tensor) -> Result<Vec<f32>> {
    Ok(activation.flatten_all()?.to_vec1()?)
}

/// The activation with its rows replaced by `rows`, row-major.
pub(crate) fn replaced(activation: &Tensor, rows: Vec<f32>) -> Result<Tensor> {
    Ok(Tensor::from_vec(rows, activation.shape(), activation.device())?)
}

/// Calls `read` with the rows of a tensor, `[rows, d]` row-major, without a copy where they are in memory.
pub(crate) fn with_rows<T>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((from, to))) = (&*storage, layout.contiguous_offsets()) {
        return Ok(read(&values[from..to]));
    }
    Ok(read(&rows(tensor)?))
}
