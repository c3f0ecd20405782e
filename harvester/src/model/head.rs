//! [`Head`]: the last step of a model: turns the residual stream into logits.
//!
//! ```text
//! logits = c tanh(ln_final(resid) W_U^T / c)          c: the cap, if the family has one
//! ```

use std::path::PathBuf;

use candle_core::Tensor;

use super::{Compute, ModelConfig, NormKind, linear::Linear, norm::Norm};
use crate::{Error, Result};

/// The norm before the head, and the unembedding. To compare directions with the vocabulary, this is all that is needed
/// of a model: a fifth of the weights of a small one.
#[derive(Debug, Clone)]
pub struct Head {
    ln_final: Norm,
    /// W_U, `[d_vocab, d_model]`; or the model whose files lack it: those of a bare model, or of one for another task.
    unembed: Result<Linear, PathBuf>,
    softcap: Option<f64>,
    norm: NormKind,
    d_model: usize,
}

impl Head {
    /// `unembed`: `[d_vocab, d_model]`, or the model that lacks it.
    pub(crate) fn new(ln_final: Norm, unembed: Result<Tensor, PathBuf>, config: &ModelConfig) -> Result<Self> {
        let mut unembed = unembed.map(|unembed| Linear::new(unembed, None));
        if let Ok(unembed) = &mut unembed {
            unembed.pack(Compute::F32)?;
        }
        Ok(Self { ln_final, unembed, softcap: config.logit_softcap, norm: config.norm, d_model: config.d_model })
    }

    /// Logits.
    ///
    /// # Shapes
    /// `resid`: `[rows, d_model]` -> `[rows, d_vocab]`
    ///
    /// # Errors
    /// `resid` has another width, or the model was saved without its head.
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        let logits = self.w_u()?.forward(&self.ln_final.forward(resid)?)?;
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
    pub fn w_unembed(&self, tokens: &[u32]) -> Result<Tensor> {
        self.w_u()?.rows(tokens)
    }

    fn w_u(&self) -> Result<&Linear> {
        self.unembed.as_ref().map_err(|path| {
            let (found, hint) = ("the weights of a model without it", "Name a model that was saved with its head");
            Error::malformed(path, "the head's matrix, for logits", found, hint)
        })
    }

    /// Weight of the norm before the unembedding, `[d_model]`.
    pub fn final_norm_weight(&self) -> &Tensor {
        self.ln_final.weight()
    }

    /// Kind of that norm.
    pub fn norm(&self) -> NormKind {
        self.norm
    }

    /// Width of the residual stream.
    pub fn d_model(&self) -> usize {
        self.d_model
    }
}
