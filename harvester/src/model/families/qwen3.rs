//! Qwen 3: Qwen 2 without biases, with queries and keys normalized per head.

use super::{Header, Unsupported, gated, qwen2};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, QkNorm},
};

pub(super) fn config(json: qwen2::Json) -> Result<ModelConfig, Unsupported> {
    Ok(ModelConfig { qk_norm: Some(QkNorm::Head), ..json.config(Family::Qwen3)? })
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let config = gated::config_from_gguf(header, Family::Qwen3, Activation::Silu)?;
    Ok(ModelConfig { qk_norm: Some(QkNorm::Head), ..config })
}
