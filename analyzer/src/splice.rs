//! What the hooks of this crate share: activations as rows of numbers, and several variants of a text in one pass.

use candle_core::Tensor;
use harvester::LanguageModel;

use crate::Result;

/// Token ids as one row. `[1, pos]`
pub(crate) fn row(model: &LanguageModel, tokens: &[u32]) -> Result<Tensor> {
    Ok(Tensor::from_slice(tokens, (1, tokens.len()), model.device())?)
}

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
