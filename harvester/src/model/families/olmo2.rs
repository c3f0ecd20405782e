//! OLMo 2: norms only after attention and MLP; queries and keys are normalized over their full width.

use super::{Header, Unsupported, gated};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, NormPlaces, QkNorm},
};

pub(super) fn config(json: gated::Json) -> Result<ModelConfig, Unsupported> {
    Ok(rearranged(json.config(Family::Olmo2)?))
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    if let Some(window) = header.optional_integer("attention.sliding_window")? {
        return Err(header.refused("attention without a window (OLMo 3 has one)", format!("a window of {window}")));
    }
    Ok(rearranged(gated::config_from_gguf(header, Family::Olmo2, Activation::Silu)?))
}

fn rearranged(config: ModelConfig) -> ModelConfig {
    ModelConfig { norm_places: NormPlaces::After, qk_norm: Some(QkNorm::Whole), ..config }
}
