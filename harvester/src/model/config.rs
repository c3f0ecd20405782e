//! [`ModelConfig`]: the shape of a decoder-only transformer, independent of its file format. One forward pass serves
//! every family; the differences between families are fields here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The supported families. Each has a file in `model/families/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Llama and similar models: RMS norm, rotary positions, gated MLP, grouped keys and values. SmolLM2, TinyLlama.
    Llama,
    /// Mistral: llama with a sliding attention window.
    Mistral,
    /// Qwen 2 and 2.5: llama with biases on queries, keys and values.
    Qwen2,
    /// Qwen 3: llama with queries and keys normalized per head.
    Qwen3,
    /// Gemma: scaled embeddings, GELU in the gate, norm weights stored minus 1.
    Gemma,
    /// Gemma 2: norms before and after attention and MLP, soft-capped scores and logits, a sliding window in every
    /// second layer.
    Gemma2,
    /// Gemma 3: norms before and after attention and MLP, normalized queries and keys, most layers local with their own
    /// rotary base.
    Gemma3,
    /// Phi-3: llama with fused matrices, partly rotary positions, frequencies that depend on the text's length.
    Phi3,
    /// OLMo 2: norms only after attention and MLP; queries and keys normalized over their full width.
    Olmo2,
    /// GPT-2: layer norm, learned positions, biases everywhere.
    Gpt2,
    /// GPT-NeoX, Pythia: layer norm, partly rotary positions, attention and MLP in parallel.
    GptNeox,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma => "gemma",
            Self::Gemma2 => "gemma2",
            Self::Gemma3 => "gemma3",
            Self::Phi3 => "phi3",
            Self::Olmo2 => "olmo2",
            Self::Gpt2 => "gpt2",
            Self::GptNeox => "gpt_neox",
        })
    }
}

/// The kind of norm around attention and MLP, and before the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight`
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`
    Layer,
}

/// Position of a block's norms. Norms before are `ln1` and `ln2`. Norms after apply to the outputs that are added to
/// the residual stream, so `hook_attn_out` and `hook_mlp_out` come after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NormPlaces {
    /// `x + f(norm(x))`
    Before,
    /// `x + norm(f(norm(x)))`
    BeforeAndAfter,
    /// `x + norm(f(x))`
    After,
}

/// The RMS norm of queries and keys, before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum QkNorm {
    /// Each head separately, all with the same weight `[d_head]`.
    Head,
    /// All heads of a token together, with weights `[n_heads * d_head]` and `[n_kv_heads * d_head]`.
    Whole,
}

/// Encoding of positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Positions {
    /// Queries and keys are rotated; pairs are `(i, i + rotary_dim / 2)` (Hugging Face's half-split layout).
    Rotary {
        /// Base of the wavelengths, theta.
        base: f64,
        /// Number of rotated dimensions of a head, counted from the first.
        rotary_dim: usize,
        /// Change of the frequencies for contexts longer than in the original training.
        scaling: RopeScaling,
    },
    /// A learned vector for each position is added to the token embedding.
    Learned,
}

/// Change of the rotary frequencies, `f_i = base^(-2i / rotary_dim)`, for longer contexts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RopeScaling {
    /// No change.
    None,
    /// `f_i / factor`
    Linear {
        /// The same for all frequencies.
        factor: f64,
    },
    /// Llama 3.1: slow frequencies are divided by `factor`, fast ones kept, those between interpolated.
    Llama3 {
        /// Divides the slow frequencies.
        factor: f64,
        /// Wavelengths over `original_ctx_len / low_freq_factor` are slow.
        low_freq_factor: f64,
        /// Wavelengths under `original_ctx_len / high_freq_factor` are fast.
        high_freq_factor: f64,
        /// Context length before stretching.
        original_ctx_len: usize,
    },
    /// `f_i / divisors[i]`: llama.cpp stores Llama 3's rule as these precomputed divisors.
    Divisors(
        /// `[rotary_dim / 2]`
        Vec<f32>,
    ),
    /// LongRoPE (Phi-3): `f_i / short[i]` in texts of at most `original_ctx_len` tokens, `f_i / long[i]` in longer
    /// ones.
    LongRope {
        /// `[rotary_dim / 2]`
        short: Vec<f32>,
        /// `[rotary_dim / 2]`
        long: Vec<f32>,
        /// Context length before stretching.
        original_ctx_len: usize,
        /// Multiplies the cosines and sines.
        attention_factor: f64,
    },
}

/// Layers in which a query sees only the last tokens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct LocalAttention {
    /// Number of keys that a query sees, including its own.
    pub(crate) window: usize,
    /// True for each local layer, `[n_layers]`.
    pub(crate) layers: Vec<bool>,
    /// Rotary base of these layers, unscaled; `None`: the same rotation as in the other layers.
    pub(crate) rotary_base: Option<f64>,
}

/// Activation function of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// Exact GELU, with the error function.
    Gelu,
    /// GELU's tanh approximation, `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
}

/// The shape of a model: everything that the forward pass needs besides the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Family of the checkpoint.
    pub family: Family,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of a head.
    pub d_head: usize,
    /// Hidden width of the MLP.
    pub d_mlp: usize,
    /// Rows of the embedding.
    pub d_vocab: usize,
    /// Longest context that the model supports, in tokens.
    pub ctx_len: usize,
    /// Kind of norm around attention, around the MLP, and before the head.
    pub(crate) norm: NormKind,
    /// Position of the blocks' norms.
    pub(crate) norm_places: NormPlaces,
    /// Added to the variance (or mean square) under the square root.
    pub(crate) norm_eps: f64,
    /// Multiplies the token embeddings. `None`: 1.
    pub(crate) embed_scale: Option<f64>,
    /// Encoding of positions.
    pub(crate) positions: Positions,
    /// Norm of queries and keys; `None`: not normalized.
    pub(crate) qk_norm: Option<QkNorm>,
    /// Multiplies the attention scores; `1 / sqrt(d_head)` in nearly all models.
    pub(crate) attn_scale: f64,
    /// Scaled scores become `cap * tanh(score / cap)`.
    pub(crate) attn_softcap: Option<f64>,
    /// The layers with a sliding window.
    pub(crate) local: Option<LocalAttention>,
    /// Activation function of the MLP.
    pub(crate) activation: Activation,
    /// `act(x W_gate) * (x W_up)` instead of `act(x W_in)`.
    pub(crate) gated_mlp: bool,
    /// Attention and MLP both read the block's input, and both outputs are added to it.
    pub(crate) parallel_residual: bool,
    /// The head is the transposed embedding, unless the weights hold a head that differs from it.
    pub(crate) tied_embeddings: bool,
    /// Logits become `cap * tanh(logit / cap)`.
    pub(crate) logit_softcap: Option<f64>,
}

impl ModelConfig {
    /// Most keys that a query of a layer sees; `None`: all earlier ones.
    pub(crate) fn window(&self, layer: usize) -> Option<usize> {
        self.local.as_ref().filter(|local| local.layers.get(layer) == Some(&true)).map(|local| local.window)
    }

    /// Floating-point operations per token through `n_layers` whole blocks: two per weight, and causal attention over
    /// the keys that a token in a context of `ctx_len` sees on average. The head is not counted.
    pub fn flop_per_token(&self, n_layers: usize, ctx_len: usize) -> u64 {
        let attention_weights = self.d_model * self.d_head * (2 * self.n_heads + 2 * self.n_kv_heads);
        let mlp_weights = self.d_model * self.d_mlp * if self.gated_mlp { 3 } else { 2 };
        let keys: usize = (0..n_layers).map(|layer| keys_seen(self.window(layer), ctx_len)).sum();
        let scores_and_values = 2 * self.n_heads * self.d_head * keys;
        2 * (n_layers * (attention_weights + mlp_weights) + scores_and_values) as u64
    }
}

/// Keys that a token of a context sees on average: half of the context, or less with a window. The first `window`
/// tokens see half a window on average, the others a whole one.
fn keys_seen(window: Option<usize>, ctx_len: usize) -> usize {
    let window = window.unwrap_or(ctx_len).min(ctx_len);
    let cut_off = ctx_len - window;
    (window * window.div_ceil(2) + cut_off * window).div_ceil(ctx_len.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_bounds_the_keys_seen() {
        assert_eq!(keys_seen(None, 1_024), 512);
        assert_eq!(keys_seen(Some(4_096), 1_024), 512);
        assert_eq!(keys_seen(Some(256), 1_024), (256 * 128 + 768 * 256) / 1_024);
        assert_eq!(keys_seen(None, 0), 0);
    }
}
