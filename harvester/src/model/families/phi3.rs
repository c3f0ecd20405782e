//! Phi-3: llama with fused matrices, partly rotary positions and LongRoPE.

use serde::Deserialize;

use super::{
    Header, Plan, Unsupported,
    gated::{self, GateUp, Names, Qkv, RowOrder},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, tensor_file::TensorFile},
};

/// Llama's keys and the window, which applies to all layers.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gated::Json,
    sliding_window: Option<usize>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let config = self.common.config(Family::Phi3)?;
        let layers = gated::local_layers(None, config.n_layers, |_| true);
        let local = gated::local_attention(self.sliding_window, layers);
        Ok(ModelConfig { local, ..config })
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    gated::config_from_gguf(header, Family::Phi3, Activation::Silu)
}

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    let (qkv, gate_up) = (Qkv::Fused("self_attn.qkv_proj"), GateUp::Fused("mlp.gate_up_proj"));
    gated::plan(tensors, Names { qkv, gate_up, ..gated::HUGGING_FACE }, RowOrder::Halves)
}

pub(super) fn gguf_plan(tensors: &TensorFile) -> Plan {
    let (qkv, gate_up) = (Qkv::Fused("attn_qkv"), GateUp::Fused("ffn_up"));
    gated::plan(tensors, Names { qkv, gate_up, ..gated::GGUF }, RowOrder::Halves)
}
