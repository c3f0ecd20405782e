//! Mistral: llama in which each query sees the last `sliding_window` keys. In GGUF it is a llama.

use serde::Deserialize;

use super::{Unsupported, gated};
use crate::model::{Family, ModelConfig};

/// Llama's keys and the window; later versions set the window to null.
#[derive(Deserialize)]
pub(super) struct Json {
    #[serde(flatten)]
    common: gated::Json,
    sliding_window: Option<usize>,
}

impl Json {
    pub(super) fn config(self) -> Result<ModelConfig, Unsupported> {
        let config = self.common.config(Family::Mistral)?;
        let layers = gated::local_layers(None, config.n_layers, |_| true);
        let local = gated::local_attention(self.sliding_window, layers);
        Ok(ModelConfig { local, ..config })
    }
}
