//! [`Transformer`]: one decoder-only forward pass for every family, with hooks, a KV cache, and an early stop.
//!
//! ```text
//! resid = W_E[token] (+ W_pos[position])                                  hook_embed
//! for each block:
//!     sequential:  mid = resid + attn(ln1(resid));  resid = mid + mlp(ln2(mid))
//!     parallel:    resid = resid + attn(ln1(resid)) + mlp(ln2(resid))
//! logits = ln_final(resid) W_U^T
//! ```
//!
//! Some families scale the embedding, normalize the outputs of attention and MLP, or cap the logits: each is a field of
//! [`ModelConfig`].
//!
//! ```text
//! resid  = s W_E[token]
//! mid    = resid + ln1_post(attn(ln1(resid)))
//! logits = c tanh(ln_final(resid) W_U^T / c)
//! ```

mod activation;
mod attention;
mod attention_kernel;
mod batch;
mod block;
#[cfg(test)]
mod candle_models_tests;
mod checkpoint;
#[cfg(test)]
mod checkpoints_tests;
mod compute;
mod config;
mod families;
#[cfg(test)]
mod families_tests;
mod gguf;
#[cfg(test)]
mod gguf_tests;
mod head;
mod hook;
mod hook_pattern;
mod hook_point;
mod kv_cache;
mod linear;
mod mlp;
mod norm;
mod packed;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod published_tests;
mod qk_norm;
mod residual;
mod rotary;
mod tensor_file;
mod transformer;
mod weights;

pub use self::{
    batch::{Batch, Row, Rows},
    compute::Compute,
    config::{Family, ModelConfig},
    hook::{Edit, Hook, NoHook},
    hook_pattern::HookPattern,
    hook_point::{HookPoint, Site},
    kv_cache::KvCache,
};
pub(crate) use self::{
    checkpoint::Checkpoint,
    config::{Activation, LocalAttention, NormKind, NormPlaces, Positions, QkNorm, RopeScaling},
    gguf::GgufMetadata,
    head::Head,
    hook::Capture,
    transformer::Transformer,
};
