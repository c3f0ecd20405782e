//! [`LanguageModel`]: a model and its tokenizer, found again from what a manifest says of them.

use candle_core::{Device, Tensor};
use harvester::{Checkpoint, ModelIdentity, ModelSource, Monitor, TextTokenizer, Transformer};

use crate::Result;

/// A model that can run text.
#[derive(Debug)]
pub struct LanguageModel {
    /// The forward pass.
    pub transformer: Transformer,
    /// Text to token ids and back.
    pub tokenizer: TextTokenizer,
}

impl LanguageModel {
    /// Loads the model that a manifest names, and checks that it is the same to the bit.
    ///
    /// # Errors
    /// It is no longer there, or it has changed.
    pub fn load(identity: &ModelIdentity, monitor: &dyn Monitor) -> Result<Self> {
        let resolved = identity.source.parse::<ModelSource>()?.resolve(monitor)?;
        let checkpoint = Checkpoint::open(&resolved.path)?;
        let found = checkpoint.sha256()?;
        if found != identity.sha256 {
            let hint = "The activations were made with other weights: harvest again, or put the old model back";
            let expected = format!("weights of SHA-256 {}", identity.sha256);
            return Err(harvester::Error::malformed(&resolved.path, expected, found, hint).into());
        }
        let tokenizer = TextTokenizer::open(&resolved.path)?;
        if tokenizer.sha256() != identity.tokenizer_sha256 {
            let hint = "The activations were made with another tokenizer: harvest again, or put the old one back";
            let expected = format!("a tokenizer of SHA-256 {}", identity.tokenizer_sha256);
            return Err(harvester::Error::malformed(&resolved.path, expected, tokenizer.sha256(), hint).into());
        }
        Ok(Self { transformer: Transformer::load(&checkpoint, &Device::Cpu)?, tokenizer })
    }

    /// Token ids as one row. `[1, pos]`
    pub(crate) fn row(&self, tokens: &[u32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(tokens, (1, tokens.len()), self.transformer.device())?)
    }
}
