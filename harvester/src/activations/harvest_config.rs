//! [`HarvestConfig`]: settings of a harvest. All of them affect the files, so the resolved config is kept in the
//! manifest, and a folder is only continued with the same config.

use serde::{Deserialize, Serialize};

use super::layout::Layout;
use crate::{
    ChatDate, Compute, CorpusPart, Error, HookPoint, Result, Settings, SpecialToken, StorageDtype, TextTokenizer,
    config_of,
    model::ModelConfig,
    text::{ContextOptions, LongDocuments, Packing},
};

/// Settings of a harvest: what is harvested, and the layout of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HarvestConfig {
    /// Hook points to harvest, all from the same pass.
    pub hook_points: Vec<HookPoint>,
    /// Tokens per context. Default 256.
    pub ctx_len: usize,
    /// Contexts per forward pass. Default 8.
    pub batch: usize,
    /// Stop after this many tokens, rounded up to whole contexts; a short context counts as a full one. `None`: the
    /// whole corpus.
    pub tokens: Option<u64>,
    /// Number type of the model's matrix products. Default f32.
    pub compute: Compute,
    /// Storage type of the values. Default f16.
    pub dtype: StorageDtype,
    /// Kind of column for the values. Default list.
    pub layout: Layout,
    /// Seed of the order of documents. Default 0; `None`: corpus order.
    pub seed: Option<u64>,
    /// Token after each document. Default: the model's end-of-sequence token.
    pub separator: SpecialToken,
    /// Token at position 0 of each context. Default: the model's BOS, if it was trained with one there.
    pub bos: SpecialToken,
    /// Most tokens used of one document, so that a small budget covers many documents. Default `None`: all of them.
    pub document_tokens: Option<usize>,
    /// Packing of documents into contexts. Default: one after the other.
    pub packing: Packing,
    /// Treatment of documents longer than a context, if each document has its own contexts. Default: split.
    pub long_documents: LongDocuments,
    /// Documents with fewer tokens are left out. Default 0.
    pub min_document_tokens: usize,
    /// The day that chat templates write as today's, so that a harvest does not depend on when it is made. Default
    /// 2024-07-26.
    pub chat_date: ChatDate,
    /// Rows per parquet file: a multiple of the context length. Default 65,536.
    pub part_tokens: usize,
    /// Part of the corpus, if several harvests share it; `None`: all of it. The token budget applies to this part.
    pub part: Option<CorpusPart>,
}

impl Default for HarvestConfig {
    fn default() -> Self {
        Self {
            hook_points: vec![],
            ctx_len: 256,
            batch: 8,
            tokens: None,
            compute: Compute::F32,
            dtype: StorageDtype::F16,
            layout: Layout::List,
            seed: Some(0),
            separator: SpecialToken::FromModel,
            bos: SpecialToken::FromModel,
            document_tokens: None,
            packing: Packing::Concatenate,
            long_documents: LongDocuments::Split,
            min_document_tokens: 0,
            chat_date: ChatDate::default(),
            part_tokens: 65_536,
            part: None,
        }
    }
}

impl HarvestConfig {
    /// The config with these settings, and defaults for all others.
    ///
    /// # Errors
    /// An unknown name, a value of the wrong type, or a setting that has no effect with the others.
    pub fn from_settings(settings: &Settings) -> Result<Self> {
        let config: Self = config_of(settings)?;
        if settings.contains_key("long_documents") && config.packing != Packing::Document {
            return Err(Error::NoEffect { setting: "long_documents", why: "without `packing` document".into() });
        }
        Ok(config)
    }

    /// Checks every value against `model`.
    ///
    /// # Errors
    /// Names the value that cannot be used, and those that can.
    pub fn check(&self, model: &ModelConfig) -> Result<()> {
        if self.hook_points.is_empty() {
            return Err(Error::invalid("`hook_points`", "at least one, such as blocks.0.hook_resid_post", "none"));
        }
        for (i, point) in self.hook_points.iter().enumerate() {
            point.check(model)?;
            if self.hook_points[..i].contains(point) {
                return Err(Error::invalid("`hook_points`", "each once", format!("{point} twice")));
            }
        }
        if self.ctx_len < 2 || self.ctx_len > model.ctx_len {
            let expected = format!("2 to {} tokens, the longest context of this model", model.ctx_len);
            let is_default = self.ctx_len == Self::default().ctx_len;
            let found = format!("{}{}", self.ctx_len, if is_default { ", the default" } else { "" });
            return Err(Error::invalid("`ctx_len`", expected, found));
        }
        if self.batch == 0 {
            return Err(Error::invalid("`batch`", "at least one context", "0"));
        }
        for (what, tokens) in [("`tokens`", self.tokens), ("`document_tokens`", self.document_tokens.map(|n| n as u64))]
        {
            match tokens {
                Some(0) => return Err(Error::invalid(what, "at least one", "0")),
                // The number must stay countable when rounded up to whole contexts.
                Some(n) if n > i64::MAX as u64 => {
                    return Err(Error::invalid(what, format!("at most {}", i64::MAX), n.to_string()));
                }
                _ => {}
            }
        }
        if self.part_tokens == 0 || !self.part_tokens.is_multiple_of(self.ctx_len) {
            let near = (self.part_tokens / self.ctx_len).max(1) * self.ctx_len;
            let expected = format!("a multiple of `ctx_len`, {}, such as {near}", self.ctx_len);
            return Err(Error::invalid("`part_tokens`", expected, self.part_tokens.to_string()));
        }
        Ok(())
    }

    /// Replaces special tokens that refer to the model by the token ids of `tokenizer`.
    ///
    /// # Errors
    /// If a token is not in the model's vocabulary.
    pub(crate) fn resolve(&self, tokenizer: &TextTokenizer, model: &ModelConfig) -> Result<Self> {
        let (separator, bos) = (self.separator.resolve(tokenizer.eos()), self.bos.resolve(tokenizer.text_bos()));
        for (what, token) in [("separator", separator), ("BOS", bos)] {
            if token.id().is_some_and(|id| id as usize >= model.d_vocab) {
                let expected = format!("a token of the model, below {}", model.d_vocab);
                return Err(Error::invalid(what, expected, token.to_string()));
            }
        }
        Ok(Self { separator, bos, ..self.clone() })
    }

    /// Most contexts to harvest: the token budget, rounded up.
    pub(crate) fn context_budget(&self) -> u64 {
        self.tokens.map_or(u64::MAX, |tokens| tokens.div_ceil(self.ctx_len as u64))
    }

    /// Contexts per part.
    pub(crate) fn part_contexts(&self) -> u64 {
        (self.part_tokens / self.ctx_len) as u64
    }

    /// Number of contexts in the forward pass that begins with context `first`: a batch never crosses the end of its
    /// part or the budget.
    pub(crate) fn batch_contexts(&self, first: u64) -> u64 {
        let to_part_end = self.part_contexts() - first % self.part_contexts();
        (self.batch as u64).min(to_part_end).min(self.context_budget().saturating_sub(first))
    }

    /// Options of packing, once the special tokens are resolved.
    pub(crate) fn context_options(&self) -> ContextOptions {
        let (separator, bos) = (self.separator.id(), self.bos.id());
        ContextOptions {
            ctx_len: self.ctx_len,
            separator,
            bos,
            packing: self.packing,
            long_documents: self.long_documents,
            document_tokens: self.document_tokens,
            min_document_tokens: self.min_document_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_whole_contexts() {
        let config = HarvestConfig { tokens: Some(257), ..HarvestConfig::default() };
        assert_eq!(config.context_budget(), 2);
        assert_eq!(config.part_contexts(), 256);
        assert_eq!(HarvestConfig::default().context_budget(), u64::MAX);
    }
}
