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
mod checkpoint;
mod compute;
mod config;
mod families;
mod gguf;
mod gguf_skim;
mod head;
mod hook;
mod hook_pattern;
mod hook_point;
mod kv_cache;
mod linear;
mod mlp;
mod norm;
mod packed;
mod qk_norm;
mod residual;
mod rotary;
mod tensor_file;
mod transformer;
mod weights;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod published_tests;

pub use batch::{Batch, Row, Rows};
pub use checkpoint::Checkpoint;
pub use compute::Compute;
pub use config::{
    Activation, Family, LocalAttention, ModelConfig, NormKind, NormPlaces, Positions, QkNorm, RopeScaling,
};
pub use gguf::GgufMetadata;
pub use head::Head;
pub use hook::{Capture, Edit, Hook, NoHook};
pub use hook_pattern::HookPattern;
pub use hook_point::{HookPoint, Site};
pub use kv_cache::KvCache;
pub use transformer::Transformer;
