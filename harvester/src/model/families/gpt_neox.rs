//! GPT-NeoX (Pythia): layer norm, partly rotary positions, plain MLP, attention and MLP in parallel.

use candle_core::Tensor;
use serde::Deserialize;

use super::{Header, Plan, Reader, Unsupported, gpt2, root, rope, unembed};
use crate::{
    Result,
    model::{
        Activation, Family, ModelConfig, NormKind, NormPlaces, Positions, attention::Attention, block::Block,
        linear::Linear, mlp::Mlp, tensor_file::TensorFile,
    },
};

/// The keys of `config.json` that change the computed values.
#[derive(Deserialize)]
pub(super) struct Json {
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    rotary_pct: f64,
    rotary_emb_base: f64,
    #[serde(flatten)]
    rope: rope::Json,
    use_parallel_residual: bool,
    tie_word_embeddings: bool,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let activation = match self.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            other => return Err(Unsupported::new("hidden_act gelu or gelu_new", format!("`{other}`"))),
        };
        let d_head = self.hidden_size / self.num_attention_heads.max(1);
        let rope = self.rope.with(self.rotary_emb_base, self.rotary_pct);
        let positions = rope.positions(d_head, self.max_position_embeddings)?;
        let sizes = [self.num_hidden_layers, self.hidden_size, self.num_attention_heads, self.intermediate_size];
        Ok(ModelConfig {
            d_vocab: self.vocab_size,
            ctx_len: self.max_position_embeddings,
            activation,
            parallel_residual: self.use_parallel_residual,
            tied_embeddings: self.tie_word_embeddings,
            ..config(sizes, self.layer_norm_eps, positions)
        })
    }
}

fn config([n_layers, d_model, n_heads, d_mlp]: [usize; 4], norm_eps: f64, positions: Positions) -> ModelConfig {
    let d_head = d_model / n_heads.max(1);
    ModelConfig {
        family: Family::GptNeox,
        n_layers,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp,
        d_vocab: 0,
        ctx_len: 0,
        norm: NormKind::Layer,
        norm_places: NormPlaces::Before,
        norm_eps,
        embed_scale: None,
        positions,
        qk_norm: None,
        attn_scale: 1.0 / (d_head as f64).sqrt(),
        attn_softcap: None,
        local: None,
        activation: Activation::Gelu,
        gated_mlp: false,
        parallel_residual: true,
        tied_embeddings: false,
        logit_softcap: None,
    }
}

/// llama.cpp's files do not say which GELU to use: llama.cpp computes the tanh approximation; the published models use
/// the exact one.
pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let size = |name| header.integer(name);
    let (d_model, n_heads, ctx_len) =
        (size("embedding_length")?, size("attention.head_count")?, size("context_length")?);
    let positions = header.positions(d_model / n_heads.max(1), ctx_len)?;
    let sizes = [size("block_count")?, d_model, n_heads, size("feed_forward_length")?];
    Ok(ModelConfig {
        d_vocab: header.d_vocab(),
        ctx_len,
        parallel_residual: header.flag_or("use_parallel_residual", true)?,
        tied_embeddings: !header.contains("output.weight"),
        ..config(sizes, header.real("attention.layer_norm_epsilon")?, positions)
    })
}

/// In GGUF the fused matrix is split into queries, keys and values, not by head: GPT-2's layout, without position
/// embeddings.
pub(super) fn gguf_plan(config: &ModelConfig) -> Plan {
    gpt2::gguf_plan(config)
}

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    let root = root(tensors, "embed_in.weight", "gpt_neox.");
    Plan {
        embed: format!("{root}embed_in.weight"),
        pos_embed: None,
        ln_final: format!("{root}final_layer_norm"),
        unembed: unembed(tensors, "embed_out.weight"),
        norms_less_one: false,
        block: Box::new(move |reader, layer| block(reader, &format!("{root}layers.{layer}"))),
        // Older checkpoints store the causal mask and the rotary frequencies.
        harmless: &[".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"],
    }
}

fn block(reader: &Reader<'_>, prefix: &str) -> Result<Block> {
    let c = reader.config();
    let width = 3 * c.d_model;
    let qkv = format!("{prefix}.attention.query_key_value");
    let weight = reader.tensor(&format!("{qkv}.weight"), &[width, c.d_model])?;
    let bias = reader.optional(&format!("{qkv}.bias"), &[width])?;
    let bias = bias.map(|bias| split_heads(&bias, c)).transpose()?;
    Ok(Block {
        ln1: Some(reader.norm(&format!("{prefix}.input_layernorm"))?),
        attention: Attention {
            qkv: Linear::new(split_heads(&weight, c)?, bias),
            qk_norm: None,
            out: reader.linear(&format!("{prefix}.attention.dense"), c.d_model, c.d_model)?,
        },
        ln1_post: None,
        ln2: Some(reader.norm(&format!("{prefix}.post_attention_layernorm"))?),
        mlp: Mlp {
            input: reader.linear(&format!("{prefix}.mlp.dense_h_to_4h"), c.d_mlp, c.d_model)?,
            out: reader.linear(&format!("{prefix}.mlp.dense_4h_to_h"), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: false,
        },
        ln2_post: None,
    })
}

/// Rows come head by head, each with its query, key and value: `[n_heads, 3, d_head, ..]` -> `[3, n_heads, d_head,
/// ..]`.
fn split_heads(rows: &Tensor, c: &ModelConfig) -> Result<Tensor> {
    let shape = rows.dims().to_vec();
    let by_head = rows.reshape((c.n_heads, 3, c.d_head, ()))?;
    Ok(by_head.transpose(0, 1)?.contiguous()?.reshape(shape)?)
}
