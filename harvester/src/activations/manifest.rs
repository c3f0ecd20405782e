//! [`HarvestManifest`]: what made a folder of activations and which of its files count. Everything downstream needs is
//! in it, so that no later command is told the model or the layer again. It is rewritten whole after each finished
//! part; it holds no wall-clock facts, so the same run always writes the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::harvest_config::HarvestConfig;
use crate::{
    CorpusOptions, CorpusSource, Error, HookPoint, ModelIdentity, Result,
    numbers::HookPointStatistics,
    text::{ContextCursor, LeftOut},
};

/// What made a folder of activations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HarvestManifest {
    /// `refract.activations`.
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// The refract that began this folder.
    pub refract_version: String,
    /// Whether everything asked for is here.
    pub complete: bool,
    /// The model.
    pub model: ModelIdentity,
    /// Where the documents come from, in order: document numbers are assigned along this list.
    pub corpus: Vec<CorpusSource>,
    /// How the corpus was read.
    pub corpus_options: CorpusOptions,
    /// Everything that was asked for, with the special tokens resolved.
    pub config: HarvestConfig,
    /// How many harvests of parts of the corpus were merged into this folder; absent where it is one harvest's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_from: Option<u64>,
    /// Blocks that the forward pass ran.
    pub layers_run: usize,
    /// Floating-point operations a token of the forward pass.
    pub flop_per_token: u64,
    /// What is in the finished parts.
    pub counts: Counts,
    /// Per hook point, what the values look like.
    pub hook_points: Vec<HookPointSummary>,
    /// The finished files, in order. Others in the folder do not count.
    pub parts: Vec<Part>,
}

/// What was read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents that at least one row is from.
    pub documents: u64,
    /// Contexts.
    pub contexts: u64,
    /// Tokens: rows of all parts.
    pub tokens: u64,
    /// Tokens at the corpus' end that did not fill a context.
    pub dropped_tokens: u64,
    /// What was left out of the documents that were read, and why.
    pub left_out: LeftOut,
    /// Documents of the corpus left out because their text had been seen before.
    pub duplicates: u64,
    /// Files and links of the corpus' folders that were left out; see [`CorpusSource::skipped_files`].
    pub skipped_files: u64,
    /// Lines of the corpus' JSONL files left out because they hold no document.
    #[serde(default)]
    pub malformed_lines: u64,
}

impl Counts {
    /// These and those of another part of the same corpus. What was left out of the whole corpus is counted once.
    pub(crate) fn plus_part(self, other: &Self) -> Self {
        Self {
            documents: self.documents + other.documents,
            contexts: self.contexts + other.contexts,
            tokens: self.tokens + other.tokens,
            dropped_tokens: self.dropped_tokens + other.dropped_tokens,
            left_out: self.left_out.plus(&other.left_out),
            duplicates: other.duplicates,
            skipped_files: other.skipped_files,
            malformed_lines: other.malformed_lines,
        }
    }
}

/// What the values of one hook point look like. See `numbers/stats.rs` for which rows count where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookPointSummary {
    /// The hook point; its column has the same name.
    pub name: HookPoint,
    /// Values a row.
    pub d_model: usize,
    /// Rows above this norm are attention sinks. Readers drop them, together with position 0.
    pub sink_norm: f32,
    /// Rows with position > 0 above `sink_norm`.
    pub sinks: u64,
    /// Norm of the mean over the root of the summed variances, over the rows that are left.
    pub mean_to_spread: f32,
    /// Quantiles of the norm of all rows with position > 0.
    pub norm_quantiles: NormQuantiles,
    /// Mean of each dimension, without position 0 and sinks. `[d_model]`
    pub mean: Vec<f32>,
    /// Standard deviation of each dimension, without position 0 and sinks. `[d_model]`
    pub std: Vec<f32>,
}

/// Quantiles of row norms, within 0.4 %; the maximum is exact.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct NormQuantiles {
    /// 1 %.
    pub p01: f32,
    /// The median.
    pub p50: f32,
    /// 99 %.
    pub p99: f32,
    /// 99.9 %.
    pub p999: f32,
    /// The largest.
    pub max: f32,
}

/// A finished parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name in the folder.
    pub file: String,
    /// Tokens in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Where the next part starts.
    pub next: ContextCursor,
}

impl HookPointSummary {
    /// The summary of `statistics`.
    pub(crate) fn new(name: HookPoint, statistics: &HookPointStatistics) -> Self {
        let norms = statistics.norms();
        let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Self {
            name,
            d_model: statistics.width(),
            sink_norm: statistics.sink_norm(),
            sinks: statistics.sinks(),
            mean_to_spread: statistics.mean_to_spread() as f32,
            norm_quantiles: NormQuantiles {
                p01: norms.quantile(0.01),
                p50: norms.quantile(0.5),
                p99: norms.quantile(0.99),
                p999: norms.quantile(0.999),
                max: norms.max(),
            },
            mean: narrow(statistics.mean()),
            std: narrow(statistics.std()),
        }
    }
}

impl HarvestManifest {
    /// The summary of `hook_point`.
    ///
    /// # Errors
    /// When this folder has no such column; the message lists those it has.
    pub fn hook_point(&self, hook_point: HookPoint) -> Result<&HookPointSummary> {
        self.hook_points.iter().find(|summary| summary.name == hook_point).ok_or_else(|| {
            let names: Vec<_> = self.hook_points.iter().map(|summary| summary.name.to_string()).collect();
            Error::invalid(
                "hook point",
                format!("one that was harvested: {}", names.join(", ")),
                hook_point.to_string(),
            )
        })
    }

    /// The norm above which a row of `hook_point` is an attention sink: readers drop these rows and position 0.
    ///
    /// # Errors
    /// When this folder has no such column.
    pub fn sink_norm(&self, hook_point: HookPoint) -> Result<f32> {
        Ok(self.hook_point(hook_point)?.sink_norm)
    }

    /// The source that document `document` is from, by its place in [`Self::corpus`].
    pub fn source_of(&self, document: u64) -> Option<usize> {
        // Sources are numbered in order, so the last that starts at or before the document has it, if it has any.
        let after = self.corpus.partition_point(|source| source.first_document <= document);
        let found = after.checked_sub(1)?;
        let source = &self.corpus[found];
        (document - source.first_document < source.documents).then_some(found)
    }

    /// The context at which part `part` of one harvest starts, counted from 0.
    fn first_context(&self, part: usize) -> u64 {
        part.checked_sub(1).map_or(0, |before| self.parts[before].next.contexts)
    }

    /// Takes back a last part that holds fewer contexts than a whole one.
    pub(crate) fn drop_short_part(&mut self) {
        let Some(last) = self.parts.len().checked_sub(1) else { return };
        if self.parts[last].next.contexts - self.first_context(last) < self.config.part_contexts() {
            self.parts.pop();
            self.count_parts();
        }
    }

    /// Brings the counts in line with the list of finished parts.
    pub(crate) fn count_parts(&mut self) {
        let next = self.parts.last().map_or_else(ContextCursor::default, |part| part.next);
        let reached = next.documents + u64::from(next.tokens > 0);
        self.counts.documents = reached.saturating_sub(next.left_out.documents()); // the manifest may be anybody's
        self.counts.contexts = next.contexts;
        self.counts.left_out = next.left_out;
        self.counts.tokens = self.parts.iter().map(|part| part.rows).sum();
    }

    /// Everything that shapes the files' content, without what only locates the inputs and without the token budget.
    pub(crate) fn identity(&self) -> Value {
        let mut identity = serde_json::json!({
            "model": &self.model,
            "corpus": &self.corpus,
            "corpus_options": &self.corpus_options,
            "config": &self.config,
            "merged_from": &self.merged_from,
        });
        let remove = |value: Option<&mut Value>, key: &str| {
            if let Some(Value::Object(object)) = value {
                object.remove(key);
            }
        };
        remove(identity.get_mut("model"), "source");
        remove(identity.get_mut("model"), "relative");
        remove(identity.get_mut("config"), "tokens");
        // What is longer is an error, so this decides nothing that is written: it may be raised, and the run goes on.
        remove(identity.get_mut("corpus_options"), "max_document_bytes");
        for source in identity.get_mut("corpus").and_then(Value::as_array_mut).into_iter().flatten() {
            remove(Some(&mut *source), "path");
            remove(Some(source), "named");
        }
        identity
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
pub(crate) mod tests {
    use super::*;
    use crate::{Family, Manifest};

    /// A manifest without parts, for a model of `d_model` values at the hook point `hook_embed`.
    pub(crate) fn example(d_model: usize, config: HarvestConfig) -> HarvestManifest {
        let source = |name: &str, first_document, documents| CorpusSource {
            name: name.into(),
            path: format!("corpora/{name}.txt"),
            named: None,
            sha256: "00".into(),
            bytes: 10,
            first_document,
            documents,
            duplicates: 0,
            skipped_files: 0,
            malformed_lines: 0,
        };
        HarvestManifest {
            format: HarvestManifest::FORMAT.into(),
            version: HarvestManifest::VERSION,
            refract_version: "0.0.0".into(),
            complete: false,
            model: ModelIdentity {
                source: "default".into(),
                relative: None,
                family: Family::Llama,
                sha256: "aa".into(),
                tokenizer_sha256: "bb".into(),
                n_layers: 1,
                d_model,
                d_vocab: 100,
            },
            corpus: vec![source("a", 0, 2), source("empty", 2, 0), source("b", 2, 3)],
            corpus_options: CorpusOptions::default(),
            config,
            merged_from: None,
            layers_run: 1,
            flop_per_token: 1,
            counts: Counts::default(),
            hook_points: vec![],
            parts: vec![],
        }
    }

    #[test]
    fn a_manifest_survives_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = example(4, HarvestConfig::default());
        manifest.write(folder.path()).unwrap();
        assert_eq!(HarvestManifest::read(folder.path()).unwrap(), manifest);
    }

    #[test]
    fn a_document_is_traced_to_its_source() {
        let manifest = example(4, HarvestConfig::default());
        let found: Vec<_> = (0..6).map(|document| manifest.source_of(document)).collect();
        assert_eq!(found, [Some(0), Some(0), Some(2), Some(2), Some(2), None]);
    }
}
