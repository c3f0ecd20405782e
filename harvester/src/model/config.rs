//! [`ModelConfig`]: the shape of a decoder-only transformer, whatever file it came from. One forward pass serves every
//! family; what families differ in is a field here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The families whose checkpoints can be read. One file each in `model/families/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Llama and its like: RMS norm, rotary positions, gated MLP, grouped keys and values. SmolLM2, TinyLlama.
    Llama,
    /// GPT-2: layer norm, learned positions, biases everywhere.
    Gpt2,
    /// GPT-NeoX, Pythia: layer norm, partly rotary positions, attention and MLP in parallel.
    GptNeox,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llama => "llama",
            Self::Gpt2 => "gpt2",
            Self::GptNeox => "gpt_neox",
        })
    }
}

/// The normalisation before attention and MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + eps) * weight`
    Rms,
    /// `(x - mean(x)) / sqrt(var(x) + eps) * weight + bias`
    Layer,
}

/// How a token's position enters.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// Queries and keys are rotated; pairs are `(i, i + rotary_dim / 2)` (Hugging Face's half-split layout).
    Rotary {
        /// Wavelength base, theta.
        base: f64,
        /// How many of a head's dimensions are rotated, from the first.
        rotary_dim: usize,
    },
    /// A learned vector for each position is added to the token embedding.
    Learned,
}

/// The MLP's nonlinearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x * sigmoid(x)`
    Silu,
    /// Exact GELU, with the error function.
    Gelu,
    /// GELU's tanh approximation, `gelu_new` or `gelu_pytorch_tanh`.
    GeluTanh,
}

/// The shape of a model: everything the forward pass must know besides the weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Family the checkpoint belongs to.
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
    /// Longest context the model was made for, in tokens.
    pub ctx_len: usize,
    /// Normalisation before attention, before the MLP, and before the head.
    pub norm: NormKind,
    /// Added to the variance (or mean square) under the root.
    pub norm_eps: f64,
    /// How positions enter.
    pub positions: Positions,
    /// The MLP's nonlinearity.
    pub activation: Activation,
    /// `act(x W_gate) * (x W_up)` instead of `act(x W_in)`.
    pub gated_mlp: bool,
    /// Attention and MLP both read the block's input and are added together.
    pub parallel_residual: bool,
    /// The head is the embedding, transposed.
    pub tied_embeddings: bool,
}

impl ModelConfig {
    /// Floating-point operations a token costs through `n_layers` whole blocks: two for each multiplication by a
    /// weight, and causal attention over half of `ctx_len` on average. The head is not counted.
    pub fn flop_per_token(&self, n_layers: usize, ctx_len: usize) -> u64 {
        let attention_weights = self.d_model * self.d_head * (2 * self.n_heads + 2 * self.n_kv_heads);
        let mlp_weights = self.d_model * self.d_mlp * if self.gated_mlp { 3 } else { 2 };
        let scores_and_values = 2 * self.n_heads * self.d_head * ctx_len.div_ceil(2);
        2 * (n_layers * (attention_weights + mlp_weights + scores_and_values)) as u64
    }
}
