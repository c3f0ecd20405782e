//! What the hooks of this crate share: activations as rows of numbers, and several variants of a text in one pass.

use candle_core::Tensor;
use trainer::Sae;

use crate::Result;

/// The rows of an activation. `[batch, pos, d]` -> `[batch * pos, d]`, row-major.
pub(crate) fn rows(activation: &Tensor) -> Result<Vec<f32>> {
    Ok(activation.flatten_all()?.to_vec1()?)
}

/// `activation` followed by its `variants` along the batch, so that the rest of the pass runs all of them.
///
/// # Shapes
/// `activation`: `[batch, pos, d]`; each variant the same, row-major -> `[(1 + variants) * batch, pos, d]`
pub(crate) fn stack(activation: &Tensor, variants: Vec<Vec<f32>>) -> Result<Tensor> {
    let mut all = vec![activation.clone()];
    for variant in variants {
        all.push(Tensor::from_vec(variant, activation.shape(), activation.device())?);
    }
    Ok(Tensor::cat(&all, 0)?)
}

/// `x_hat = decode(encode(x))` for every row but attention sinks, which stay: no SAE is trained on them.
///
/// # Shapes
/// `x`: `[n, d_in]` -> the same
pub(crate) fn reconstruct(sae: &Sae, x: &[f32], sink_norm: f32) -> Result<Vec<f32>> {
    let mut x_hat = sae.decode(&sae.encode(x)?);
    for (x, x_hat) in x.chunks_exact(sae.d_in()).zip(x_hat.chunks_exact_mut(sae.d_in())) {
        if is_sink(x, sink_norm) {
            x_hat.copy_from_slice(x);
        }
    }
    Ok(x_hat)
}

/// Zeros for every row but attention sinks.
pub(crate) fn ablate(x: &[f32], d_in: usize, sink_norm: f32) -> Vec<f32> {
    let mut ablated = vec![0.0; x.len()];
    for (x, ablated) in x.chunks_exact(d_in).zip(ablated.chunks_exact_mut(d_in)) {
        if is_sink(x, sink_norm) {
            ablated.copy_from_slice(x);
        }
    }
    ablated
}

/// Whether a row is an attention sink by its norm.
pub(crate) fn is_sink(row: &[f32], sink_norm: f32) -> bool {
    row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt() > f64::from(sink_norm)
}
