//! Llama and similar models (SmolLM2, TinyLlama, Llama 3): the plain gated family.

use super::{
    Header, Plan, Unsupported,
    gated::{self, RowOrder},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, tensor_file::TensorFile},
};

pub(super) fn config(json: gated::Json) -> Result<ModelConfig, Unsupported> {
    json.config(Family::Llama)
}

/// llama.cpp stores Mistral under this name too. The only difference is its window, if the header has one.
pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    gated::config_from_gguf(header, Family::Llama, Activation::Silu)
}

pub(super) fn gguf_plan(tensors: &TensorFile) -> Plan {
    gated::plan(tensors, gated::GGUF, RowOrder::Neighbors)
}
