//! [`generate`]: generates texts token by token with a KV cache, under any hook. [`Generation`] does the same step by
//! step.

use std::collections::BTreeMap;

use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use harvester::{Batch, Compute, Hook, KvCache, LanguageModel, Monitor, Settings, config_of};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Settings of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// Largest number of new tokens; generation ends earlier at a stop token. Default 48.
    pub max_new_tokens: usize,
    /// 0: always the most likely token. Default 0.
    pub temperature: f64,
    /// Sample from the most likely tokens that together have this probability. Default 1.
    pub top_p: f64,
    /// Seed of the sampling. Default 0.
    pub seed: u64,
    /// Numbers in the model's matrix products: `int8` writes several times faster, and nearly the same. Default `f32`.
    pub compute: Compute,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_new_tokens: 48, temperature: 0.0, top_p: 1.0, seed: 0, compute: Compute::F32 }
    }
}

impl GenerateConfig {
    /// The config of these settings, and the defaults of all others.
    ///
    /// # Errors
    /// An unknown name, a value of another kind, or a setting that has no effect beside the others.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let config: Self = config_of(settings)?;
        match ["top_p", "seed"].into_iter().find(|name| config.temperature == 0.0 && settings.contains_key(*name)) {
            Some(setting) => {
                let why = "without a `temperature` above 0: at 0 the likeliest token is taken".into();
                Err(harvester::Error::NoEffect { setting, why }.into())
            }
            None => Ok(config),
        }
    }

    fn sampler(&self) -> Result<LogitsProcessor> {
        let (temperature, p) = (self.temperature, self.top_p);
        let usable = (0.0..=100.0).contains(&temperature) && p > 0.0 && p <= 1.0; // false for NaN
        if !usable {
            let expected = "a temperature from 0 to 100, and a share above 0 and at most 1";
            let found = format!("{temperature} and {p}");
            return Err(harvester::Error::invalid("`temperature` and `top_p`", expected, found).into());
        }
        let sampling = match (temperature, p) {
            (0.0, _) => Sampling::ArgMax,
            (temperature, 1.0) => Sampling::All { temperature },
            (temperature, p) => Sampling::TopP { p, temperature },
        };
        Ok(LogitsProcessor::from_sampling(self.seed, sampling))
    }
}

/// Texts that are generated side by side, one token of each per step. Texts can be added while others are unfinished;
/// each gets the same tokens as it would alone.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a LanguageModel,
    cache: KvCache,
    texts: Vec<Text>,
}

/// A text that is not finished.
struct Text {
    /// Its sequence number in the cache.
    sequence: usize,
    /// Its tokens that the model has not seen yet.
    unseen: Vec<u32>,
    sampler: LogitsProcessor,
    /// Number of new tokens that it may still get.
    left: usize,
}

impl<'a> Generation<'a> {
    /// A generation without texts.
    ///
    /// # Errors
    /// When the model's weights cannot be read.
    pub fn new(model: &'a LanguageModel) -> Result<Self> {
        Ok(Self { model, cache: KvCache::new(model.config()), texts: vec![] })
    }

    /// Adds a text that begins with `prompt`. Returns its number, by which hooks identify its rows.
    ///
    /// # Errors
    /// An empty prompt, or more text than fits in the model's context.
    pub fn add(&mut self, prompt: &[u32], config: &GenerateConfig) -> Result<usize> {
        if prompt.is_empty() {
            return Err(harvester::Error::invalid("prompt", "at least one token", "an empty text").into());
        }
        let (sampler, left) = (config.sampler()?, config.max_new_tokens);
        let sequence = self.cache.add(prompt.len().saturating_add(left))?;
        self.texts.push(Text { sequence, unseen: prompt.to_vec(), sampler, left });
        self.drop_finished();
        Ok(sequence)
    }

    /// True if every text is finished.
    pub fn is_done(&self) -> bool {
        self.texts.is_empty()
    }

    /// Generates one token of each unfinished text. Returns the text's number and the token; a text that ends with a
    /// stop token gets no entry.
    ///
    /// # Errors
    /// An error of `hook`.
    pub fn step(&mut self, hook: &mut dyn Hook) -> Result<Vec<(usize, u32)>> {
        if self.is_done() {
            return Ok(vec![]);
        }
        let mut batch = Batch::default();
        self.texts.iter().for_each(|text| batch.push(text.sequence, &text.unseen));
        let resid = self.model.resid_final(&batch, Some(&mut self.cache), hook)?; // [rows, d_model]
        let last = Tensor::new(batch.last_rows(), resid.device())?;
        let logits = self.model.unembed(&resid.index_select(&last, 0)?)?; // [texts, d_vocab]
        let mut written = vec![];
        for (row, text) in self.texts.iter_mut().enumerate() {
            let next = text.sampler.sample(&logits.get(row)?)?;
            if self.model.tokenizer().is_stop(next) {
                text.left = 0;
                continue;
            }
            text.left -= 1;
            text.unseen = vec![next];
            written.push((text.sequence, next));
        }
        self.drop_finished();
        Ok(written)
    }

    /// Frees the memory of finished texts.
    fn drop_finished(&mut self) {
        let cache = &mut self.cache;
        self.texts.retain(|text| {
            if text.left == 0 {
                cache.free(text.sequence);
            }
            text.left > 0
        });
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Text").field("sequence", &self.sequence).field("left", &self.left).finish_non_exhaustive()
    }
}

/// The tokens generated after each of `prompts` under `hook`, without the prompt and without a stop token. All
/// texts are generated side by side.
///
/// # Errors
/// An empty prompt, more text than fits in the model's context, or an error of `hook`.
pub fn generate<T: AsRef<[u32]>>(
    model: &LanguageModel,
    prompts: &[T],
    config: &GenerateConfig,
    hook: &mut dyn Hook,
    monitor: &dyn Monitor,
) -> Result<Vec<Vec<u32>>> {
    let mut generation = Generation::new(model)?;
    let texts: Vec<usize> =
        prompts.iter().map(|prompt| generation.add(prompt.as_ref(), config)).collect::<Result<_>>()?;
    let mut written: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    monitor.start("writing", (prompts.len() * config.max_new_tokens) as u64, "tokens");
    while !generation.is_done() {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        for (text, token) in generation.step(hook)? {
            written.entry(text).or_default().push(token);
            monitor.advance(1);
        }
    }
    monitor.finish();
    Ok(texts.iter().map(|text| written.remove(text).unwrap_or_default()).collect())
}
