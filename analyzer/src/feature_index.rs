//! [`index`]: one pass over a folder of activations through an SAE's encoder, which turns latents into [`Feature`]s.
//! What it costs is the encoder's matrix product; what it keeps is bounded, however long the corpus.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use harvester::{ActivationDataset, ActivationRows, HookPoint, ModelIdentity, Monitor, RowGroup};
use serde::{Deserialize, Serialize};
use trainer::{FeatureActs, Sae, SaeManifest};

use crate::{
    Error, Example, Feature, LanguageModel, Result,
    feature::HISTOGRAM_BINS,
    features_file,
    language_model::token_texts,
    logit_lens::logit_lens,
    neighbours::nearest,
    top_examples::{Candidate, ContextRows, TopExamples},
};

/// `format` of a folder of features.
pub const FEATURES_FORMAT: &str = "refract.features";

/// Rows encoded together: their pre-activations are the largest buffer of the pass.
pub(crate) const ENCODE_ROWS: usize = 2048;

/// What to keep of each latent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// Strongest examples kept, from as many contexts. Default 20.
    pub examples: usize,
    /// Tokens shown on each side of an example's peak. Default 12.
    pub reach: usize,
    /// Promoted and suppressed tokens kept, each. Default 10.
    pub logit_tokens: usize,
    /// Nearest latents kept. Default 5.
    pub neighbours: usize,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self { examples: 20, reach: 12, logit_tokens: 10, neighbours: 5 }
    }
}

/// `manifest.json` of a folder of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeaturesManifest {
    /// [`FEATURES_FORMAT`].
    pub format: String,
    /// Version of the artifacts' layout.
    pub version: u32,
    /// The refract that wrote this folder.
    pub refract_version: String,
    /// The SAE's folder.
    pub sae: PathBuf,
    /// SHA-256 of its manifest.
    pub sae_manifest_sha256: String,
    /// The activations' folder.
    pub activations: PathBuf,
    /// SHA-256 of its manifest.
    pub activations_manifest_sha256: String,
    /// The model.
    pub model: ModelIdentity,
    /// Where in the model.
    pub hook_point: HookPoint,
    /// Number of latents: rows of `features.parquet`.
    pub d_sae: usize,
    /// Tokens that were encoded: all but position 0 and attention sinks.
    pub tokens: u64,
    /// Where the documents came from.
    pub sources: Vec<IndexedSource>,
    /// What was kept.
    pub config: IndexConfig,
    /// The tables.
    pub files: Vec<IndexedFile>,
}

/// A table of a folder of features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedFile {
    /// Its name in the folder.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A source of the corpus, as far as the index went over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedSource {
    /// Its name, e.g. `code`.
    pub name: String,
    /// Tokens of it that were encoded.
    pub tokens: u64,
    /// Number of its first document.
    pub first_document: u64,
    /// Documents it has.
    pub documents: u64,
}

/// Running counts of one latent.
#[derive(Debug, Clone, Default)]
struct Counts {
    n_active: u64,
    sum: f64,
    max: f32,
    histogram: [u32; HISTOGRAM_BINS],
    by_source: Vec<u64>,
}

/// The state of the pass.
struct Pass<'a> {
    dataset: &'a ActivationDataset,
    sae: &'a Sae,
    sink_norm: f32,
    latents: Vec<Counts>,
    source_tokens: Vec<u64>,
    /// Whether each token of the vocabulary occurs.
    occurs: Vec<bool>,
    examples: TopExamples,
}

/// Indexes the SAE in `sae_dir` over `dataset` and writes the features to `out`. A finished folder of the same inputs is
/// left as it is.
///
/// # Errors
/// An SAE of another width or hook point than the activations; a file that cannot be read or written; another run's
/// folder at `out`.
pub fn index(
    sae_dir: &Path,
    dataset: &ActivationDataset,
    config: &IndexConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<FeaturesManifest> {
    let sae = Sae::load(sae_dir)?;
    let sae_manifest = SaeManifest::finished(sae_dir)?;
    let manifest = describe(sae_dir, &sae, &sae_manifest, dataset, config)?;
    std::fs::create_dir_all(out).map_err(harvester::Error::io("create", out))?;
    let _lock = harvester::lock(out)?;
    if let Some(finished) = features_file::finished(out, &manifest)? {
        return Ok(finished);
    }
    let mut pass = Pass::new(dataset, &sae, &manifest)?;
    monitor.start("indexing", dataset.n_rows(), "tokens");
    for &group in dataset.row_groups() {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        pass.add(group, manifest.hook_point)?;
        monitor.advance(group.rows as u64);
    }
    monitor.finish();
    pass.finish(manifest, out, monitor)
}

/// The manifest before the pass: everything but the counts.
fn describe(
    sae_dir: &Path,
    sae: &Sae,
    sae_manifest: &SaeManifest,
    dataset: &ActivationDataset,
    config: &IndexConfig,
) -> Result<FeaturesManifest> {
    let harvest = dataset.manifest();
    let hook_point = sae_manifest.hook_point;
    let d_model = harvest.hook_point(hook_point)?.d_model;
    if d_model != sae.d_in() {
        let expected = format!("d_in {d_model}, the width of {hook_point} in {}", dataset.dir().display());
        return Err(
            harvester::Error::invalid(format!("SAE {}", sae_dir.display()), expected, sae.d_in().to_string()).into()
        );
    }
    if harvest.model.sha256 != sae_manifest.model.sha256 {
        let what = format!("model of the activations {}", dataset.dir().display());
        let expected = format!("{} ({})", sae_manifest.model.source, sae_manifest.model.sha256);
        let found = format!("{} ({})", harvest.model.source, harvest.model.sha256);
        return Err(harvester::Error::invalid(what, expected, found).into());
    }
    let source = |source: &harvester::CorpusSource| IndexedSource {
        name: source.name.clone(),
        tokens: 0,
        first_document: source.first_document,
        documents: source.documents,
    };
    Ok(FeaturesManifest {
        format: FEATURES_FORMAT.to_string(),
        version: harvester::manifest::FORMAT_VERSION,
        refract_version: env!("CARGO_PKG_VERSION").to_string(),
        sae: absolute(sae_dir)?,
        sae_manifest_sha256: manifest_hash(sae_dir)?,
        activations: absolute(dataset.dir())?,
        activations_manifest_sha256: manifest_hash(dataset.dir())?,
        model: harvest.model.clone(),
        hook_point,
        d_sae: sae.d_sae(),
        tokens: 0,
        sources: harvest.corpus.iter().map(source).collect(),
        config: config.clone(),
        files: vec![],
    })
}

fn absolute(path: &Path) -> Result<PathBuf> {
    Ok(std::path::absolute(path).map_err(harvester::Error::io("find", path))?)
}

fn manifest_hash(dir: &Path) -> Result<String> {
    Ok(harvester::sha256_file(&dir.join(harvester::manifest::MANIFEST_FILE))?)
}

impl<'a> Pass<'a> {
    fn new(dataset: &'a ActivationDataset, sae: &'a Sae, manifest: &FeaturesManifest) -> Result<Self> {
        let n_sources = dataset.manifest().corpus.len();
        let empty = Counts { by_source: vec![0; n_sources], ..Counts::default() };
        Ok(Self {
            dataset,
            sae,
            sink_norm: dataset.manifest().sink_norm(manifest.hook_point)?,
            latents: vec![empty; sae.d_sae()],
            source_tokens: vec![0; n_sources],
            occurs: vec![false; manifest.model.d_vocab],
            examples: TopExamples::new(sae.d_sae(), manifest.config.examples, manifest.config.reach),
        })
    }

    fn add(&mut self, group: RowGroup, hook_point: HookPoint) -> Result<()> {
        let read = self.dataset.read(group, hook_point)?;
        let acts = encode_rows(self.sae, &read, self.sink_norm)?;
        let sink_norm = self.sink_norm;
        for context in contexts(&read) {
            for row in context.clone().filter(|&row| counts(&read, row, sink_norm)) {
                if let Some(occurs) = self.occurs.get_mut(read.rows.token[row] as usize) {
                    *occurs = true;
                }
                self.count(&acts, row, self.dataset.manifest().source_of(read.rows.document[row]));
            }
            self.examples.add(ContextRows { tokens: &read.rows, acts: &acts, start: context.start, end: context.end });
        }
        Ok(())
    }

    fn count(&mut self, acts: &FeatureActs, row: usize, source: Option<usize>) {
        if let Some(source) = source {
            self.source_tokens[source] += 1;
        }
        let (latents, values) = acts.row(row);
        for (&latent, &value) in latents.iter().zip(values) {
            let counts = &mut self.latents[latent as usize];
            counts.n_active += 1;
            counts.sum += f64::from(value);
            counts.max = counts.max.max(value);
            counts.histogram[Feature::bin(value)] += 1;
            if let Some(source) = source {
                counts.by_source[source] += 1;
            }
        }
    }

    fn finish(self, mut manifest: FeaturesManifest, out: &Path, monitor: &dyn Monitor) -> Result<FeaturesManifest> {
        let language_model = LanguageModel::load(&manifest.model, monitor)?;
        let (transformer, tokenizer) = (&language_model.transformer, &language_model.tokenizer);
        let occurs: Vec<u32> = (0..).zip(&self.occurs).filter(|(_, occurs)| **occurs).map(|(token, _)| token).collect();
        // Only directions in the residual stream can be read off the head.
        let n = if manifest.hook_point.writes_to_resid() { manifest.config.logit_tokens } else { 0 };
        let lenses = logit_lens(self.sae, transformer, tokenizer, (&occurs, n), monitor)?;
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let nearest = nearest(self.sae, manifest.config.neighbours)?;
        manifest.tokens = self.source_tokens.iter().sum();
        for (source, tokens) in manifest.sources.iter_mut().zip(&self.source_tokens) {
            source.tokens = *tokens;
        }
        let described = self.latents.into_iter().zip(lenses).zip(nearest).enumerate();
        let features: Vec<Feature> = described
            .map(|(latent, ((counts, (promoted, suppressed)), nearest))| {
                let feature = counts.feature(latent as u32, &manifest);
                Feature { promoted, suppressed, nearest, ..feature }
            })
            .collect();
        let examples: Vec<Example> = self
            .examples
            .finish()
            .into_iter()
            .enumerate()
            .flat_map(|(latent, best)| best.into_iter().enumerate().map(move |(rank, c)| (latent, rank, c)))
            .map(|(latent, rank, candidate)| example(latent, rank, candidate, tokenizer))
            .collect();
        features_file::write(out, manifest, &features, &examples)
    }
}

impl Counts {
    /// A feature without its tokens and neighbours.
    fn feature(self, latent: u32, manifest: &FeaturesManifest) -> Feature {
        let share = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 / of as f64 };
        let by_source = self.by_source.iter().zip(&manifest.sources);
        Feature {
            latent,
            n_active: self.n_active,
            density: share(self.n_active, manifest.tokens),
            max: self.max,
            mean: if self.n_active == 0 { 0.0 } else { (self.sum / self.n_active as f64) as f32 },
            histogram: self.histogram.to_vec(),
            density_by_source: by_source.map(|(n, source)| share(*n, source.tokens) as f32).collect(),
            promoted: vec![],
            suppressed: vec![],
            nearest: vec![],
        }
    }
}

fn example(latent: usize, rank: usize, candidate: Candidate, tokenizer: &harvester::TextTokenizer) -> Example {
    Example {
        latent: latent as u32,
        rank: rank as u32,
        activation: candidate.activation,
        document: candidate.document,
        context: candidate.context,
        position: candidate.position,
        peak: candidate.peak,
        texts: token_texts(tokenizer, &candidate.tokens),
        tokens: candidate.tokens,
        activations: candidate.activations,
    }
}

/// Whether a row is one that SAEs are trained on: neither position 0 nor an attention sink.
pub(crate) fn counts(read: &ActivationRows, row: usize, sink_norm: f32) -> bool {
    read.rows.position[row] > 0 && read.norm[row] <= sink_norm
}

/// The rows of each context.
fn contexts(read: &ActivationRows) -> Vec<Range<usize>> {
    let mut start = 0;
    let lengths = read.rows.context.chunk_by(|a, b| a == b).map(<[u64]>::len);
    lengths
        .map(|len| {
            start += len;
            start - len..start
        })
        .collect()
}

/// The acts of every row; rows that do not count have none.
fn encode_rows(sae: &Sae, read: &ActivationRows, sink_norm: f32) -> Result<FeatureActs> {
    let values = read.to_f32();
    let mut all = FeatureActs::default();
    for (block, x) in values.chunks(ENCODE_ROWS * read.d_model).enumerate() {
        let acts = sae.encode(x)?;
        for row in 0..acts.n_rows() {
            if counts(read, block * ENCODE_ROWS + row, sink_norm) {
                let (latents, values) = acts.row(row);
                all.latents.extend_from_slice(latents);
                all.values.extend_from_slice(values);
            }
            all.offsets.push(all.latents.len());
        }
    }
    Ok(all)
}
