//! [`Head`]: the last step of a model: turns the residual stream into logits.
//!
//! ```text
//! logits = c tanh(ln_final(resid) W_U^T / c)          c: the cap, if the family has one
//! ```

use std::path::PathBuf;

use candle_core::Tensor;

use super::{Compute, ModelConfig, linear::Linear, norm::Norm};
use crate::{Error, Result};

/// The norm before the head, and the unembedding. To compare directions with the vocabulary, this is all that is needed
/// of a model: a fifth of the weights of a small one.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    ln_final: Norm,
    /// W_U, `[d_vocab, d_model]`; or the model whose files lack it: those of a bare model, or of one for another task.
    unembed: Result<Linear, PathBuf>,
    /// W_U in 8 bits, for logits if products are in int8. Rows of W_U, as a tied model embeds tokens with, stay exact.
    int8: Option<Linear>,
    softcap: Option<f64>,
}

impl Head {
    /// `unembed`: `[d_vocab, d_model]`, or the model that lacks it.
    pub(crate) fn new(
        ln_final: Norm,
        unembed: Result<Tensor, PathBuf>,
        config: &ModelConfig,
        compute: Compute,
    ) -> Result<Self> {
        let (mut unembed, mut int8) = (unembed.map(|unembed| Linear::new(unembed, None)), None);
        match (compute, &mut unembed) {
            (Compute::F32, Ok(unembed)) => unembed.pack(compute)?,
            (Compute::Int8, Ok(unembed)) => int8.insert(unembed.clone()).pack(compute)?,
            (_, Err(_)) => {}
        }
        Ok(Self { ln_final, unembed, int8, softcap: config.logit_softcap })
    }

    /// Logits.
    ///
    /// # Shapes
    /// `resid`: `[rows, d_model]` -> `[rows, d_vocab]`
    ///
    /// # Errors
    /// `resid` has another width, or the model was saved without its head.
    pub(crate) fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        let w_u = self.int8.as_ref().map_or_else(|| self.w_u(), Ok)?;
        let logits = w_u.forward(&self.ln_final.forward(resid)?)?;
        match self.softcap {
            Some(cap) => Ok(((logits / cap)?.tanh()? * cap)?),
            None => Ok(logits),
        }
    }

    /// The rows of W_U for `tokens`.
    ///
    /// # Shapes
    /// -> `[tokens, d_model]`
    ///
    /// # Errors
    /// A token outside the vocabulary, or the model was saved without its head.
    pub(crate) fn w_unembed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.w_u()?.rows(tokens)
    }

    fn w_u(&self) -> Result<&Linear> {
        self.unembed.as_ref().map_err(|path| {
            let (found, hint) = ("the weights of a model without it", "Name a model that was saved with its head");
            Error::malformed(path, "the head's matrix, for logits", found, hint)
        })
    }

    /// Directions of the residual stream after the norm, without its scale, which depends on the rest of the residual
    /// stream: `w_final * direction`. A layer norm first subtracts the direction's mean.
    ///
    /// # Shapes
    /// `[rows, d_model]` -> `[rows, d_model]`
    ///
    /// # Errors
    /// `directions` have another width.
    pub(crate) fn normed_directions(&self, directions: &Tensor) -> Result<Tensor> {
        self.ln_final.directions(directions)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::{super::NormKind, *};

    #[test]
    fn a_layer_norm_takes_the_mean_off_a_direction_and_an_rms_norm_does_not() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        for (norm, expected) in [(NormKind::Rms, [2.0, 12.0]), (NormKind::Layer, [-2.0, 4.0])] {
            let ln_final = Norm::new(norm, tensor(&[2.0, 4.0]), Some(tensor(&[0.0, 0.0])), 1e-5).unwrap();
            let head = Head { ln_final, unembed: Err(PathBuf::new()), int8: None, softcap: None };
            let directions = tensor(&[1.0, 3.0]).unsqueeze(0).unwrap();
            let normed: Vec<f32> =
                head.normed_directions(&directions).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(normed, expected);
        }
    }
}
