//! [`generate`]: generates texts token by token with a KV cache, under any hook. [`Generation`] does the same step by
//! step.

use std::collections::{BTreeMap, HashSet};

use candle_core::Tensor;
use candle_transformers::{
    generation::{LogitsProcessor, Sampling},
    utils::apply_repeat_penalty,
};
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
    /// Sample from this many of the most likely tokens; 0: from all. Default 0.
    pub top_k: usize,
    /// Sample from the most likely tokens that together have this probability. Default 1.
    pub top_p: f64,
    /// The logits of tokens that the prompt or the text has already are divided by this if they are positive, and
    /// multiplied by it if not (CTRL, 2019). Default 1: they stay.
    pub repetition_penalty: f64,
    /// Seed of the sampling. Default 0.
    pub seed: u64,
    /// Numbers in the model's matrix products: `int8` writes several times faster, and nearly the same. Default `f32`.
    pub compute: Compute,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self {
            max_new_tokens: 48,
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 0,
            compute: Compute::F32,
        }
    }
}

impl GenerateConfig {
    /// The config of these settings, and the defaults of all others.
    ///
    /// # Errors
    /// An unknown name, a value of another kind, or a setting that has no effect beside the others.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let config: Self = config_of(settings)?;
        match ["top_k", "top_p", "seed"]
            .into_iter()
            .find(|name| config.temperature == 0.0 && settings.contains_key(*name))
        {
            Some(setting) => {
                let why = "without a `temperature` above 0: at 0 the likeliest token is taken".into();
                Err(harvester::Error::NoEffect { setting, why }.into())
            }
            None => Ok(config),
        }
    }

    fn sampler(&self) -> Result<LogitsProcessor> {
        let Self { temperature, top_k: k, top_p: p, repetition_penalty: penalty, .. } = *self;
        // Each is false for NaN.
        for (what, expected, usable, found) in [
            ("`temperature`", "0 to 100", (0.0..=100.0).contains(&temperature), temperature),
            ("`top_p`", "above 0 and at most 1", p > 0.0 && p <= 1.0, p),
            ("`repetition_penalty`", "above 0 and at most 100", penalty > 0.0 && penalty <= 100.0, penalty),
        ] {
            if !usable {
                return Err(harvester::Error::invalid(what, expected, found.to_string()).into());
            }
        }
        let sampling = match (temperature, k, p) {
            (0.0, ..) => Sampling::ArgMax,
            (temperature, 0, 1.0) => Sampling::All { temperature },
            (temperature, 0, p) => Sampling::TopP { p, temperature },
            (temperature, k, 1.0) => Sampling::TopK { k, temperature },
            (temperature, k, p) => Sampling::TopKThenTopP { k, p, temperature },
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
    /// The tokens with which a text ends.
    stop: HashSet<u32>,
}

/// A text that is not finished.
struct Text {
    /// Its sequence number in the cache.
    sequence: usize,
    /// Its tokens that the model has not seen yet.
    unseen: Vec<u32>,
    sampler: LogitsProcessor,
    /// A factor other than 1, and all tokens of the text.
    repeated: Option<(f32, Vec<u32>)>,
    /// Number of new tokens that it may still get.
    left: usize,
}

impl<'a> Generation<'a> {
    /// A generation without texts.
    ///
    /// # Errors
    /// When the model's weights cannot be read.
    pub fn new(model: &'a LanguageModel) -> Result<Self> {
        let stop = model.tokenizer().special_tokens().into_iter().filter(|(_, ends)| *ends).map(|(id, _)| id).collect();
        Ok(Self { model, cache: KvCache::new(model.config()), texts: vec![], stop })
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
        let repeated = (config.repetition_penalty != 1.0).then(|| (config.repetition_penalty as f32, prompt.to_vec()));
        self.texts.push(Text { sequence, unseen: prompt.to_vec(), sampler, repeated, left });
        self.drop_finished();
        Ok(sequence)
    }

    /// True if every text is finished.
    pub fn is_done(&self) -> bool {
        self.texts.is_empty()
    }

    /// Ends a text.
    pub fn end(&mut self, text: usize) {
        self.texts.iter_mut().filter(|unfinished| unfinished.sequence == text).for_each(|text| text.left = 0);
        self.drop_finished();
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
            let mut logits = logits.get(row)?;
            if let Some((penalty, seen)) = &text.repeated {
                logits = apply_repeat_penalty(&logits, *penalty, seen)?;
            }
            let next = text.sampler.sample(&logits)?;
            if self.stop.contains(&next) {
                text.left = 0;
                continue;
            }
            text.repeated.iter_mut().for_each(|(_, seen)| seen.push(next));
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
