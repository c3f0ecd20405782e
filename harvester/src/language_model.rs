//! [`LanguageModel`]: a model and its tokenizer, opened once for everything that a command does with them.
//!
//! Opening reads only the headers, which give the model's shape. The weights are read at the first use and kept:
//! harvesting, training, evaluating and steering with the same `LanguageModel` read them once.

#[cfg(test)]
mod gemma3_tests;
mod model_identity;
mod public_name;
#[cfg(test)]
mod smollm2_tests;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::{Device, Tensor};

pub use self::model_identity::ModelIdentity;
use crate::{
    Batch, Compute, Error, Hook, KvCache, ModelConfig, ModelSource, Monitor, Result, TextTokenizer,
    model::{Checkpoint, Head, Transformer},
    source::ResolvedModel,
    store::open_first,
};

/// A model that can run text. A clone shares its weights.
#[derive(Debug, Clone)]
pub struct LanguageModel {
    opened: Arc<Opened>,
}

#[derive(Debug)]
struct Opened {
    source: String,
    checkpoint: Arc<Checkpoint>,
    tokenizer: Arc<TextTokenizer>,
    compute: Compute,
    device: Device,
    identity: OnceLock<ModelIdentity>,
    transformer: OnceLock<Transformer>,
    head: OnceLock<Head>,
    /// Held while one of the three is made, so that two threads do not make it twice.
    making: Mutex<()>,
}

impl LanguageModel {
    /// Finds or downloads a model and opens it, to compute in `compute`.
    ///
    /// # Errors
    /// As for [`ModelSource::fetch`]; a missing or malformed file, or an unsupported family or tokenizer.
    pub fn open(source: &ModelSource, compute: Compute, monitor: &dyn Monitor) -> Result<Self> {
        let ResolvedModel { path, source } = source.resolve(monitor)?;
        let opened = Opened {
            source,
            checkpoint: Checkpoint::open(&path)?.into(),
            tokenizer: TextTokenizer::open(&path)?.into(),
            compute,
            device: Device::Cpu,
            identity: OnceLock::new(),
            transformer: OnceLock::new(),
            head: OnceLock::new(),
            making: Mutex::new(()),
        };
        Ok(Self { opened: opened.into() })
    }

    /// The same model with matrix products in `compute`: this one if they are. Nothing is opened again; a model with
    /// other products reads the weights at its own first use.
    pub fn computing_in(&self, compute: Compute) -> Self {
        if compute == self.compute() {
            return self.clone();
        }
        let Opened { source, checkpoint, tokenizer, device, identity, .. } = &*self.opened;
        let opened = Opened {
            source: source.clone(),
            checkpoint: checkpoint.clone(),
            tokenizer: tokenizer.clone(),
            compute,
            device: device.clone(),
            identity: identity.clone(),
            transformer: OnceLock::new(),
            head: OnceLock::new(),
            making: Mutex::new(()),
        };
        Self { opened: opened.into() }
    }

    /// Opens the model that a manifest names, to compute in f32, and checks that it is exactly the same model. Like any
    /// artifact, it is looked for at its path relative to the manifest, then at its old absolute path.
    ///
    /// # Errors
    /// It no longer exists, or it has changed.
    pub fn find(identity: &ModelIdentity, monitor: &dyn Monitor) -> Result<Self> {
        let open = |source: &str| Self::open(&source.parse()?, Compute::F32, monitor);
        let model = match &identity.recorded {
            None => open(&identity.source)?,
            Some(recorded) => {
                let places = [identity.source.clone(), recorded.clone()];
                open_first("the model", &places, Some(&identity.sha256), |source| {
                    let model = open(source)?;
                    Ok((Some(model.identity()?.sha256.clone()), model))
                })?
            }
        };
        model.check(identity)?;
        Ok(model)
    }

    /// Checks that this is exactly the model of a manifest.
    ///
    /// # Errors
    /// If the weights or the tokenizer differ.
    pub fn check(&self, identity: &ModelIdentity) -> Result<()> {
        let found = self.identity()?;
        for (what, expected, found) in [
            ("weights", &identity.sha256, &found.sha256),
            ("a tokenizer", &identity.tokenizer_sha256, &found.tokenizer_sha256),
        ] {
            if found != expected {
                let expected = format!("{what} of SHA-256 {expected}, as {} had", identity.source);
                let hint =
                    "Put that model back, or harvest this one; an SAE is used on another model with `other_model`";
                return Err(Error::malformed(self.opened.checkpoint.path(), expected, found, hint));
            }
        }
        Ok(())
    }

    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        self.opened.checkpoint.config()
    }

    /// Text to token ids and back.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.opened.tokenizer
    }

    /// Number type of the matrix products.
    pub fn compute(&self) -> Compute {
        self.opened.compute
    }

    /// A source that finds the same model again.
    pub fn source(&self) -> &str {
        &self.opened.source
    }

    /// Identity of the model. The first call reads the weight files for their checksum.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn identity(&self) -> Result<&ModelIdentity> {
        let Opened { source, checkpoint, tokenizer, .. } = &*self.opened;
        self.once(&self.opened.identity, || {
            let shape = checkpoint.config();
            Ok(ModelIdentity {
                source: source.clone(),
                relative: None,
                recorded: None,
                family: shape.family,
                sha256: checkpoint.sha256()?,
                tokenizer_sha256: tokenizer.sha256().into(),
                n_layers: shape.n_layers,
                d_model: shape.d_model,
                d_vocab: shape.d_vocab,
            })
        })
    }

    /// Runs the model up to the last point that `hook` wants. No logits are computed. The first pass reads the weights.
    ///
    /// # Errors
    /// A missing, surplus or wrongly shaped tensor; an unreadable file. The model lacks a hook point, there are more
    /// tokens than its context allows, or `hook` fails.
    pub fn run(&self, batch: &Batch, hook: &mut dyn Hook) -> Result<()> {
        self.transformer()?.run(batch, hook)
    }

    /// The residual stream after the last block: the input of [`Self::unembed`].
    ///
    /// With a `cache`, each sequence of the batch continues the one with its number there, and is added to it, unless
    /// a hook makes variants.
    ///
    /// # Shapes
    /// -> `[rows, d_model]`, once for each variant that a hook makes of the batch
    ///
    /// # Errors
    /// As for [`run`](Self::run); or the cache does not have a sequence, or has no space left for it.
    pub fn resid_final(&self, batch: &Batch, cache: Option<&mut KvCache>, hook: &mut dyn Hook) -> Result<Tensor> {
        self.transformer()?.resid_final(batch, cache, hook)
    }

    /// The forward pass. The first call reads the weights.
    pub(crate) fn transformer(&self) -> Result<&Transformer> {
        let Opened { checkpoint, device, compute, .. } = &*self.opened;
        self.once(&self.opened.transformer, || {
            let transformer = Transformer::load_for(checkpoint, device, *compute)?;
            tracing::debug!(model = self.source(), %compute, "weights read");
            Ok(transformer)
        })
    }

    /// The logits of rows of [`Self::resid_final`]. If nothing has run yet, the first call reads the head's weights and
    /// no others: a fifth of a small model's.
    ///
    /// # Shapes
    /// `resid`: `[rows, d_model]` -> `[rows, d_vocab]`
    ///
    /// # Errors
    /// `resid` has another width; the model was saved without its head, or the head cannot be read.
    pub fn unembed(&self, resid: &Tensor) -> Result<Tensor> {
        self.head()?.unembed(resid)
    }

    /// The two factors of the logit lens, whose product is how much each direction of the residual stream promotes each
    /// of `tokens`: the directions after the final norm, without its scale, and the tokens' rows of the unembedding. Reads
    /// the head's weights and no others, as [`Self::unembed`] does.
    ///
    /// # Shapes
    /// `directions`: `[n, d_model]` -> `[n, d_model]` and `[tokens, d_model]`
    ///
    /// # Errors
    /// As for [`Self::unembed`]; or a token is outside the vocabulary.
    pub fn logit_lens(&self, directions: &[f32], tokens: &[u32]) -> Result<(Tensor, Tensor)> {
        let (head, d_model) = (self.head()?, self.config().d_model);
        let directions = Tensor::from_slice(directions, (directions.len() / d_model, d_model), &self.opened.device)?;
        Ok((head.normed_directions(&directions)?, head.w_unembed(tokens)?))
    }

    /// The head alone, as long as nothing else was read.
    fn head(&self) -> Result<&Head> {
        if let Some(transformer) = self.opened.transformer.get() {
            return Ok(transformer.head());
        }
        let Opened { checkpoint, device, compute, .. } = &*self.opened;
        self.once(&self.opened.head, || checkpoint.load_head(device, *compute))
    }

    /// The value of `cell`; the first caller makes it.
    fn once<'a, T>(&self, cell: &'a OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&'a T> {
        if let Some(made) = cell.get() {
            return Ok(made);
        }
        let _making = self.opened.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = cell.get() {
            return Ok(made);
        }
        let made = make()?;
        Ok(cell.get_or_init(|| made))
    }
}
