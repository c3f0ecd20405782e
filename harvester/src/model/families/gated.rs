//! The parts that llama and its descendants share: RMS norms, rotary positions, a gated MLP. This file has the keys of
//! `config.json` and of GGUF headers that all of them have, and the loader of their weights. Each family's file has
//! only the differences.

use candle_core::Tensor;
use serde::Deserialize;

use super::{Header, MAX_LAYERS, Plan, Reader, Unsupported, root, rope, stack, unembed};
use crate::{
    Result,
    model::{
        Activation, Family, LocalAttention, ModelConfig, NormKind, NormPlaces, Positions, QkNorm, attention::Attention,
        block::Block, mlp::Mlp, qk_norm::QkNormWeights, tensor_file::TensorFile,
    },
};

/// The keys of `config.json` that change the computed values.
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
    pub(super) hidden_act: Option<String>,
    tie_word_embeddings: bool,
    #[serde(flatten)]
    pub(super) rope: rope::Json,
}

/// A layer's attention, as in `layer_types`.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LayerType {
    FullAttention,
    SlidingAttention,
}

/// The attention window of families in which only some layers have one.
pub(super) fn local_attention(window: Option<usize>, layers: Vec<bool>) -> Option<LocalAttention> {
    let window = window.filter(|_| layers.contains(&true))?;
    Some(LocalAttention { window, layers, rotary_base: None })
}

/// `layer_types` if the file lists them, else the family's rule.
pub(super) fn local_layers(listed: Option<&[LayerType]>, n_layers: usize, rule: impl Fn(usize) -> bool) -> Vec<bool> {
    match listed {
        Some(types) => types.iter().map(|kind| *kind == LayerType::SlidingAttention).collect(),
        None => (0..n_layers.min(MAX_LAYERS)).map(rule).collect(),
    }
}

impl Json {
    /// A plain llama with the file's sizes, with SiLU in the MLP.
    pub(super) fn config(self, family: Family) -> Result<ModelConfig, Unsupported> {
        match self.hidden_act.as_deref() {
            Some("silu") => self.config_with(family, Activation::Silu),
            other => Err(Unsupported::new("hidden_act `silu`", format!("`{}`", other.unwrap_or("none")))),
        }
    }

    /// The same with another activation function; the caller checks the file's `hidden_act`.
    pub(super) fn config_with(self, family: Family, activation: Activation) -> Result<ModelConfig, Unsupported> {
        let n_heads = self.num_attention_heads;
        let d_head = self.head_dim.unwrap_or(self.hidden_size / n_heads.max(1));
        Ok(ModelConfig {
            n_kv_heads: self.num_key_value_heads.unwrap_or(n_heads),
            tied_embeddings: self.tie_word_embeddings,
            ..plain(Plain {
                family,
                n_layers: self.num_hidden_layers,
                d_model: self.hidden_size,
                n_heads,
                d_head,
                d_mlp: self.intermediate_size,
                d_vocab: self.vocab_size,
                ctx_len: self.max_position_embeddings,
                norm_eps: self.rms_norm_eps,
                positions: self.rope.positions(d_head, self.max_position_embeddings)?,
                activation,
            })
        })
    }
}

/// Arguments of [`plain`].
struct Plain {
    family: Family,
    n_layers: usize,
    d_model: usize,
    n_heads: usize,
    d_head: usize,
    d_mlp: usize,
    d_vocab: usize,
    ctx_len: usize,
    norm_eps: f64,
    positions: Positions,
    activation: Activation,
}

/// A llama in which each head has its own keys and values.
fn plain(p: Plain) -> ModelConfig {
    ModelConfig {
        family: p.family,
        n_layers: p.n_layers,
        d_model: p.d_model,
        n_heads: p.n_heads,
        n_kv_heads: p.n_heads,
        d_head: p.d_head,
        d_mlp: p.d_mlp,
        d_vocab: p.d_vocab,
        ctx_len: p.ctx_len,
        norm: NormKind::Rms,
        norm_places: NormPlaces::Before,
        norm_eps: p.norm_eps,
        embed_scale: None,
        positions: p.positions,
        qk_norm: None,
        attn_scale: 1.0 / (p.d_head as f64).sqrt(),
        attn_softcap: None,
        local: None,
        activation: p.activation,
        gated_mlp: true,
        parallel_residual: false,
        tied_embeddings: false,
        logit_softcap: None,
    }
}

/// The n-th layers are global; with 0, all layers have a window.
const ALL_LAYERS: usize = 0;

/// A plain llama with the sizes of a GGUF header.
pub(super) fn config_from_gguf(header: &Header<'_>, family: Family, activation: Activation) -> Result<ModelConfig> {
    if let Some(experts) = header.optional_integer("expert_count")?.filter(|experts| *experts > 0) {
        return Err(
            header.refused("expert_count 0: mixtures of experts are not supported", format!("{experts} experts"))
        );
    }
    if !header.flag_or("attention.causal", true)? {
        return Err(header.refused("attention.causal true", "false"));
    }
    let n_heads = header.integer("attention.head_count")?;
    let d_model = header.integer("embedding_length")?;
    let d_head = header.integer_or("attention.key_length", d_model / n_heads.max(1))?;
    let ctx_len = header.integer("context_length")?;
    let config = plain(Plain {
        family,
        n_layers: header.integer("block_count")?,
        d_model,
        n_heads,
        d_head,
        d_mlp: header.integer("feed_forward_length")?,
        d_vocab: header.d_vocab(),
        ctx_len,
        norm_eps: header.real("attention.layer_norm_rms_epsilon")?,
        positions: header.positions(d_head, ctx_len)?,
        activation,
    });
    let layers = header.local_layers(config.n_layers, ALL_LAYERS)?;
    Ok(ModelConfig {
        n_kv_heads: header.integer_or("attention.head_count_kv", n_heads)?,
        local: local_attention(header.optional_integer("attention.sliding_window")?.filter(|n| *n > 0), layers),
        attn_scale: header.optional_real("attention.scale")?.unwrap_or(config.attn_scale),
        tied_embeddings: !header.contains("output.weight"),
        ..config
    })
}

/// Tensor names in a file; those of a block come after `{root}{blocks}.{layer}.`.
#[derive(Clone, Copy)]
pub(super) struct Names {
    /// Usual prefix of `embed`, `blocks` and `ln_final`.
    pub(super) root: &'static str,
    pub(super) embed: &'static str,
    pub(super) blocks: &'static str,
    pub(super) ln1: &'static str,
    pub(super) qkv: Qkv,
    pub(super) q_norm: &'static str,
    pub(super) k_norm: &'static str,
    pub(super) attn_out: &'static str,
    pub(super) ln1_post: &'static str,
    pub(super) ln2: &'static str,
    pub(super) gate_up: GateUp,
    pub(super) down: &'static str,
    pub(super) ln2_post: &'static str,
    pub(super) ln_final: &'static str,
    pub(super) unembed: &'static str,
    /// Gemma's norms multiply by the stored weight plus 1.
    pub(super) norms_less_one: bool,
}

/// Queries, keys and values: three matrices, or all stacked in one.
#[derive(Clone, Copy)]
pub(super) enum Qkv {
    Apart([&'static str; 3]),
    Fused(&'static str),
}

/// The MLP's two input matrices, or both stacked in one, gate first.
#[derive(Clone, Copy)]
pub(super) enum GateUp {
    Apart([&'static str; 2]),
    Fused(&'static str),
}

pub(super) const HUGGING_FACE: Names = Names {
    root: "model.",
    embed: "embed_tokens.weight",
    blocks: "layers",
    ln1: "input_layernorm",
    qkv: Qkv::Apart(["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    attn_out: "self_attn.o_proj",
    ln1_post: "post_attention_layernorm",
    ln2: "post_attention_layernorm",
    gate_up: GateUp::Apart(["mlp.gate_proj", "mlp.up_proj"]),
    down: "mlp.down_proj",
    ln2_post: "post_feedforward_layernorm",
    ln_final: "norm",
    unembed: "lm_head.weight",
    norms_less_one: false,
};

pub(super) const GGUF: Names = Names {
    root: "",
    embed: "token_embd.weight",
    blocks: "blk",
    ln1: "attn_norm",
    qkv: Qkv::Apart(["attn_q", "attn_k", "attn_v"]),
    q_norm: "attn_q_norm",
    k_norm: "attn_k_norm",
    attn_out: "attn_output",
    ln1_post: "post_attention_norm",
    ln2: "ffn_norm",
    gate_up: GateUp::Apart(["ffn_gate", "ffn_up"]),
    down: "ffn_down",
    ln2_post: "post_ffw_norm",
    ln_final: "output_norm",
    unembed: "output.weight",
    norms_less_one: false,
};

/// Order of the rows of W_Q and W_K.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    /// Rotated pairs are `(i, i + d_head / 2)`, as in Hugging Face's files and in this forward pass.
    Halves,
    /// Rotated pairs are neighbors, `(2i, 2i + 1)`, as in llama.cpp's files of llama.
    Neighbors,
}

/// The plan of a family whose blocks have llama's structure.
pub(super) fn plan(tensors: &TensorFile, names: Names, order: RowOrder) -> Plan {
    let root = root(tensors, names.embed, names.root);
    let blocks = format!("{root}{}", names.blocks);
    Plan {
        embed: format!("{root}{}", names.embed),
        pos_embed: None,
        ln_final: format!("{root}{}", names.ln_final),
        unembed: unembed(tensors, names.unembed),
        norms_less_one: names.norms_less_one,
        block: Box::new(move |reader, layer| {
            Loader { reader, names, order, prefix: format!("{blocks}.{layer}.") }.block()
        }),
        // Rotary frequencies of old checkpoints, and GGUF's frequency divisors, which the header's reader has already
        // read.
        harmless: &[
            "rotary_emb.inv_freq",
            "rope_freqs.weight",
            "rope_factors_long.weight",
            "rope_factors_short.weight",
        ],
    }
}

struct Loader<'a> {
    reader: &'a Reader<'a>,
    names: Names,
    order: RowOrder,
    /// The block's names begin with it.
    prefix: String,
}

impl Loader<'_> {
    fn block(&self) -> Result<Block> {
        let (c, names) = (self.reader.config(), &self.names);
        let prefix = |name: &str| format!("{}{name}", self.prefix);
        let norm_if = |present: bool, name| present.then(|| self.reader.norm(&prefix(name))).transpose();
        let before = c.norm_places != NormPlaces::After;
        let after = c.norm_places != NormPlaces::Before;
        let part = |name: &str, d_out| self.part(&prefix(name), d_out);
        let (q_width, kv_width) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
        let qkv = match names.qkv {
            Qkv::Fused(name) => self.reader.linear(&prefix(name), q_width + 2 * kv_width, c.d_model)?,
            Qkv::Apart([q, k, v]) => {
                let q = self.rotated(part(q, q_width)?, c.n_heads)?;
                let k = self.rotated(part(k, kv_width)?, c.n_kv_heads)?;
                stack(&[q, k, part(v, kv_width)?])?
            }
        };
        let input = match names.gate_up {
            GateUp::Fused(name) => self.reader.linear(&prefix(name), 2 * c.d_mlp, c.d_model)?,
            GateUp::Apart([gate, up]) => stack(&[part(gate, c.d_mlp)?, part(up, c.d_mlp)?])?,
        };
        Ok(Block {
            ln1: norm_if(before, names.ln1)?,
            attention: Attention {
                qkv,
                qk_norm: self.qk_norm(&prefix)?,
                out: self.reader.linear(&prefix(names.attn_out), c.d_model, q_width)?,
            },
            ln1_post: norm_if(after, names.ln1_post)?,
            ln2: norm_if(before, names.ln2)?,
            mlp: Mlp {
                input,
                out: self.reader.linear(&prefix(names.down), c.d_model, c.d_mlp)?,
                activation: c.activation,
                gated: true,
            },
            ln2_post: norm_if(after, names.ln2_post)?,
        })
    }

    fn qk_norm(&self, prefix: &impl Fn(&str) -> String) -> Result<Option<QkNormWeights>> {
        let c = self.reader.config();
        let (q_width, k_width) = match c.qk_norm {
            None => return Ok(None),
            Some(QkNorm::Head) => (c.d_head, c.d_head),
            Some(QkNorm::Whole) => (c.n_heads * c.d_head, c.n_kv_heads * c.d_head),
        };
        let q = self.reader.norm_weight(&prefix(self.names.q_norm), q_width)?;
        let k = self.reader.norm_weight(&prefix(self.names.k_norm), k_width)?;
        Ok(Some(QkNormWeights { q, k, eps: c.norm_eps }))
    }

    /// `[d_out, d_model]` and, if there is one, the bias `[d_out]`.
    fn part(&self, name: &str, d_out: usize) -> Result<(Tensor, Option<Tensor>)> {
        let weight = self.reader.tensor(&format!("{name}.weight"), &[d_out, self.reader.config().d_model])?;
        Ok((weight, self.reader.optional(&format!("{name}.bias"), &[d_out])?))
    }

    /// Reorders rows to the order that the forward pass rotates.
    fn rotated(&self, (weight, bias): (Tensor, Option<Tensor>), heads: usize) -> Result<(Tensor, Option<Tensor>)> {
        if self.order == RowOrder::Halves {
            return Ok((weight, bias));
        }
        let d_head = self.reader.config().d_head;
        Ok((deinterleave(&weight, heads, d_head)?, bias.map(|bias| deinterleave(&bias, heads, d_head)).transpose()?))
    }
}

/// Reorders neighboring pairs of rows to halves of a head, `[heads * d_head, ..]`.
fn deinterleave(rows: &Tensor, heads: usize, d_head: usize) -> Result<Tensor> {
    let shape = rows.dims().to_vec();
    let pairs = rows.reshape((heads, d_head / 2, 2, ()))?;
    Ok(pairs.transpose(1, 2)?.contiguous()?.reshape(shape)?)
}
