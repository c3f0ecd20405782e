//! [`HarvestManifest`]: describes how a folder of activations was made and which of its files count. It holds
//! everything that downstream stages need, so that no later command is given the model or the layer again. It is
//! rewritten whole after each finished part. It holds no times, so the same run always writes the same bytes.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{documents::DocumentsFile, harvest_config::HarvestConfig};
use crate::{
    CorpusOptions, CorpusSource, Error, HookPoint, ModelIdentity, Result, human,
    numbers::HookPointStatistics,
    text::{ContextCursor, LeftOut, NamedSource},
};

/// Describes how a folder of activations was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HarvestManifest {
    /// `refract.activations`.
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// Version of refract that began this folder.
    pub refract_version: String,
    /// True if everything requested is here.
    pub complete: bool,
    /// The model.
    pub model: ModelIdentity,
    /// Files and folders of the documents, in order: document numbers are assigned along this list. They are the
    /// sources, unless `sources` lists others.
    pub corpus: Vec<CorpusSource>,
    /// With `source_field`, the sources: its values. The table of documents says which document is of which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<NamedSource>,
    /// Options with which the corpus was read.
    pub corpus_options: CorpusOptions,
    /// All settings, with the special tokens resolved.
    pub config: HarvestConfig,
    /// Number of harvests of parts of the corpus that were merged into this folder; absent for a single harvest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_from: Option<u64>,
    /// Blocks that the forward pass ran.
    pub layers_run: usize,
    /// Floating-point operations per token of the forward pass.
    pub flop_per_token: u64,
    /// Counts over the finished parts.
    pub counts: Counts,
    /// Summary of the values at each hook point.
    pub hook_points: Vec<HookPointSummary>,
    /// The finished files, in order. Other files in the folder do not count.
    pub parts: Vec<Part>,
    /// The table of documents, once the harvest is complete. Earlier versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<DocumentsFile>,
    /// True if the parts have the column `role`: the corpus has conversations. Earlier versions wrote none.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub roles: bool,
}

/// The counts in one line.
impl fmt::Display for HarvestManifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { tokens, contexts, documents, .. } = self.counts;
        write!(f, "{} tokens in {} from ", human::grouped(tokens), human::counted(contexts, "context"))?;
        if let Some(parts) = self.merged_from {
            return write!(f, "{} of the corpus", human::counted(parts, "part"));
        }
        let (documents, layers) =
            (human::counted(documents, "document"), human::counted(self.layers_run as u64, "layer"));
        let is_cut = self.counts.left_out.truncated_tokens > 0;
        let is_in_part = self.parts.last().is_some_and(|part| part.next.tokens > 0);
        let how = match (is_cut, is_in_part) {
            (true, true) => " (long ones cut, the last in part)",
            (true, false) => " (long ones cut)",
            (false, true) => " (the last in part)",
            (false, false) => "",
        };
        write!(f, "{documents}{how}, {layers} run, {} per token", human::flop(self.flop_per_token))
    }
}

/// Counts of what was read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Documents with at least one row.
    pub documents: u64,
    /// Contexts.
    pub contexts: u64,
    /// Tokens: rows of all parts.
    pub tokens: u64,
    /// Tokens at the end of the corpus that did not fill a context.
    pub dropped_tokens: u64,
    /// Counts of what was left out of the documents read, by reason.
    pub(crate) left_out: LeftOut,
    /// Documents of the corpus left out because their text was seen before.
    pub duplicates: u64,
    /// Files and links of the corpus' folders that were left out; see [`CorpusSource::skipped_files`].
    pub skipped_files: u64,
    /// Lines of the corpus' JSONL files left out because they hold no document.
    #[serde(default)]
    pub malformed_lines: u64,
}

impl Counts {
    /// Adds the counts of another part of the same corpus. Documents left out of the whole corpus are counted once.
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

    /// The reasons why text was left out, with counts above 0, of the whole corpus and of what was read: a line each.
    pub(crate) fn left_out_in_words(&self) -> Vec<String> {
        let words = |counts: &[(u64, &str, &str)]| -> Vec<String> {
            let some = counts.iter().filter(|(n, ..)| *n > 0);
            some.map(|(n, what, which)| format!("{}{which}", human::counted(*n, what))).collect()
        };
        let of_corpus = words(&[
            (self.duplicates, "repeated document", ""),
            (self.malformed_lines, "malformed line", " (documents.parquet names them)"),
            (self.skipped_files, "file", " of folders (hidden, not text, .json or .csv, or links)"),
        ]);
        let dropped = words(&[(self.dropped_tokens, "token", " after the last whole context")]);
        let of_read = self.left_out.reasons().chain(dropped).collect();
        let both = [("the whole corpus", of_corpus), ("what was read", of_read)];
        let some = both.into_iter().filter(|(_, reasons)| !reasons.is_empty());
        some.map(|(whole, reasons)| format!("left out of {whole}: {}", reasons.join(", "))).collect()
    }
}

/// A line about a setting, with the setting's own name instead of its place in the manifest.
pub(super) fn as_setting(line: String) -> String {
    let setting = ["config.", "corpus_options."].iter().find_map(|place| line.strip_prefix(place)?.split_once(':'));
    let why = |name| if name == "batch" { " (on this processor it changes the last bits)" } else { "" };
    setting.map_or(line.clone(), |(name, values)| format!("`{name}`:{values}{}", why(name)))
}

/// Summary of the values at one hook point. `numbers/stats.rs` says which rows count for which statistic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookPointSummary {
    /// The hook point; its column has the same name.
    pub name: HookPoint,
    /// Values per row.
    pub d_model: usize,
    /// Rows above this norm are attention sinks. Readers drop them, together with position 0.
    pub sink_norm: f32,
    /// Number of rows with position > 0 and a norm above `sink_norm`.
    pub sinks: u64,
    /// Norm of the mean over the square root of the summed variances, over all other rows with position > 0.
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
    /// File name in the folder.
    pub file: String,
    /// Number of tokens.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Position at which the next part starts.
    pub next: ContextCursor,
    /// Counts of the sources with tokens in this part. Earlier versions recorded none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceCounts>,
}

/// The harvested part of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCounts {
    /// Index of the source in [`HarvestManifest::source_names`].
    pub source: usize,
    /// Documents that begin here.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
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
    /// If this folder has no such column; the message lists the columns it has.
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

    /// Name and number of documents of each source, in order.
    pub fn source_names(&self) -> Vec<(&str, u64)> {
        let files = self.corpus.iter().map(|source| (source.name.as_str(), source.documents));
        let named = self.sources.iter().map(|source| (source.name.as_str(), source.documents));
        if self.sources.is_empty() { files.collect() } else { named.collect() }
    }

    /// The context at which part `part` of one harvest starts; parts are counted from 0.
    pub(super) fn first_context(&self, part: usize) -> u64 {
        part.checked_sub(1).map_or(0, |before| self.parts[before].next.contexts)
    }

    /// Removes the last part if it holds fewer contexts than a whole part.
    pub(crate) fn drop_short_part(&mut self) {
        if self.short_part().is_some() {
            self.parts.pop();
            self.count_parts();
        }
    }

    /// Updates the counts to match the list of finished parts.
    pub(crate) fn count_parts(&mut self) {
        let next = self.parts.last().map_or_else(ContextCursor::default, |part| part.next);
        let reached = next.documents + u64::from(next.tokens > 0);
        self.counts.documents = reached.saturating_sub(next.left_out.documents()); // a manifest can be edited
        self.counts.contexts = next.contexts;
        self.counts.left_out = next.left_out;
        self.counts.tokens = self.parts.iter().map(|part| part.rows).sum();
    }

    /// The corpus, and the settings with which it is made into contexts and activations: parts of one corpus have the
    /// same, and so has a model that runs over it.
    pub fn text_identity(&self) -> Value {
        let mut identity = self.identity();
        if let Some(object) = identity.as_object_mut() {
            object.retain(|key, _| !["model", "merged_from"].contains(&key.as_str()));
        }
        if let Some(Value::Object(config)) = identity.get_mut("config") {
            config.retain(|key, _| !["part", "part_tokens", "layout", "hook_points"].contains(&key.as_str()));
        }
        identity
    }

    /// Everything that affects the files' content. Locations of the inputs and the token budget are left out.
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
        // Otherwise the bits of a row depend on its batch.
        if self.config.compute.has_own_products() {
            remove(identity.get_mut("config"), "batch");
        }
        // A longer document is an error, so this setting affects no file: it may be raised before a run is continued.
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
    use crate::{Family, Manifest, text::DocumentSources};

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
                recorded: None,
                family: Family::Llama,
                sha256: "aa".into(),
                tokenizer_sha256: "bb".into(),
                n_layers: 1,
                d_model,
                d_vocab: 100,
            },
            corpus: vec![source("a", 0, 2), source("empty", 2, 0), source("b", 2, 3)],
            sources: vec![],
            corpus_options: CorpusOptions::default(),
            config,
            merged_from: None,
            layers_run: 1,
            flop_per_token: 1,
            counts: Counts::default(),
            hook_points: vec![],
            parts: vec![],
            documents: None,
            roles: false,
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
        let sources = DocumentSources::of_files(&manifest.corpus);
        let found: Vec<_> = (0..6).map(|document| sources.of(document)).collect();
        assert_eq!(found, [Some(0), Some(0), Some(2), Some(2), Some(2), None]);
    }
}
