//! What the hooks of this crate share: activations as rows of numbers, and several variants of a text in one pass.

use candle_core::Tensor;

use crate::{Result, Site};

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

/// `x_hat` of the SAE for every row but attention sinks, which stay.
///
/// # Shapes
/// `x`: `[n, d_in]` -> the same
pub(crate) fn reconstruct(site: Site<'_>, x: &[f32]) -> Result<Vec<f32>> {
    Ok(keep_sinks(site, x, site.sae.reconstruct(x)?.1))
}

/// Zeros for every row but attention sinks, which stay.
pub(crate) fn ablate(site: Site<'_>, x: &[f32]) -> Vec<f32> {
    keep_sinks(site, x, vec![0.0; x.len()])
}

/// `replaced` with the sinks of `x` put back. `[n, d_in]` both
fn keep_sinks(site: Site<'_>, x: &[f32], mut replaced: Vec<f32>) -> Vec<f32> {
    let d_in = site.sae.d_in();
    for (x, replaced) in x.chunks_exact(d_in).zip(replaced.chunks_exact_mut(d_in)) {
        if site.is_sink(x) {
            replaced.copy_from_slice(x);
        }
    }
    replaced
}
