//! [`Weights`]: every weight of a model, in memory.

use candle_core::Tensor;

use super::{block::Block, head::Head};

/// All weights of a checkpoint, for any family.
#[derive(Debug, Clone)]
pub(crate) struct Weights {
    pub(crate) head: Head,
    /// W_E, `[d_vocab, d_model]`; `None` if the model ties it to the head's W_U.
    pub(crate) embed: Option<Tensor>,
    /// W_pos, `[ctx_len, d_model]`, in families with learned positions.
    pub(crate) pos_embed: Option<Tensor>,
    pub(crate) blocks: Vec<Block>,
}
