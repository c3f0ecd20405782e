//! Gemma 2: Gemma with norms before and after attention and MLP, soft-capped scores and logits, and a window in every
//! second layer.

use serde::Deserialize;

use super::{
    Header, Plan, Unsupported,
    gated::{self, LayerType, Names, RowOrder},
    gemma,
};
use crate::{
    Result,
    model::{Family, ModelConfig, NormPlaces, tensor_file::TensorFile},
};

/// Gemma's keys and those added in this generation. Without a list of layers, layers 0, 2, 4.. have the window.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gemma::Json,
    query_pre_attn_scalar: f64,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let config = self.common.config(Family::Gemma2)?;
        let layers = gated::local_layers(self.layer_types.as_deref(), config.n_layers, |layer| layer % 2 == 0);
        Ok(ModelConfig {
            norm_places: NormPlaces::BeforeAndAfter,
            attn_scale: self.query_pre_attn_scalar.powf(-0.5),
            attn_softcap: self.attn_logit_softcapping,
            logit_softcap: self.final_logit_softcapping,
            local: gated::local_attention(self.sliding_window, layers),
            ..config
        })
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let config = gemma::config_from_gguf(header, Family::Gemma2)?;
    let layers = header.local_layers(config.n_layers, 2)?;
    // 4,096 if the header does not say, as in llama.cpp: the first files were made without the key.
    let window = header.integer_or("attention.sliding_window", 4096)?;
    Ok(ModelConfig {
        norm_places: NormPlaces::BeforeAndAfter,
        // The header does not hold the scale. All published sizes use 1 / sqrt(d_head), except the largest, with 46
        // layers: it uses 1 / sqrt(d_model / n_heads).
        attn_scale: largest_model_scale(&config, 46),
        attn_softcap: Some(header.optional_real("attn_logit_softcapping")?.unwrap_or(50.0)),
        logit_softcap: Some(header.optional_real("final_logit_softcapping")?.unwrap_or(30.0)),
        local: gated::local_attention(Some(window), layers),
        ..config
    })
}

/// Attention scale of a Gemma 2 or 3 file. The size with `n_layers` layers has another scale than the config says.
pub(super) fn largest_model_scale(config: &ModelConfig, n_layers: usize) -> f64 {
    if config.n_layers == n_layers {
        return ((config.d_model / config.n_heads.max(1)) as f64).powf(-0.5);
    }
    config.attn_scale
}

/// Names of Gemma 2 and 3 in safetensors: here `post_attention_layernorm` really is the norm after attention.
const HUGGING_FACE: Names = Names { ln2: "pre_feedforward_layernorm", norms_less_one: true, ..gated::HUGGING_FACE };

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    gated::plan(tensors, HUGGING_FACE, RowOrder::Halves)
}
