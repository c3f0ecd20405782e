//! Gemma: embeddings scaled by `sqrt(d_model)`, GELU in the gate, norm weights stored minus 1, tied head.

use serde::Deserialize;

use super::{
    Header, Plan, Unsupported,
    gated::{self, Names, RowOrder},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig, tensor_file::TensorFile},
};

/// Llama's keys. The first generation names its activation function in `hidden_act`, the others in
/// `hidden_activation`. The first checkpoints say `gelu` and mean its tanh approximation.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    pub(super) common: gated::Json,
    hidden_activation: Option<String>,
    use_bidirectional_attention: Option<bool>,
}

impl Json {
    /// The settings common to all three generations.
    pub(super) fn config(self, family: Family) -> Result<ModelConfig, Unsupported> {
        let hidden_act = self.common.hidden_act.as_deref().filter(|_| family == Family::Gemma);
        let tanh = ["gelu_pytorch_tanh", "gelu_new"];
        if let Some(other) = hidden_act.filter(|name| *name != "gelu" && !tanh.contains(name)) {
            return Err(Unsupported::new("hidden_act `gelu_pytorch_tanh`", format!("`{other}`")));
        }
        if let Some(other) = self.hidden_activation.filter(|name| !tanh.contains(&name.as_str())) {
            return Err(Unsupported::new("hidden_activation `gelu_pytorch_tanh`", format!("`{other}`")));
        }
        if self.use_bidirectional_attention == Some(true) {
            return Err(Unsupported::new("causal attention", "use_bidirectional_attention"));
        }
        Ok(scaled(self.common.config_with(family, Activation::GeluTanh)?))
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>, family: Family) -> Result<ModelConfig> {
    Ok(scaled(gated::config_from_gguf(header, family, Activation::GeluTanh)?))
}

fn scaled(config: ModelConfig) -> ModelConfig {
    ModelConfig { embed_scale: Some((config.d_model as f64).sqrt()), ..config }
}

pub(super) fn plan(tensors: &TensorFile) -> Plan {
    gated::plan(tensors, Names { norms_less_one: true, ..gated::HUGGING_FACE }, RowOrder::Halves)
}
