//! [`Attention`]: causal self-attention with grouped keys and values.
//!
//! ```text
//! q, k, v = x W_qkv^T + b_qkv            rotated where the family has rotary positions
//! z       = softmax(q k^T / sqrt(d_head)) v        over this and earlier positions
//! out     = z W_O^T + b_O
//! ```

use candle_core::Tensor;

use super::{ModelConfig, Positions, attention_kernel, kv_cache::LayerCache, linear::Linear, rotary::Rotary};
use crate::Result;

/// The weights of one attention layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Queries, keys and values in one matrix, `[(n_heads + 2 n_kv_heads) * d_head, d_model]`.
    pub(crate) qkv: Linear,
    /// `[d_model, n_heads * d_head]`
    pub(crate) out: Linear,
}

/// What all layers of a pass share.
pub(crate) struct AttentionContext<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) rotary: Option<&'a Rotary>,
    /// Position of the pass's first token: how many are in the cache already.
    pub(crate) start: usize,
}

impl<'a> AttentionContext<'a> {
    /// The rotation table of a model, where it has one.
    pub(crate) fn rotary_of(config: &ModelConfig) -> Option<Rotary> {
        match config.positions {
            Positions::Rotary { base, rotary_dim } => Some(Rotary::new(base, rotary_dim, config.ctx_len)),
            Positions::Learned => None,
        }
    }
}

impl Attention {
    /// The heads' outputs, concatenated, before W_O (`attn.hook_z`).
    ///
    /// # Shapes
    /// `x`: `[batch, pos, d_model]` -> `[batch, pos, n_heads * d_head]`
    pub(crate) fn z(&self, x: &Tensor, context: &AttentionContext<'_>, cache: Option<&LayerCache>) -> Result<Tensor> {
        let (config, start) = (context.config, context.start);
        let (heads, kv_heads) = (config.n_heads, config.n_kv_heads);
        let (batch, pos, _) = x.dims3()?;
        let qkv = self.qkv.forward(x)?.reshape((batch, pos, heads + 2 * kv_heads, config.d_head))?;
        let qkv = match context.rotary {
            Some(rotary) => rotary.apply(qkv, heads + kv_heads, start)?,
            None => qkv,
        };
        // Views, not copies: the kernel reads strides.
        let q = qkv.narrow(2, 0, heads)?; // [batch, pos, n_heads, d_head]
        let k = qkv.narrow(2, heads, kv_heads)?; // [batch, pos, n_kv_heads, d_head]
        let v = qkv.narrow(2, heads + kv_heads, kv_heads)?;
        let (k, v) = match cache {
            Some(cache) => cache.append(&k, &v, start)?,
            None => (k, v),
        };
        attention_kernel::causal_attention(&q, &k, &v)
    }

    /// What attention adds to the residual stream, from [`Attention::z`].
    ///
    /// # Shapes
    /// `z`: `[batch, pos, n_heads * d_head]` -> `[batch, pos, d_model]`
    pub(crate) fn project(&self, z: &Tensor) -> Result<Tensor> {
        self.out.forward(z)
    }
}
