//! [`Attention`]: causal self-attention with grouped keys and values.
//!
//! ```text
//! q, k, v = x W_qkv^T + b_qkv            q and k normalised and rotated where the family does so
//! z       = softmax(cap(attn_scale q k^T)) v        over this and earlier positions, or the last `window` of them
//! out     = z W_O^T + b_O
//! ```

use candle_core::Tensor;

use super::{
    ModelConfig,
    attention_kernel::{self, Scores},
    kv_cache::LayerCache,
    linear::Linear,
    qk_norm::QkNormWeights,
    rotary::Rotation,
};
use crate::Result;

/// The weights of one attention layer.
#[derive(Debug, Clone)]
pub(crate) struct Attention {
    /// Queries, keys and values in one matrix, `[(n_heads + 2 n_kv_heads) * d_head, d_model]`.
    pub(crate) qkv: Linear,
    /// Of queries and keys, where the family has it.
    pub(crate) qk_norm: Option<QkNormWeights>,
    /// `[d_model, n_heads * d_head]`
    pub(crate) out: Linear,
}

/// What all layers of a pass share.
pub(crate) struct AttentionContext<'a> {
    pub(crate) config: &'a ModelConfig,
    /// Of this pass's positions, where the family has rotary ones.
    pub(crate) rotation: Option<Rotation>,
    /// The same for local layers, where those have their own.
    pub(crate) local_rotation: Option<Rotation>,
    /// Position of the pass's first token: how many are in the cache already.
    pub(crate) start: usize,
}

impl AttentionContext<'_> {
    fn rotation(&self, is_local: bool) -> Option<&Rotation> {
        self.local_rotation.as_ref().filter(|_| is_local).or(self.rotation.as_ref())
    }
}

impl Attention {
    /// The heads' outputs, concatenated, before W_O (`attn.hook_z`).
    ///
    /// # Shapes
    /// `x`: `[batch, pos, d_model]` -> `[batch, pos, n_heads * d_head]`
    pub(crate) fn z(
        &self,
        x: &Tensor,
        layer: usize,
        context: &AttentionContext<'_>,
        cache: Option<&LayerCache>,
    ) -> Result<Tensor> {
        let config = context.config;
        let (heads, kv_heads, window) = (config.n_heads, config.n_kv_heads, config.window(layer));
        let (batch, pos, _) = x.dims3()?;
        let qkv = self.qkv.forward(x)?.reshape((batch, pos, heads + 2 * kv_heads, config.d_head))?;
        let qkv = match &self.qk_norm {
            Some(norm) => norm.apply(qkv, heads, kv_heads)?,
            None => qkv,
        };
        let qkv = match context.rotation(window.is_some()) {
            Some(rotation) => rotation.apply(qkv, heads + kv_heads)?,
            None => qkv,
        };
        // Views, not copies: the kernel reads strides.
        let q = qkv.narrow(2, 0, heads)?; // [batch, pos, n_heads, d_head]
        let k = qkv.narrow(2, heads, kv_heads)?; // [batch, pos, n_kv_heads, d_head]
        let v = qkv.narrow(2, heads + kv_heads, kv_heads)?;
        let (k, v) = match cache {
            Some(cache) => cache.append(&k, &v, context.start)?,
            None => (k, v),
        };
        let softcap = config.attn_softcap.map(|cap| cap as f32);
        attention_kernel::causal_attention(&q, &k, &v, Scores { scale: config.attn_scale as f32, softcap, window })
    }
}
