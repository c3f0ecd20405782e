//! [`Weights`]: every weight of a model, in memory.

use candle_core::Tensor;

use super::{block::Block, norm::Norm};

/// Everything a checkpoint holds, whatever family it is of.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    /// W_E, `[d_vocab, d_model]`
    pub(crate) embed: Tensor,
    /// W_pos, `[ctx_len, d_model]`, in families with learned positions.
    pub(crate) pos_embed: Option<Tensor>,
    pub(crate) blocks: Vec<Block>,
    pub(crate) ln_final: Norm,
    /// W_U, `[d_vocab, d_model]`; the same tensor as `embed` where the model ties them.
    pub(crate) unembed: Tensor,
}
