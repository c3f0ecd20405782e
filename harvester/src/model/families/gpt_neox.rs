//! GPT-NeoX (Pythia): layer norm, partly rotary positions, plain MLP, attention and MLP in parallel.

use candle_core::Tensor;
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
    num_hidden_layers: usize,
    hidden_size: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    vocab_size: usize,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    hidden_act: String,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    rope_theta: Option<f64>,
    rope_scaling: Option<serde_json::Value>,
    rope_parameters: Option<Rope>,
    use_parallel_residual: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

/// What transformers 5 writes instead of `rotary_pct` and `rotary_emb_base`.
#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let activation = match self.hidden_act.as_str() {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            other => return Err(Unsupported::new("hidden_act gelu or gelu_new", format!("`{other}`"))),
        };
        let rope = self.rope_parameters.as_ref();
        let kind = rope.and_then(|rope| rope.rope_type.as_deref()).filter(|kind| *kind != "default");
        if let Some(found) = kind.map(str::to_string).or(self.rope_scaling.map(|scaling| scaling.to_string())) {
            return Err(Unsupported::new("rotary positions without scaling", found));
        }
        let factor = self.rotary_pct.or(rope.and_then(|rope| rope.partial_rotary_factor));
        let theta = self.rotary_emb_base.or(self.rope_theta).or(rope.and_then(|rope| rope.rope_theta));
        let (Some(factor), Some(base)) = (factor, theta) else {
            return Err(Unsupported::new("keys rotary_pct and rotary_emb_base, or rope_parameters", "neither"));
        };
        let d_head = self.hidden_size / self.num_attention_heads.max(1);
        Ok(ModelConfig {
            family: Family::GptNeox,
            n_layers: self.num_hidden_layers,
            d_model: self.hidden_size,
            n_heads: self.num_attention_heads,
            n_kv_heads: self.num_attention_heads,
            d_head,
            d_mlp: self.intermediate_size,
            d_vocab: self.vocab_size,
            ctx_len: self.max_position_embeddings,
            norm: NormKind::Layer,
            norm_eps: self.layer_norm_eps,
            positions: Positions::Rotary { base, rotary_dim: (d_head as f64 * factor) as usize },
            activation,
            gated_mlp: false,
            parallel_residual: self.use_parallel_residual,
            tied_embeddings: self.tie_word_embeddings,
        })
    }
}

pub(super) fn weights(reader: &Reader<'_>) -> Result<Weights> {
    let c = reader.config();
    let embed = reader.tensor("gpt_neox.embed_in.weight", &[c.d_vocab, c.d_model])?;
    let block = |layer| block(reader, &format!("gpt_neox.layers.{layer}"));
    let weights = Weights {
        pos_embed: None,
        blocks: (0..c.n_layers).map(block).collect::<Result<_>>()?,
        ln_final: reader.norm("gpt_neox.final_layer_norm")?,
        unembed: reader.unembed("embed_out.weight", &embed)?,
        embed,
    };
    // Older checkpoints store the causal mask and the rotary frequencies, and some a head that they tie.
    let harmless = [".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq", "embed_out.weight"];
    reader.finish(weights, |name| harmless.iter().any(|suffix| name.ends_with(suffix)))
}

fn block(reader: &Reader<'_>, prefix: &str) -> Result<Block> {
    let c = reader.config();
    let width = 3 * c.d_model;
    let qkv = format!("{prefix}.attention.query_key_value");
    let weight = reader.tensor(&format!("{qkv}.weight"), &[width, c.d_model])?;
    let bias = reader.optional(&format!("{qkv}.bias"), &[width])?;
    let bias = bias.map(|bias| split_heads(&bias, c)).transpose()?;
    Ok(Block {
        ln1: reader.norm(&format!("{prefix}.input_layernorm"))?,
        attention: Attention {
            qkv: Linear::new(split_heads(&weight, c)?, bias),
            out: reader.linear(&format!("{prefix}.attention.dense"), c.d_model, c.d_model)?,
        },
        ln2: reader.norm(&format!("{prefix}.post_attention_layernorm"))?,
        mlp: Mlp {
            input: reader.linear(&format!("{prefix}.mlp.dense_h_to_4h"), c.d_mlp, c.d_model)?,
            out: reader.linear(&format!("{prefix}.mlp.dense_4h_to_h"), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: false,
        },
    })
}

/// Rows come head by head, each with its query, key and value: `[n_heads, 3, d_head, ..]` -> `[3, n_heads, d_head, ..]`.
fn split_heads(rows: &Tensor, c: &ModelConfig) -> Result<Tensor> {
    let shape = rows.dims().to_vec();
    let by_head = rows.reshape((c.n_heads, 3, c.d_head, ()))?;
    Ok(by_head.transpose(0, 1)?.contiguous()?.reshape(shape)?)
}
