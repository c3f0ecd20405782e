//! [`index`]: one pass over a folder of activations through an SAE's encoder, which collects a [`Feature`] for every
//! latent. Its cost is the encoder's matrix product. Its memory is bounded for any length of the corpus.

mod logit_lens;
mod neighbors;
mod top_examples;

use std::path::Path;

use harvester::{
    ActivationDataset, ArtifactRef, DocumentSources, HookPoint, LanguageModel, Manifest, Monitor, OutputFolder,
    RowGroup,
};
use trainer::{FeatureActs, HookPoints, Sae};

use self::{
    logit_lens::logit_lens,
    neighbors::nearest,
    top_examples::{Candidate, ContextRows, TopExamples},
};
use crate::{
    EncodedRows, Error, PlacedSae, Result, Workbench,
    features::{self, Example, Feature, FeaturesManifest, HISTOGRAM_BINS, IndexConfig, IndexedSource},
};

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
    source_of: DocumentSources,
    sae: &'a Sae,
    sink_norm: f32,
    latents: Vec<Counts>,
    source_tokens: Vec<u64>,
    /// For each token of the vocabulary, true if it occurs in the text.
    occurs: Vec<bool>,
    examples: TopExamples,
}

/// Indexes an SAE over `dataset` and writes the features to `out`. A finished folder of the same inputs is left
/// unchanged.
///
/// # Errors
/// An SAE whose model, width or hook point differs from the activations', or a crosscoder; a file that cannot be read
/// or written; another run's folder at `out`.
pub fn index(
    bench: &Workbench,
    dataset: &ActivationDataset,
    config: &IndexConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<FeaturesManifest> {
    let placed = bench.sae();
    let manifest = describe(placed, dataset, config, out)?;
    let folder = OutputFolder::open(out)?;
    if let Some(finished) = folder.find_run(&manifest)? {
        finished.check_files(out)?;
        monitor.say(&format!("{}: finished before", out.display()));
        return Ok(finished);
    }
    let model = bench.model(monitor)?;
    let mut pass = Pass::new(dataset, &placed.sae, placed.sink_norm, &manifest)?;
    monitor.start("indexing", dataset.manifest.counts.tokens, "tokens");
    for &group in &dataset.row_groups {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        pass.add(group, manifest.hook_point)?;
        monitor.advance(group.rows as u64);
    }
    monitor.finish();
    pass.finish(manifest, model, out, monitor)
}

/// The manifest before the pass: everything except the counts.
fn describe(
    placed: &PlacedSae,
    dataset: &ActivationDataset,
    config: &IndexConfig,
    out: &Path,
) -> Result<FeaturesManifest> {
    let harvest = &dataset.manifest;
    let PlacedSae { path, sae, hook_point, .. } = placed;
    let hook_point = *hook_point;
    if let HookPoints::Crosscoder(_) = sae.config().hook_points {
        let found = sae.config().hook_points.to_string();
        return Err(harvester::Error::invalid("SAE to index", "one that reads one hook point", found).into());
    }
    let d_model = harvest.hook_point(hook_point)?.d_model;
    if d_model != sae.d_in() {
        let expected = format!("d_in {d_model}, the width of {hook_point} in {}", &dataset.location);
        return Err(
            harvester::Error::invalid(format!("SAE {}", path.display()), expected, sae.d_in().to_string()).into()
        );
    }
    placed.check_model(dataset)?;
    // Values of a field are no ranges of documents.
    let first = |at: usize| if harvest.sources.is_empty() { harvest.corpus[at].first_document } else { 0 };
    let source = |(at, (name, documents)): (usize, (&str, u64))| IndexedSource {
        name: name.to_owned(),
        tokens: 0,
        first_document: first(at),
        documents,
    };
    Ok(FeaturesManifest {
        format: FeaturesManifest::FORMAT.to_string(),
        version: FeaturesManifest::VERSION,
        refract_version: env!("CARGO_PKG_VERSION").to_string(),
        sae: ArtifactRef::new(out, &path.as_path().into(), Some(placed.sha256.clone())),
        activations: ArtifactRef::new(out, &dataset.location, Some(dataset.manifest_sha256()?)),
        model: harvest.model.seen_from(&out.into()),
        hook_point,
        d_sae: sae.d_sae(),
        tokens: 0,
        sources: harvest.source_names().into_iter().enumerate().map(source).collect(),
        config: config.clone(),
        files: vec![],
    })
}

impl<'a> Pass<'a> {
    fn new(dataset: &'a ActivationDataset, sae: &'a Sae, sink_norm: f32, manifest: &FeaturesManifest) -> Result<Self> {
        let n_sources = manifest.sources.len();
        let empty = Counts { by_source: vec![0; n_sources], ..Counts::default() };
        Ok(Self {
            dataset,
            source_of: dataset.document_sources()?,
            sae,
            sink_norm,
            latents: vec![empty; sae.d_sae()],
            source_tokens: vec![0; n_sources],
            occurs: vec![false; manifest.model.d_vocab],
            examples: TopExamples::new(sae.d_sae(), manifest.config.examples, manifest.config.reach),
        })
    }

    fn add(&mut self, group: RowGroup, hook_point: HookPoint) -> Result<()> {
        let read = self.dataset.read(group, hook_point)?;
        let EncodedRows { rows, ordinary, acts } = EncodedRows::encode(self.sae, read, self.sink_norm)?;
        for context in rows.contexts() {
            for row in context.clone().filter(|&row| ordinary[row]) {
                if let Some(occurs) = self.occurs.get_mut(rows.token[row] as usize) {
                    *occurs = true;
                }
                self.count(&acts, row, self.source_of.of(rows.document[row]));
            }
            self.examples.add(ContextRows { tokens: &rows, acts: &acts, start: context.start, end: context.end });
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

    fn finish(
        self,
        mut manifest: FeaturesManifest,
        model: &LanguageModel,
        out: &Path,
        monitor: &dyn Monitor,
    ) -> Result<FeaturesManifest> {
        let tokenizer = model.tokenizer();
        let occurs: Vec<u32> = (0..).zip(&self.occurs).filter(|(_, occurs)| **occurs).map(|(token, _)| token).collect();
        // The head can be applied only to directions in the residual stream. A transcoder writes to another hook point
        // than it reads.
        let written = self.sae.config().hook_points.writes().first().copied().unwrap_or(manifest.hook_point);
        let reaches_head = written.writes_to_resid() && self.sae.d_out() == model.config().d_model;
        let n = if reaches_head { manifest.config.logit_tokens } else { 0 };
        let lenses = logit_lens(self.sae, model, (&occurs, n), monitor)?;
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let nearest = nearest(self.sae, manifest.config.neighbors)?;
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
        let named = examples.iter().map(|example| example.document).collect();
        let documents = self.dataset.documents(&named)?;
        features::write(out, manifest, &features, &examples, documents.as_deref())
    }
}

impl Counts {
    /// The feature without its tokens and nearest latents.
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
        texts: tokenizer.token_texts(&candidate.tokens),
        tokens: candidate.tokens,
        activations: candidate.activations,
    }
}
