//! Qwen 2 and 2.5: llama with biases on queries, keys and values, and an optional window in the upper layers.

use serde::Deserialize;

use super::{
    Header, Unsupported,
    gated::{self, LayerType},
};
use crate::{
    Result,
    model::{Activation, Family, ModelConfig},
};

/// Llama's keys, and the layers that have a window. The loader reads biases if the weights have them.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gated::Json,
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    max_window_layers: usize,
    layer_types: Option<Vec<LayerType>>,
}

impl Json {
    pub(super) fn config(self, family: Family) -> Result<ModelConfig, Unsupported> {
        let config = self.common.config(family)?;
        let from = self.max_window_layers;
        let layers = gated::local_layers(self.layer_types.as_deref(), config.n_layers, |layer| layer >= from);
        let window = self.sliding_window.filter(|_| self.use_sliding_window);
        Ok(ModelConfig { local: gated::local_attention(window, layers), ..config })
    }
}

pub(super) fn config_from_gguf(header: &Header<'_>) -> Result<ModelConfig> {
    gated::config_from_gguf(header, Family::Qwen2, Activation::Silu)
}
