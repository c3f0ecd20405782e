//! Llama and similar models (SmolLM2, TinyLlama, Llama 3): the plain gated family.

use super::{
    Header, Plan, Unsupported,
    gated::{self, RowOrder},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, Positions, tensor_file::TensorFile},
};

pub(super) fn config(json: gated::Json) -> Result<ModelConfig, Unsupported> {
    json.config(Family::Llama)
}

/// llama.cpp stores Mistral under this name too. The only difference is its window, if the header has one.
pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    let config = gated::config_from_gguf(header, Family::Llama, Activation::Silu)?;
    match config.positions {
        // The reordering of rows in `gated.rs` is for whole heads.
        Positions::Rotary { rotary_dim, .. } if rotary_dim != config.d_head => {
            let expected = format!("rope.dimension_count {}, the width of a head", config.d_head);
            Err(header.refused(&expected, rotary_dim.to_string()))
        }
        _ => Ok(config),
    }
}

pub(super) fn gguf_plan(tensors: &TensorFile) -> Plan {
    gated::plan(tensors, gated::GGUF, RowOrder::Neighbors)
}
