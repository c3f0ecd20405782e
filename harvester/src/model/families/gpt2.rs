//! GPT-2: layer norm, learned positions, plain MLP, biases everywhere; matrices stored `[d_in, d_out]`.

use serde::Deserialize;

use super::{Reader, Unsupported};
use crate::{
    Result,
    model::{
        Activation, Family, ModelConfig, NormKind, Positions, attention::Attention, block::Block, linear::Linear,
        mlp::Mlp, transformer::Weights,
    },
};

/// The keys of `config.json` that decide the numbers.
#[derive(Deserialize)]
pub(super) struct Json {
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_inner: Option<usize>,
    vocab_size: usize,
    n_positions: usize,
    layer_norm_epsilon: f64,
    activation_function: String,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    scale_attn_weights: Option<bool>,
    tie_word_embeddings: Option<bool>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        if self.scale_attn_by_inverse_layer_idx || self.scale_attn_weights == Some(false) {
            return Err(Unsupported::new("scores scaled by 1 / sqrt(d_head)", "another scale of attention scores"));
        }
        let activation = match self.activation_function.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            other => return Err(Unsupported::new("activation_function gelu or gelu_new", format!("`{other}`"))),
        };
        Ok(ModelConfig {
            family: Family::Gpt2,
            n_layers: self.n_layer,
            d_model: self.n_embd,
            n_heads: self.n_head,
            n_kv_heads: self.n_head,
            d_head: self.n_embd / self.n_head.max(1),
            d_mlp: self.n_inner.unwrap_or(4 * self.n_embd),
            d_vocab: self.vocab_size,
            ctx_len: self.n_positions,
            norm: NormKind::Layer,
            norm_eps: self.layer_norm_epsilon,
            positions: Positions::Learned,
            activation,
            gated_mlp: false,
            parallel_residual: false,
            tied_embeddings: self.tie_word_embeddings.unwrap_or(true),
        })
    }
}

pub(super) fn weights(reader: &Reader<'_>) -> Result<Weights> {
    let c = reader.config();
    // The language model's checkpoint has this prefix, the bare model's has not.
    let root = if reader.checkpoint.contains("transformer.wte.weight") { "transformer." } else { "" };
    let embed = reader.tensor(&format!("{root}wte.weight"), &[c.d_vocab, c.d_model])?;
    let weights = Weights {
        pos_embed: Some(reader.tensor(&format!("{root}wpe.weight"), &[c.ctx_len, c.d_model])?),
        blocks: (0..c.n_layers).map(|layer| block(reader, &format!("{root}h.{layer}"))).collect::<Result<_>>()?,
        ln_final: reader.norm(&format!("{root}ln_f"))?,
        unembed: reader.unembed("lm_head.weight", &embed)?,
        embed,
    };
    // Older checkpoints store the causal mask, and some a head that they tie.
    let harmless = [".attn.bias", ".attn.masked_bias", "lm_head.weight"];
    reader.finish(weights, |name| harmless.iter().any(|suffix| name.ends_with(suffix)))
}

fn block(reader: &Reader<'_>, prefix: &str) -> Result<Block> {
    let c = reader.config();
    Ok(Block {
        ln1: reader.norm(&format!("{prefix}.ln_1"))?,
        attention: Attention {
            qkv: transposed(reader, &format!("{prefix}.attn.c_attn"), 3 * c.d_model, c.d_model)?,
            out: transposed(reader, &format!("{prefix}.attn.c_proj"), c.d_model, c.d_model)?,
        },
        ln2: reader.norm(&format!("{prefix}.ln_2"))?,
        mlp: Mlp {
            input: transposed(reader, &format!("{prefix}.mlp.c_fc"), c.d_mlp, c.d_model)?,
            out: transposed(reader, &format!("{prefix}.mlp.c_proj"), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: false,
        },
    })
}

/// A matrix that the checkpoint stores `[d_in, d_out]`, and its bias.
fn transposed(reader: &Reader<'_>, prefix: &str, d_out: usize, d_in: usize) -> Result<Linear> {
    let weight = reader.tensor(&format!("{prefix}.weight"), &[d_in, d_out])?.t()?.contiguous()?;
    Ok(Linear::new(weight, Some(reader.tensor(&format!("{prefix}.bias"), &[d_out])?)))
}
