//! [`HarvestEstimate`]: time and disk space of a harvest, before it begins.
//!
//! ```text
//! seconds = tokens * flop_per_token / (rate of f32 matrix products * FORWARD_EFFICIENCY)
//! bytes   = tokens * (values and norm of each hook point + columns of the token)
//! ```

use std::fmt;

use crate::{
    Compute, Corpus, Error, HarvestConfig, HookPoint, LanguageModel, LongDocuments, ModelConfig, Packing, Result,
    TextTokenizer, gemm_flops, human,
    text::{ContextOptions, Document},
};

/// Documents by which the number of tokens is estimated, fewer if there are rows of tables, and characters of each at
/// most.
const SAMPLES: u64 = 64;
const FEW_SAMPLES: u64 = 8;
const SAMPLE_CHARACTERS: usize = 16_384;
/// Bytes of a row beside its hook points.
const TOKEN_BYTES: usize = 24;

/// Estimate of a harvest.
pub(super) struct HarvestEstimate<'a> {
    model: &'a LanguageModel,
    /// `about `, `at most `, or nothing if there is enough text for the budget.
    accuracy: &'static str,
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
        let Self { model, accuracy, done, tokens, layers, seconds, bytes } = self;
        let more = if *done > 0 { "more " } else { "" };
        let (tokens, n_layers) = (human::grouped(*tokens), model.config().n_layers);
        let (time, size) = (human::seconds(*seconds), human::bytes(*bytes));
        write!(
            f,
            "{accuracy}{tokens} {more}tokens through {layers} of {n_layers} layers of {}: about {time}, {size} on disk",
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
        let (all, accuracy) = match config.tokens {
            // A run that goes on need not read documents for it.
            Some(budget) if done > 0 => (budget, "at most "),
            budget => {
                let parts = config.part.map_or(1.0, |part| part.of() as f64);
                let (tokens, contexts) = tokens_in(model.tokenizer(), corpus, config)?;
                // The budget is one of contexts, and these may be shorter than `ctx_len`.
                let wanted = config.context_budget() as f64 / f64::max(contexts / parts, 1.0);
                match budget {
                    Some(budget) if config.packing == Packing::Concatenate && wanted <= 0.5 => (budget, ""),
                    Some(budget) if config.packing == Packing::Concatenate && wanted <= 1.0 => (budget, "at most "),
                    _ => ((tokens / parts * wanted.min(1.0)) as u64, "about "),
                }
            }
        };
        let tokens = all.saturating_sub(done);
        let shape = model.config();
        let row_bytes = |point: &HookPoint| config.dtype.row_bytes(point.width(shape)) + size_of::<f32>();
        let row_bytes = config.hook_points.iter().map(row_bytes).sum::<usize>() + TOKEN_BYTES;
        let (layers, seconds) = forward_estimate(shape, config, tokens as f64);
        Ok(Self { model, accuracy, done, tokens, layers, seconds, bytes: tokens * row_bytes as u64 })
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

/// The number of tokens of all contexts, and that of contexts, estimated from some documents. A line or file has as many
/// tokens as its bytes suggest, a row as many as the mean row.
fn tokens_in(tokenizer: &TextTokenizer, corpus: &Corpus, config: &HarvestConfig) -> Result<(f64, f64)> {
    let (n, options) = (corpus.n_documents(), config.context_options());
    // Each row that is read may cost a row group, over the network.
    let samples = if corpus.has_rows() { FEW_SAMPLES } else { SAMPLES }.min(n);
    let (mut bytes, mut tokens, mut rows, mut of_rows) = (0, 0.0, 0.0, [0.0; 2]);
    for document in (0..samples).map(|sample| sample * n / samples) {
        let whole = tokens_of(tokenizer, corpus, config, document)?;
        match corpus.plain_bytes_of(document) {
            Some(plain) => (bytes, tokens) = (bytes + plain, tokens + whole),
            None => (rows, of_rows) = (rows + 1.0, sum(of_rows, used(whole, &options))),
        }
    }
    let rate = tokens / bytes.max(1) as f64;
    let (mut plain, mut all) = (0, [0.0; 2]);
    for bytes in corpus.plain_bytes() {
        plain += 1;
        all = sum(all, used(bytes as f64 * rate, &options));
    }
    let (of, among) = if rows > 0.0 { (of_rows, rows) } else { (all, f64::max(plain as f64, 1.0)) };
    let [tokens, contexts] = sum(all, of.map(|of| of / among * (n - plain) as f64));
    Ok((tokens, contexts))
}

fn sum(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

/// The number of tokens of a document, before any is cut off, from its beginning.
fn tokens_of(tokenizer: &TextTokenizer, corpus: &Corpus, config: &HarvestConfig, document: u64) -> Result<f64> {
    let text = match corpus.document(document)? {
        Document::Text(text) => text,
        // A conversation that the template refuses is left out.
        Document::Chat(messages) | Document::IncompleteChat(messages) => {
            tokenizer.render_chat(config.chat_date, &messages, false).unwrap_or_default()
        }
    };
    let begin: String = text.chars().take(SAMPLE_CHARACTERS).collect();
    let named = |error: Error| Error::Document { place: corpus.place_of(document), source: error.into() };
    let tokens = tokenizer.encode(&begin).map_err(named)?.len() as f64;
    Ok(tokens * text.len() as f64 / begin.len().max(1) as f64)
}

/// The number of tokens in contexts, and that of contexts, of a document of `tokens` tokens.
fn used(tokens: f64, options: &ContextOptions) -> [f64; 2] {
    if tokens < f64::max(options.min_document_tokens as f64, 1e-9) {
        return [0.0; 2];
    }
    let (ctx_len, bos) = (options.ctx_len as f64, f64::from(options.bos.is_some()));
    let cut = options.document_tokens.map_or(tokens, |most| tokens.min(most as f64));
    let body = cut + f64::from(options.separator.is_some());
    match (options.packing, options.long_documents) {
        (Packing::Concatenate, _) => [body * ctx_len / (ctx_len - bos), body / (ctx_len - bos)],
        (Packing::Document, LongDocuments::Split) => {
            let contexts = (body / (ctx_len - bos)).ceil();
            [body + bos * contexts, contexts]
        }
        (Packing::Document, LongDocuments::Truncate) => [(body + bos).min(ctx_len), 1.0],
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{CorpusOptions, ModelSource, Silent};

    /// Lines of which the text is a small part, of lengths that differ a hundredfold: the estimate is compared with the
    /// harvest itself.
    #[test]
    fn what_is_cut_off_and_other_fields_are_not_counted() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
        let model = LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let line = |i: u64| {
            let words = "the cat sat on the mat and then it went away. ".repeat(1 + (i * i * 7919 % 97) as usize);
            let more = "x".repeat(40 * words.len());
            serde_json::json!({ "text": format!("{i} {words}"), "short": "the cat", "more": more }).to_string() + "\n"
        };
        let file = folder.path().join("lines.jsonl");
        std::fs::write(&file, (0..300).map(line).collect::<String>()).unwrap();
        let text = CorpusOptions::default();
        let short = CorpusOptions { text_field: "short".into(), drop_duplicates: false, ..CorpusOptions::default() };
        let base = HarvestConfig { hook_points: vec![HookPoint::Embed], ctx_len: 32, ..HarvestConfig::default() };
        let by_document = HarvestConfig { packing: Packing::Document, ..base.clone() };
        for (at, (options, config)) in [
            (&text, base.clone()),
            (&text, HarvestConfig { document_tokens: Some(50), ..base.clone() }),
            (&text, HarvestConfig { min_document_tokens: 400, ..base.clone() }),
            (&text, HarvestConfig { part: Some("1/3".parse().unwrap()), ..base.clone() }),
            (&text, by_document.clone()),
            (&text, HarvestConfig { long_documents: LongDocuments::Truncate, ..by_document }),
            (&short, base.clone()),
        ]
        .into_iter()
        .enumerate()
        {
            let corpus = Corpus::open(std::slice::from_ref(&file), options).unwrap();
            let settled = crate::harvest::harvester::settle(&config, &model).unwrap();
            let estimate = HarvestEstimate::new(&model, &corpus, &settled, 0).unwrap();
            let out = folder.path().join(at.to_string());
            let tokens = crate::harvest(&model, &corpus, &config, out.as_path(), &Silent).unwrap().counts.tokens;
            let ratio = estimate.tokens as f64 / tokens as f64;
            assert!((0.85..1.15).contains(&ratio), "{at}: {} of {tokens}", estimate.tokens);
            assert!(estimate.to_string().starts_with("about "), "{estimate}");
            let budget = |tokens| HarvestConfig { tokens: Some(tokens), ..settled.clone() };
            let of = |tokens| HarvestEstimate::new(&model, &corpus, &budget(tokens), 0).unwrap();
            assert!(of(1000 * tokens).to_string().starts_with(&format!("about {}", human::grouped(estimate.tokens))));
            if config.packing == Packing::Concatenate {
                assert!(of(tokens / 4).to_string().starts_with(&format!("{} tokens", human::grouped(tokens / 4))));
                assert!(of(tokens * 8 / 10).to_string().starts_with("at most "), "{}", of(tokens * 8 / 10));
            } else {
                // Contexts that end with their document hold fewer tokens than the budget counts for them.
                let few = HarvestConfig { tokens: Some(tokens / 4), ..config.clone() };
                let out = folder.path().join(format!("{at}-few"));
                let found = crate::harvest(&model, &corpus, &few, out.as_path(), &Silent).unwrap().counts.tokens;
                let ratio = of(tokens / 4).tokens as f64 / found as f64;
                assert!((0.85..1.15).contains(&ratio), "{at}: {} of {found}", of(tokens / 4).tokens);
            }
        }
    }
}
