//! Gemma: embeddings scaled by `sqrt(d_model)`, GELU in the gate, norm weights stored minus 1, tied head.

use serde::Deserialize;

use super::{
    Header, Plan, Unsupported,
    gated::{self, Names, RowOrder},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig},
};

/// Llama's keys. The first checkpoints have `hidden_act` `gelu` and mean its tanh approximation.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gated::Json,
    hidden_activation: Option<String>,
    tie_word_embeddings: Option<bool>,
    use_bidirectional_attention: Option<bool>,
}

impl Json {
    /// The settings common to all three generations.
    pub(super) fn config(self, family: Family) -> Result<ModelConfig, Unsupported> {
        if let Some(other) = self.hidden_activation.filter(|name| name != "gelu_pytorch_tanh") {
            return Err(Unsupported::new("hidden_activation `gelu_pytorch_tanh`", format!("`{other}`")));
        }
        if self.use_bidirectional_attention == Some(true) {
            return Err(Unsupported::new("causal attention", "use_bidirectional_attention"));
        }
        let config = self.common.config_with(family, Activation::GeluTanh)?;
        let tied_embeddings = self.tie_word_embeddings.unwrap_or(true);
        Ok(ModelConfig { tied_embeddings, ..scaled(config) })
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>, family: Family) -> Result<ModelConfig> {
    Ok(scaled(gated::config_from_gguf(header, family, Activation::GeluTanh)?))
}

fn scaled(config: ModelConfig) -> ModelConfig {
    ModelConfig { embed_scale: Some((config.d_model as f64).sqrt()), ..config }
}

pub(super) fn plan() -> Plan {
    gated::plan(Names { norms_less_one: true, ..gated::HUGGING_FACE }, RowOrder::Halves)
}
