//! Llama and its like (SmolLM2, TinyLlama): RMS norm, rotary positions, gated SiLU MLP, grouped keys and values.

use candle_core::Tensor;
use serde::Deserialize;

use super::{Reader, Unsupported, stack};
use crate::{
    Result,
    model::{
        Activation, Family, GgufMetadata, ModelConfig, NormKind, Positions, attention::Attention, block::Block,
        mlp::Mlp, transformer::Weights,
    },
};

/// The keys of `config.json` that decide the numbers.
#[derive(Deserialize)]
pub(super) struct Json {
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    hidden_act: String,
    #[serde(default)]
    tie_word_embeddings: bool,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    rope_parameters: Option<Rope>,
}

/// `rope_scaling`, and what transformers 5 writes instead of it and of `rope_theta`.
#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        if self.hidden_act != "silu" {
            return Err(Unsupported::new("hidden_act `silu`", format!("`{}`", self.hidden_act)));
        }
        for rope in [&self.rope_scaling, &self.rope_parameters].into_iter().flatten() {
            if let Some(kind) = rope.rope_type.as_deref().filter(|kind| *kind != "default") {
                return Err(Unsupported::new("rotary positions without scaling", format!("rope_type `{kind}`")));
            }
        }
        let theta = self.rope_theta.or(self.rope_parameters.and_then(|rope| rope.rope_theta));
        let base = theta.ok_or_else(|| Unsupported::new("a key rope_theta", "none"))?;
        let n_heads = self.num_attention_heads;
        let d_head = self.head_dim.unwrap_or(self.hidden_size / n_heads.max(1));
        Ok(ModelConfig {
            family: Family::Llama,
            n_layers: self.num_hidden_layers,
            d_model: self.hidden_size,
            n_heads,
            n_kv_heads: self.num_key_value_heads.unwrap_or(n_heads),
            d_head,
            d_mlp: self.intermediate_size,
            d_vocab: self.vocab_size,
            ctx_len: self.max_position_embeddings,
            norm: NormKind::Rms,
            norm_eps: self.rms_norm_eps,
            positions: Positions::Rotary { base, rotary_dim: d_head },
            activation: Activation::Silu,
            gated_mlp: true,
            parallel_residual: false,
            tied_embeddings: self.tie_word_embeddings,
        })
    }
}

pub(super) fn config_from_gguf(metadata: &GgufMetadata) -> Result<ModelConfig> {
    if let Some(scaling) = metadata.get("llama.rope.scaling.type") {
        let found = format!("llama.rope.scaling.type {scaling:?}");
        let problem = Unsupported::new("rotary positions without scaling", found);
        return Err(super::refused(metadata.path(), &problem));
    }
    let n_heads = metadata.integer("llama.attention.head_count")?;
    let d_model = metadata.integer("llama.embedding_length")?;
    let optional = |key: &str, default| metadata.get(key).map_or(Ok(default), |_| metadata.integer(key));
    let d_head = optional("llama.attention.key_length", d_model / n_heads.max(1))?;
    let base = match metadata.get("llama.rope.freq_base") {
        Some(_) => metadata.real("llama.rope.freq_base")?,
        None => 10_000.0, // the format's documented default
    };
    let vocabulary = metadata.content().tensor_infos.get("token_embd.weight");
    Ok(ModelConfig {
        family: Family::Llama,
        n_layers: metadata.integer("llama.block_count")?,
        d_model,
        n_heads,
        n_kv_heads: optional("llama.attention.head_count_kv", n_heads)?,
        d_head,
        d_mlp: metadata.integer("llama.feed_forward_length")?,
        d_vocab: vocabulary.and_then(|info| info.shape.dims().first().copied()).unwrap_or(0),
        ctx_len: metadata.integer("llama.context_length")?,
        norm: NormKind::Rms,
        norm_eps: metadata.real("llama.attention.layer_norm_rms_epsilon")?,
        positions: Positions::Rotary { base, rotary_dim: optional("llama.rope.dimension_count", d_head)? },
        activation: Activation::Silu,
        gated_mlp: true,
        parallel_residual: false,
        tied_embeddings: !metadata.content().tensor_infos.contains_key(GGUF.unembed),
    })
}

/// What a format calls a block's tensors, after `{blocks}.{layer}.`.
struct Names {
    embed: &'static str,
    blocks: &'static str,
    ln1: &'static str,
    q: &'static str,
    k: &'static str,
    v: &'static str,
    attn_out: &'static str,
    ln2: &'static str,
    gate: &'static str,
    up: &'static str,
    down: &'static str,
    ln_final: &'static str,
    unembed: &'static str,
}

const HUGGING_FACE: Names = Names {
    embed: "model.embed_tokens.weight",
    blocks: "model.layers",
    ln1: "input_layernorm",
    q: "self_attn.q_proj",
    k: "self_attn.k_proj",
    v: "self_attn.v_proj",
    attn_out: "self_attn.o_proj",
    ln2: "post_attention_layernorm",
    gate: "mlp.gate_proj",
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    ln_final: "model.norm",
    unembed: "lm_head.weight",
};

const GGUF: Names = Names {
    embed: "token_embd.weight",
    blocks: "blk",
    ln1: "attn_norm",
    q: "attn_q",
    k: "attn_k",
    v: "attn_v",
    attn_out: "attn_output",
    ln2: "ffn_norm",
    gate: "ffn_gate",
    up: "ffn_up",
    down: "ffn_down",
    ln_final: "output_norm",
    unembed: "output.weight",
};

pub(super) fn weights(reader: &Reader<'_>) -> Result<Weights> {
    load(reader, &HUGGING_FACE, |rows, _| Ok(rows))
}

pub(super) fn gguf_weights(reader: &Reader<'_>) -> Result<Weights> {
    let d_head = reader.config().d_head;
    load(reader, &GGUF, |rows, heads| deinterleave(&rows, heads, d_head))
}

/// GGUF stores the rows of W_Q and W_K so that rotated pairs are neighbours, `(2i, 2i + 1)`; Hugging Face's pairs,
/// which this forward pass uses, are `(i, i + d_head / 2)`.
fn deinterleave(rows: &Tensor, heads: usize, d_head: usize) -> Result<Tensor> {
    let shape = rows.dims().to_vec(); // [heads * d_head, ..]
    let pairs = rows.reshape((heads, d_head / 2, 2, ()))?;
    Ok(pairs.transpose(1, 2)?.contiguous()?.reshape(shape)?)
}

fn load(reader: &Reader<'_>, names: &Names, order: impl Fn(Tensor, usize) -> Result<Tensor>) -> Result<Weights> {
    let c = reader.config();
    let embed = reader.tensor(names.embed, &[c.d_vocab, c.d_model])?;
    let weights = Weights {
        pos_embed: None,
        blocks: (0..c.n_layers).map(|layer| block(reader, names, layer, &order)).collect::<Result<_>>()?,
        ln_final: reader.norm(names.ln_final)?,
        unembed: reader.unembed(names.unembed, &embed)?,
        embed,
    };
    // Old checkpoints store the rotary frequencies, and some a head that they tie.
    reader.finish(weights, |name| name.ends_with("rotary_emb.inv_freq") || name == names.unembed)
}

fn block(
    reader: &Reader<'_>,
    names: &Names,
    layer: usize,
    order: &impl Fn(Tensor, usize) -> Result<Tensor>,
) -> Result<Block> {
    let c = reader.config();
    let prefix = |name: &str| format!("{}.{layer}.{name}", names.blocks);
    let part = |name: &str, d_out: usize| -> Result<(Tensor, Option<Tensor>)> {
        let weight = reader.tensor(&format!("{}.weight", prefix(name)), &[d_out, c.d_model])?;
        Ok((weight, reader.optional(&format!("{}.bias", prefix(name)), &[d_out])?))
    };
    let rotated = |name: &str, heads: usize| -> Result<(Tensor, Option<Tensor>)> {
        let (weight, bias) = part(name, heads * c.d_head)?;
        Ok((order(weight, heads)?, bias.map(|bias| order(bias, heads)).transpose()?))
    };
    let (q_width, kv_width) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
    Ok(Block {
        ln1: reader.norm(&prefix(names.ln1))?,
        attention: Attention {
            qkv: stack(&[rotated(names.q, c.n_heads)?, rotated(names.k, c.n_kv_heads)?, part(names.v, kv_width)?])?,
            out: reader.linear(&prefix(names.attn_out), c.d_model, q_width)?,
        },
        ln2: reader.norm(&prefix(names.ln2))?,
        mlp: Mlp {
            input: stack(&[part(names.gate, c.d_mlp)?, part(names.up, c.d_mlp)?])?,
            out: reader.linear(&prefix(names.down), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: true,
        },
    })
}
