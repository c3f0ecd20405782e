//! [`Attention`]: causal self-attention with grouped keys and values.
//!
//! ```text
//! q, k, v = x W_qkv^T + b_qkv            q and k normalized and rotated if the family does so
//! z       = softmax(cap(attn_scale q k^T)) v        over this and earlier positions, or the last `window` of them
//! out     = z W_O^T + b_O
//! ```

use candle_core::Tensor;

use super::{
    ModelConfig,
    attention_kernel::{self, Scores},
    batch::Span,
    kv_cache::KeysValues,
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
    /// Norm of queries and keys, if the family has one.
    pub(crate) qk_norm: Option<QkNormWeights>,
    /// `[d_model, n_heads * d_head]`
    pub(crate) out: Linear,
}

/// Inputs shared by all layers of a pass.
pub(crate) struct AttentionContext<'a> {
    pub(crate) config: &'a ModelConfig,
    /// Rotation for the batch's rows, if the family has rotary positions.
    pub(crate) rotation: Option<Rotation>,
    /// Rotation for local layers, if they have their own.
    pub(crate) local_rotation: Option<Rotation>,
    /// The sequences of the batch.
    pub(crate) spans: Vec<Span>,
    pub(crate) n_rows: usize,
}

impl AttentionContext<'_> {
    fn rotation(&self, is_local: bool) -> Option<&Rotation> {
        self.local_rotation.as_ref().filter(|_| is_local).or(self.rotation.as_ref())
    }

    /// The sequences of all variants in `rows` rows.
    fn spans_in(&self, rows: usize) -> Vec<Span> {
        let of_variant = |first: usize| {
            self.spans
                .iter()
                .map(move |span| Span { rows: first + span.rows.start..first + span.rows.end, start: span.start })
        };
        (0..rows).step_by(self.n_rows).flat_map(of_variant).collect()
    }
}

impl Attention {
    /// The heads' outputs, concatenated, before W_O (`attn.hook_z`).
    ///
    /// # Shapes
    /// `x`: `[rows, d_model]` -> `[rows, n_heads * d_head]`
    pub(crate) fn z(
        &self,
        x: &Tensor,
        layer: usize,
        context: &AttentionContext<'_>,
        keys_values: &mut KeysValues<'_>,
    ) -> Result<Tensor> {
        let config = context.config;
        let (heads, kv_heads, window) = (config.n_heads, config.n_kv_heads, config.window(layer));
        let rows = x.dim(0)?;
        let qkv = self.qkv.forward(x)?.reshape((rows, heads + 2 * kv_heads, config.d_head))?;
        let qkv = match &self.qk_norm {
            Some(norm) => norm.apply(qkv, heads, kv_heads)?,
            None => qkv,
        };
        let qkv = match context.rotation(window.is_some()) {
            Some(rotation) => rotation.apply(qkv, heads + kv_heads)?,
            None => qkv,
        };
        let softcap = config.attn_softcap.map(|cap| cap as f32);
        let rule = Scores { scale: config.attn_scale as f32, softcap, window };
        let spans = context.spans_in(rows);
        let panels = keys_values.layer(layer, &spans, config);
        attention_kernel::causal_attention(&qkv, kv_heads, &spans, panels, rule)
    }
}
