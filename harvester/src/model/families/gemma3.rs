//! Gemma 3: Gemma 2 with normalized queries and keys instead of capped scores; five of six layers are local and have
//! their own rotary base.

use serde::Deserialize;

use super::{
    Header, Unsupported,
    gated::{self, LayerType},
    gemma, gemma2, rope,
};
use crate::{
    Result,
    model::{Family, LocalAttention, ModelConfig, NormPlaces, QkNorm},
};

/// Rotary base of the local layers if a GGUF header does not say.
const LOCAL_BASE: f64 = 10_000.0;
/// Every sixth layer is global if a GGUF header does not say.
const PATTERN: usize = 6;

/// Gemma's keys and those added in this generation.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gemma::Json,
    query_pre_attn_scalar: f64,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    sliding_window_pattern: usize,
    rope_local_base_freq: f64,
    rope_parameters: Option<RopeByKind>,
}

/// `rope_parameters` of transformers 5, one for each kind of layer.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RopeByKind {
    full_attention: Option<rope::Parameters>,
    sliding_attention: Option<rope::Parameters>,
}

impl Json {
    pub(super) fn config(mut self) -> Result<ModelConfig, Unsupported> {
        let rope = self.rope_parameters.unwrap_or_default();
        self.common.common.rope.set_parameters(rope.full_attention);
        let config = self.common.config(Family::Gemma3)?;
        let local_rope = rope.sliding_attention.unwrap_or_default();
        if !local_rope.is_plain() {
            return Err(Unsupported::new("local layers with unscaled rotary positions", "a rope_type for them"));
        }
        let pattern = self.sliding_window_pattern.max(1);
        let is_local = |layer: usize| !(layer + 1).is_multiple_of(pattern);
        let layers = gated::local_layers(self.layer_types.as_deref(), config.n_layers, is_local);
        let base = local_rope.base().unwrap_or(self.rope_local_base_freq);
        Ok(ModelConfig {
            attn_scale: self.query_pre_attn_scalar.powf(-0.5),
            attn_softcap: self.attn_logit_softcapping,
            logit_softcap: self.final_logit_softcapping,
            local: local_attention(self.sliding_window, layers, base),
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
