//! GPT-2: layer norm, learned positions, plain MLP, biases everywhere; matrices are stored as `[d_in, d_out]`.

use serde::Deserialize;

use super::{Header, Plan, Reader, Unsupported, root, unembed};
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
    n_layer: usize,
    n_embd: usize,
    n_head: usize,
    n_inner: Option<usize>,
    vocab_size: usize,
    n_positions: usize,
    layer_norm_epsilon: f64,
    activation_function: String,
    scale_attn_by_inverse_layer_idx: bool,
    scale_attn_weights: bool,
    tie_word_embeddings: bool,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        if self.scale_attn_by_inverse_layer_idx || !self.scale_attn_weights {
            return Err(Unsupported::new("scores scaled by 1 / sqrt(d_head)", "another scale of attention scores"));
        }
        let activation = match self.activation_function.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            "gelu" => Activation::Gelu,
            other => return Err(Unsupported::new("activation_function gelu or gelu_new", format!("`{other}`"))),
        };
        let sizes = [self.n_layer, self.n_embd, self.n_head, self.n_inner.unwrap_or(4 * self.n_embd)];
        Ok(ModelConfig {
            activation,
            tied_embeddings: self.tie_word_embeddings,
            ..config(sizes, self.vocab_size, self.n_positions, self.layer_norm_epsilon)
        })
    }
}

fn config(
    [n_layers, d_model, n_heads, d_mlp]: [usize; 4],
    d_vocab: usize,
    ctx_len: usize,
    norm_eps: f64,
) -> ModelConfig {
    let d_head = d_model / n_heads.max(1);
    ModelConfig {
        family: Family::Gpt2,
        n_layers,
        d_model,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp,
        d_vocab,
        ctx_len,
        norm: NormKind::Layer,
        norm_places: NormPlaces::Before,
        norm_eps,
        embed_scale: None,
        positions: Positions::Learned,
        qk_norm: None,
        attn_scale: 1.0 / (d_head as f64).sqrt(),
        attn_softcap: None,
        local: None,
        activation: Activation::GeluTanh,
        gated_mlp: false,
        parallel_residual: false,
        tied_embeddings: true,
        logit_softcap: None,
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let size = |name| header.integer(name);
    let (layers, heads) = (size("block_count")?, size("attention.head_count")?);
    let sizes = [layers, size("embedding_length")?, heads, size("feed_forward_length")?];
    let norm_eps = header.real("attention.layer_norm_epsilon")?;
    Ok(ModelConfig {
        tied_embeddings: !header.contains("output.weight"),
        ..config(sizes, header.d_vocab(), size("context_length")?, norm_eps)
    })
}

/// llama.cpp has transposed the matrices, and uses the same names as in its other families.
pub(super) fn gguf_plan(config: &ModelConfig) -> Plan {
    Plan {
        embed: "token_embd.weight".into(),
        pos_embed: (config.positions == Positions::Learned).then(|| "position_embd.weight".into()),
        ln_final: "output_norm".into(),
        unembed: "output.weight".into(),
        norms_less_one: false,
        block: Box::new(gguf_block),
        harmless: &[],
    }
}

fn gguf_block(reader: &Reader<'_>, layer: usize) -> Result<Block> {
    let c = reader.config();
    let name = |name: &str| format!("blk.{layer}.{name}");
    Ok(Block {
        ln1: Some(reader.norm(&name("attn_norm"))?),
        attention: Attention {
            qkv: reader.linear(&name("attn_qkv"), 3 * c.d_model, c.d_model)?,
            qk_norm: None,
            out: reader.linear(&name("attn_output"), c.d_model, c.d_model)?,
        },
        ln1_post: None,
        ln2: Some(reader.norm(&name("ffn_norm"))?),
        mlp: Mlp {
            input: reader.linear(&name("ffn_up"), c.d_mlp, c.d_model)?,
            out: reader.linear(&name("ffn_down"), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: false,
        },
        ln2_post: None,
    })
}

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    let root = root(tensors, "wte.weight", "transformer.");
    Plan {
        embed: format!("{root}wte.weight"),
        pos_embed: Some(format!("{root}wpe.weight")),
        ln_final: format!("{root}ln_f"),
        unembed: unembed(tensors, "lm_head.weight"),
        norms_less_one: false,
        block: Box::new(move |reader, layer| block(reader, &format!("{root}h.{layer}"))),
        // Older checkpoints store the causal mask.
        harmless: &[".attn.bias", ".attn.masked_bias"],
    }
}

fn block(reader: &Reader<'_>, prefix: &str) -> Result<Block> {
    let c = reader.config();
    Ok(Block {
        ln1: Some(reader.norm(&format!("{prefix}.ln_1"))?),
        attention: Attention {
            qkv: transposed(reader, &format!("{prefix}.attn.c_attn"), 3 * c.d_model, c.d_model)?,
            qk_norm: None,
            out: transposed(reader, &format!("{prefix}.attn.c_proj"), c.d_model, c.d_model)?,
        },
        ln1_post: None,
        ln2: Some(reader.norm(&format!("{prefix}.ln_2"))?),
        mlp: Mlp {
            input: transposed(reader, &format!("{prefix}.mlp.c_fc"), c.d_mlp, c.d_model)?,
            out: transposed(reader, &format!("{prefix}.mlp.c_proj"), c.d_model, c.d_mlp)?,
            activation: c.activation,
            gated: false,
        },
        ln2_post: None,
    })
}

/// A matrix that the checkpoint stores as `[d_in, d_out]`, and its bias.
fn transposed(reader: &Reader<'_>, prefix: &str, d_out: usize, d_in: usize) -> Result<Linear> {
    let weight = reader.tensor(&format!("{prefix}.weight"), &[d_in, d_out])?.t()?.contiguous()?;
    Ok(Linear::new(weight, Some(reader.tensor(&format!("{prefix}.bias"), &[d_out])?)))
}
