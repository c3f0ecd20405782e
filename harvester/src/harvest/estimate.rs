//! [`HarvestEstimate`]: time and disk space of a harvest, before it begins.
//!
//! ```text
//! seconds = tokens * flop_per_token / (rate of f32 matrix products * FORWARD_EFFICIENCY)
//! bytes   = tokens * (values and norm of each hook point + columns of the token)
//! ```

use std::fmt;

use crate::{
    Compute, Corpus, Error, HarvestConfig, HookPoint, LanguageModel, ModelConfig, Result, TextTokenizer, gemm_flops,
    human, text::Document,
};

/// Documents by which the length of a token is estimated, and characters of each at most.
const SAMPLES: u64 = 8;
const SAMPLE_CHARACTERS: usize = 16_384;
/// Bytes of a row beside its hook points.
const TOKEN_BYTES: usize = 24;

/// Estimate of a harvest.
pub(super) struct HarvestEstimate<'a> {
    model: &'a LanguageModel,
    /// Tokens of an earlier run.
    done: u64,
    /// Tokens that are left.
    pub(super) tokens: u64,
    layers: usize,
    seconds: f64,
    /// On disk.
    bytes: u64,
}

impl fmt::Display for HarvestEstimate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, done, tokens, layers, seconds, bytes } = self;
        let more = if *done > 0 { "more " } else { "" };
        let (tokens, n_layers) = (human::grouped(*tokens), model.config().n_layers);
        let (time, size) = (human::seconds(*seconds), human::bytes(*bytes));
        write!(
            f,
            "{tokens} {more}tokens through {layers} of {n_layers} layers of {}: about {time}, {size} on disk",
            model.source()
        )
    }
}

impl<'a> HarvestEstimate<'a> {
    /// The estimate for harvesting what is left of `corpus` with `model` after `done` tokens.
    ///
    /// # Errors
    /// A document that cannot be read or tokenized.
    pub(super) fn new(model: &'a LanguageModel, corpus: &Corpus, config: &HarvestConfig, done: u64) -> Result<Self> {
        let all = match config.tokens {
            // No more than there can be: a token has a byte or more.
            Some(tokens) => tokens.min(corpus.bytes().max(1)),
            None => {
                let all = corpus.bytes() as f64 / bytes_per_token(model.tokenizer(), corpus)?;
                (all / config.part.map_or(1.0, |part| part.of() as f64)) as u64
            }
        };
        let tokens = all.saturating_sub(done);
        let shape = model.config();
        let row_bytes = |point: &HookPoint| config.dtype.row_bytes(point.width(shape)) + size_of::<f32>();
        let row_bytes = config.hook_points.iter().map(row_bytes).sum::<usize>() + TOKEN_BYTES;
        let (layers, seconds) = forward_estimate(shape, config, tokens as f64);
        Ok(Self { model, done, tokens, layers, seconds, bytes: tokens * row_bytes as u64 })
    }
}

/// The number of blocks that run for the hook points, and the seconds of a forward pass of `tokens` tokens through them.
pub fn forward_estimate(model: &ModelConfig, config: &HarvestConfig, tokens: f64) -> (usize, f64) {
    // Share of the rate of f32 matrix products that a whole pass reaches (`just bench`).
    let efficiency = match config.compute {
        Compute::F32 => 0.8,
        Compute::Int8 => 1.7,
    };
    let layers = config.hook_points.iter().map(|point| point.layers_needed()).max().unwrap_or(0);
    (layers, tokens * model.flop_per_token(layers, config.ctx_len) as f64 / gemm_flops() / efficiency)
}

/// The mean length of a token, in a few documents of the corpus.
fn bytes_per_token(tokenizer: &TextTokenizer, corpus: &Corpus) -> Result<f64> {
    let (mut bytes, mut tokens) = (1, 1);
    let samples = SAMPLES.min(corpus.n_documents());
    for document in (0..samples).map(|sample| sample * corpus.n_documents() / samples) {
        let text = match corpus.document(document)? {
            Document::Text(text) => text,
            Document::Chat(messages) | Document::IncompleteChat(messages) => {
                messages.into_iter().map(|message| message.content).collect()
            }
        };
        let text: String = text.chars().take(SAMPLE_CHARACTERS).collect();
        bytes += text.len();
        let encoded = tokenizer.encode(&text);
        tokens +=
            encoded.map_err(|error| Error::Document { place: corpus.place_of(document), source: error.into() })?.len();
    }
    Ok(bytes as f64 / tokens as f64)
}
