//! Gemma 3: Gemma 2 with normalized queries and keys instead of capped scores; five of six layers are local and have
//! their own rotary base.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Header, Plan, Unsupported,
    gated::{self, LayerType, Names, RowOrder},
    gemma, gemma2, rope,
};
use crate::{
    Result,
    model::{Family, LocalAttention, ModelConfig, NormPlaces, QkNorm, tensor_file::TensorFile},
};

/// Rotary base of the local layers if a file does not say.
const LOCAL_BASE: f64 = 10_000.0;
/// Every sixth layer is global if a file does not say.
const PATTERN: usize = 6;

/// Gemma's keys and those added in this generation.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
pub(super) struct Json(Keys);

#[derive(Deserialize)]
struct Keys {
    #[serde(flatten)]
    common: gemma::Json,
    query_pre_attn_scalar: f64,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    sliding_window_pattern: Option<usize>,
    rope_local_base_freq: Option<f64>,
    /// `rope_parameters` of the local layers in transformers 5.
    #[serde(default)]
    local_rope: rope::Parameters,
}

/// transformers 5 stores `rope_parameters` per kind of layer; this converts them to the form of the other families.
impl TryFrom<Value> for Json {
    type Error = serde_json::Error;

    fn try_from(mut value: Value) -> Result<Self, Self::Error> {
        let both = value.get_mut("rope_parameters").and_then(Value::as_object_mut);
        let by_kind = both.and_then(|both| Some((both.remove("full_attention")?, both.remove("sliding_attention")?)));
        if let Some((global, local)) = by_kind {
            value["rope_parameters"] = global;
            value["local_rope"] = local;
        }
        serde_json::from_value(value).map(Self)
    }
}

/// A multimodal model, of which only the text part is read. Published files omit from `text_config` the values that are
/// the default in transformers.
#[derive(Deserialize)]
pub(super) struct Multimodal {
    text_config: Map<String, Value>,
}

impl Multimodal {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let defaults = json!({
            "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
            "max_position_embeddings": 131_072, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256.0,
            "rope_theta": 1_000_000.0,
        });
        let mut text = defaults.as_object().cloned().unwrap_or_default();
        text.extend(self.text_config);
        let json: Json = serde_json::from_value(Value::Object(text))
            .map_err(|error| Unsupported::new("the keys of a gemma3_text model in text_config", error.to_string()))?;
        json.config()
    }
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let keys = self.0;
        let config = keys.common.config(Family::Gemma3)?;
        if !keys.local_rope.is_plain() {
            return Err(Unsupported::new("local layers with unscaled rotary positions", "a rope_type for them"));
        }
        let pattern = keys.sliding_window_pattern.unwrap_or(PATTERN).max(1);
        let is_local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
        let layers = gated::local_layers(keys.layer_types.as_deref(), config.n_layers, is_local);
        let base = keys.rope_local_base_freq.or(keys.local_rope.base().ok()).unwrap_or(LOCAL_BASE);
        Ok(ModelConfig {
            attn_scale: keys.query_pre_attn_scalar.powf(-0.5),
            attn_softcap: keys.attn_logit_softcapping,
            logit_softcap: keys.final_logit_softcapping,
            local: local_attention(keys.sliding_window, layers, base),
            ..normed(config)
        })
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let config = gemma::config_from_gguf(header, Family::Gemma3)?;
    let layers = header.local_layers(config.n_layers, PATTERN)?;
    let base = header.optional_real("rope.freq_base_swa")?.unwrap_or(LOCAL_BASE);
    let window = header.optional_integer("attention.sliding_window")?;
    Ok(ModelConfig {
        // The header does not hold the scale: only the largest model, with 62 layers, does not use 1 / sqrt(d_head).
        attn_scale: gemma2::largest_model_scale(&config, 62),
        attn_softcap: header.optional_real("attn_logit_softcapping")?,
        logit_softcap: header.optional_real("final_logit_softcapping")?,
        local: local_attention(window, layers, base),
        ..normed(config)
    })
}

fn normed(config: ModelConfig) -> ModelConfig {
    ModelConfig { norm_places: NormPlaces::BeforeAndAfter, qk_norm: Some(QkNorm::Head), ..config }
}

fn local_attention(window: Option<usize>, layers: Vec<bool>, base: f64) -> Option<LocalAttention> {
    let local = gated::local_attention(window, layers)?;
    Some(LocalAttention { rotary_base: Some(base), ..local })
}

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    // The multimodal checkpoint as published, and as saved by transformers 5.
    let (root, embed, blocks, ln_final) = if tensors.contains("language_model.model.norm.weight") {
        ("language_model.", "model.embed_tokens.weight", "model.layers", "model.norm")
    } else if tensors.contains("model.language_model.norm.weight") {
        ("model.language_model.", "embed_tokens.weight", "layers", "norm")
    } else {
        ("", gemma2::HUGGING_FACE.embed, gemma2::HUGGING_FACE.blocks, gemma2::HUGGING_FACE.ln_final)
    };
    gated::plan(Names { root, embed, blocks, ln_final, ..gemma2::HUGGING_FACE }, RowOrder::Halves)
}
