//! [`generate`]: writes text token by token with a KV cache, under any hook.

use candle_core::Tensor;
use candle_transformers::generation::{LogitsProcessor, Sampling};
use harvester::{Hook, KvCache, LanguageModel, Monitor};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, splice};

/// How to write.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GenerateConfig {
    /// New tokens at most; the end-of-text token ends earlier. Default 48.
    pub max_new_tokens: usize,
    /// 0: always the likeliest token. Default 0.
    pub temperature: f64,
    /// Sample from the likeliest tokens that together have this probability. Default 1.
    pub top_p: f64,
    /// Seed of the sampling. Default 0.
    pub seed: u64,
}

impl Default for GenerateConfig {
    fn default() -> Self {
        Self { max_new_tokens: 48, temperature: 0.0, top_p: 1.0, seed: 0 }
    }
}

impl GenerateConfig {
    fn sampler(&self) -> Result<LogitsProcessor> {
        let (temperature, p) = (self.temperature, self.top_p);
        let usable = (0.0..=100.0).contains(&temperature) && p > 0.0 && p <= 1.0; // false for nan
        if !usable {
            let expected = "temperature from 0 to 100, top_p above 0 and at most 1";
            let found = format!("temperature {temperature}, top_p {p}");
            return Err(harvester::Error::invalid("sampling", expected, found).into());
        }
        let sampling = match (temperature, p) {
            (0.0, _) => Sampling::ArgMax,
            (temperature, 1.0) => Sampling::All { temperature },
            (temperature, p) => Sampling::TopP { p, temperature },
        };
        Ok(LogitsProcessor::from_sampling(self.seed, sampling))
    }
}

/// The tokens that follow `prompt` under `hook`, without the prompt and without an end-of-text token.
///
/// # Errors
/// An empty prompt, more text than the model's context holds, or whatever `hook` raises.
pub fn generate(
    model: &LanguageModel,
    prompt: &[u32],
    config: &GenerateConfig,
    hook: &mut dyn Hook,
    monitor: &dyn Monitor,
) -> Result<Vec<u32>> {
    if prompt.is_empty() {
        return Err(harvester::Error::invalid("prompt", "at least one token", "an empty text").into());
    }
    let transformer = model.transformer()?;
    let capacity = prompt.len() + config.max_new_tokens;
    let mut cache = KvCache::new(transformer.config(), 1, capacity, transformer.device())?;
    let mut sampler = config.sampler()?;
    let mut new: Vec<u32> = vec![];
    let mut input = prompt.to_vec();
    monitor.start("writing", config.max_new_tokens as u64, "tokens");
    while new.len() < config.max_new_tokens {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let resid = transformer.resid_final(&splice::row(model, &input)?, Some(&mut cache), hook)?;
        let logits = last_logits(model, &resid)?;
        let next = sampler.sample(&logits)?;
        if model.tokenizer().eos() == Some(next) {
            break;
        }
        new.push(next);
        input = vec![next];
        monitor.advance(1);
    }
    monitor.finish();
    Ok(new)
}

/// Logits after the last position. `[1, pos, d_model]` -> `[d_vocab]`
fn last_logits(model: &LanguageModel, resid: &Tensor) -> Result<Tensor> {
    let last = resid.narrow(1, resid.dim(1)? - 1, 1)?;
    Ok(model.head()?.unembed(&last)?.flatten_all()?)
}
