//! [`index`]: one pass over a text through an SAE's encoder, which collects a [`crate::Feature`] for every latent. Its
//! cost is the encoder's matrix product. Its memory is bounded for any length of the text.
//!
//! ```text
//! text        activations of a folder, or of a model that runs over a corpus
//!   |         EncodedRows
//!   v
//! state       counts, top_examples, two context_samples (one encoded by control): states merge in any order
//!   |         saved every few minutes, so that a killed run goes on
//!   v
//! tables      + logit_lens, nearest, fires_with, from_sample
//! ```

mod context_sample;
mod control;
mod counts;
mod top_examples;
mod fires_with;
mod from_sample;
mod logit_lens;
mod neighbors;
mod state;
mod tables;
mod text;
mod latents_pieces;
mod saved;
mod meanings;
mod merge;

use std::{
    collections::HashSet,
    ops::Range,
    path::Path,
    time::{Duration, Instant},
};

use harvester::{ActivationRows, ArtifactRef, DocumentRecord, HarvestManifest, Manifest, Monitor, OutputFolder};
use trainer::Encoder;

pub(crate) use self::text::{SourceOf, encode_all, keep_contexts};
use self::{
    control::Control, latents_pieces::LatentsPieces, logit_lens::logit_lens, neighbors::nearest, saved::SavedState,
    state::IndexState, tables::Completed, text::Cursor,
};
pub use self::{merge::merge_indexes, text::IndexText};
use crate::{
    EncodedRows, Error, PlacedSae, Result, Workbench,
    features::{
        FeaturesManifest, IndexConfig, IndexedFile, IndexedSource, IndexedText, LATENTS, Labeled, NO_SOURCE, Sample,
        part_of,
        tables::{EFFECTS, LABELS},
    },
};

/// Time from one saved state to the next.
const SAVE_EVERY: Duration = Duration::from_secs(120);

/// Indexes an SAE over `text` and writes the features to `out`. A finished folder of the same inputs is left unchanged;
/// an unfinished run goes on from its last saved state, and ends with the same bytes.
///
/// # Errors
/// An SAE whose model, width or hook point differs from the text's, or a crosscoder; a file that cannot be read or
/// written; another run's folder at `out`.
pub fn index<'a>(
    bench: &Workbench,
    text: impl Into<IndexText<'a>>,
    config: &IndexConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<FeaturesManifest> {
    let (text, placed) = (text.into(), bench.sae());
    let harvest = text.manifest(&out.into())?;
    let manifest = describe(placed, text, &harvest, config, out)?;
    let folder = OutputFolder::open(out)?;
    if let Some(finished) = folder.find_run(&manifest)? {
        finished.check_files(out)?;
        SavedState::forget(out)?;
        monitor.say(&format!("{}: finished before", out.display()));
        return Ok(finished);
    }
    let mut saved = SavedState::begin(&manifest, text.start());
    let found = folder.find_run(&saved)?;
    let is_new = found.is_none();
    saved = found.unwrap_or(saved);
    let state = saved.read_state(out)?;
    bench.model(monitor)?; // before the pass, so that a missing model is an error now
    folder.keep_command(monitor.command())?;
    if is_new {
        saved.write_begun(out)?;
    }
    let latents = match config.latents {
        true => Some(LatentsPieces::new(SavedState::folder(out), saved.latents.clone(), text.n_tokens()?, monitor)),
        false => None,
    };
    let mut pass = Pass::new(placed, text.source_of()?, state, latents)?;
    text.start_progress("indexing", saved.cursor, monitor);
    let (mut last_saved, mut end) = (Instant::now(), saved.cursor);
    let cancelled = || Error::from(harvester::Error::Cancelled { place: out.display().to_string() });
    text.for_each(manifest.hook_point, saved.cursor, monitor, |rows, cursor| {
        pass.encode(rows)?;
        end = cursor;
        let stop = monitor.cancelled();
        if stop || last_saved.elapsed() > SAVE_EVERY {
            pass.save(&mut saved, end, out)?;
            last_saved = Instant::now();
        }
        if stop { Err(cancelled()) } else { Ok(()) }
    })?;
    monitor.finish();
    // Effects take longer than most passes, and the latents are joined from what is saved.
    if (config.effects || config.latents) && end != saved.cursor {
        pass.save(&mut saved, end, out)?;
    }
    let joined = pass.latents.as_ref().map_or(Ok(()), |latents| latents.join(out));
    let documents = |numbers: &HashSet<u64>| text.documents(numbers);
    let finished = joined.and_then(|()| finish(bench, pass.state(), manifest, &documents, out, monitor));
    let manifest = match finished {
        Err(Error::Stopped) => {
            if end != saved.cursor {
                pass.save(&mut saved, end, out)?;
            }
            return Err(cancelled());
        }
        finished => finished?,
    };
    SavedState::forget(out)?;
    folder.keep_command(None)?;
    Ok(manifest)
}

/// The manifest before the pass: everything except the counts.
fn describe(
    placed: &PlacedSae,
    text: IndexText<'_>,
    harvest: &HarvestManifest,
    config: &IndexConfig,
    out: &Path,
) -> Result<FeaturesManifest> {
    let PlacedSae { path, sae, hook_point, .. } = placed;
    let hook_point = *hook_point;
    placed.check_input(harvest.hook_point(hook_point)?.d_model)?;
    let (activations, tokens) = match text {
        IndexText::Activations(dataset) => {
            placed.check_model(dataset)?;
            (Some(ArtifactRef::new(out, &dataset.location, Some(dataset.manifest_sha256()?))), None)
        }
        IndexText::Corpus(_) => (None, harvest.config.tokens),
    };
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
        text: IndexedText {
            activations,
            identity: harvest.text_identity(),
            parts: harvest.config.part.into_iter().collect(),
            tokens,
        },
        model: harvest.model.seen_from(&out.into()),
        hook_point,
        sink_norm: placed.sink_norm,
        d_sae: sae.d_sae(),
        never_active: 0,
        tokens: 0,
        sources: harvest.source_names().into_iter().enumerate().map(source).collect(),
        config: config.clone(),
        sample_cuts: [0, 0],
        labeled: Labeled::default(),
        files: vec![],
    })
}

/// The pass: encodes rows and adds them to the state. While rows are encoded, those before them are added.
struct Pass<'a> {
    encoder: Encoder<'a>,
    sink_norm: f32,
    source_of: Box<SourceOf>,
    control: Control,
    state: IndexState,
    /// The latents of every token, if they are written.
    latents: Option<LatentsPieces<'a>>,
    /// The last rows, with the source of each, and whether they are still to be added to the state.
    last: (EncodedRows, Vec<u32>, bool),
}

impl<'a> Pass<'a> {
    fn new(
        placed: &'a PlacedSae,
        source_of: Box<SourceOf>,
        state: IndexState,
        latents: Option<LatentsPieces<'a>>,
    ) -> Result<Self> {
        let (encoder, control) = (Encoder::new(&placed.sae), Control::of(&placed.sae)?);
        let last = (EncodedRows::default(), vec![], false);
        Ok(Self { encoder, sink_norm: placed.sink_norm, source_of, control, state, latents, last })
    }

    /// Encodes whole contexts, the next of the text.
    fn encode(&mut self, read: ActivationRows) -> Result<()> {
        let (contexts, x) = self.of_control(&read);
        let Self { encoder, state, last: (before, source, is_left), .. } = self;
        let mut add = || {
            if std::mem::take(is_left) {
                state.add(before, source);
            }
        };
        let (encoded, ()) = rayon::join(|| EncodedRows::encode_with(encoder, read, self.sink_norm), &mut add);
        let encoded = encoded?;
        let source = sources(&encoded.rows.document, &self.source_of);
        if !contexts.is_empty() {
            let mut sample = Sample::default();
            contexts.into_iter().for_each(|context| sample.append(&part_of(&encoded, &source, context)));
            let n: Vec<usize> = (0..sample.len()).map(|row| sample.encoded.acts.row(row).0.len()).collect();
            sample.encoded.acts = self.control.encode(&x, &n)?;
            self.state.add_control(&sample);
        }
        if let Some(latents) = &mut self.latents {
            latents.add(&encoded)?;
        }
        self.last = (encoded, source, true);
        Ok(())
    }

    /// The contexts that the control encodes too, and their rows. `[rows, d_in]`
    fn of_control(&self, read: &ActivationRows) -> (Vec<Range<usize>>, Vec<f32>) {
        let (control, width) = (&self.state.control, read.d_model);
        let wants =
            |context: &Range<usize>| control.wants(read.rows.document[context.start], read.rows.context[context.start]);
        let contexts: Vec<_> = read.rows.contexts().into_iter().filter(wants).collect();
        let mut x = vec![0.0; contexts.iter().map(ExactSizeIterator::len).sum::<usize>() * width];
        for (to, row) in x.chunks_exact_mut(width.max(1)).zip(contexts.iter().cloned().flatten()) {
            read.values.copy_row(row, to);
        }
        (contexts, x)
    }

    /// The state of all rows so far.
    fn state(&mut self) -> &IndexState {
        let (encoded, source, is_left) = &mut self.last;
        if std::mem::take(is_left) {
            self.state.add(encoded, source);
        }
        &self.state
    }

    /// Saves the state of all rows so far, which end at `cursor`.
    fn save(&mut self, saved: &mut SavedState, cursor: Cursor, out: &Path) -> Result<()> {
        let latents = self.latents.as_mut().map_or(Ok(vec![]), LatentsPieces::save)?;
        saved.save(self.state(), latents, cursor, out)
    }
}

/// The source of each row. Rows of one document follow one another.
fn sources(documents: &[u64], source_of: &SourceOf) -> Vec<u32> {
    let of_document = |document| source_of(document).map_or(NO_SOURCE, |source| source as u32);
    documents.chunk_by(|a, b| a == b).flat_map(|run| vec![of_document(run[0]); run.len()]).collect()
}

/// Finds documents by number, sorted; `None` if they are not recorded.
type Documents<'a> = dyn Fn(&HashSet<u64>) -> Result<Option<Vec<DocumentRecord>>> + 'a;

/// Computes what the state does not hold, and writes the tables and the manifest.
///
/// # Errors
/// [`Error::Stopped`] if the user asked to stop.
fn finish(
    bench: &Workbench,
    state: &IndexState,
    mut manifest: FeaturesManifest,
    documents: &Documents<'_>,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<FeaturesManifest> {
    let (sae, model) = (&bench.sae().sae, bench.model(monitor)?);
    let tokenizer = model.tokenizer();
    state.describe(&mut manifest);
    let can_be_spliced = bench.sae().site().spliced().is_some();
    if manifest.config.effects && !can_be_spliced {
        monitor.say("effects are not measured: the SAE does not write where or after it reads");
    }
    let effects = match manifest.config.effects && can_be_spliced {
        true => Some(meanings::effects(bench, state, out, monitor)?.ok_or(Error::Stopped)?),
        false => None,
    };
    let (labels, labeled) = meanings::labels(state, &manifest, tokenizer, effects.as_deref().unwrap_or_default());
    let occurs: Vec<u32> = (0..).zip(&state.token_counts).filter(|(_, n)| **n > 0).map(|(token, _)| token).collect();
    // The head can be applied only to directions in the residual stream. A transcoder writes to another hook point
    // than it reads.
    let written = sae.config().hook_points.writes().first().copied().unwrap_or(manifest.hook_point);
    let reaches_head = written.writes_to_resid() && sae.d_out() == model.config().d_model;
    let n = if reaches_head { manifest.config.logit_tokens } else { 0 };
    let lenses = logit_lens(sae, model, (&occurs, n), monitor)?;
    if monitor.cancelled() {
        return Err(Error::Stopped);
    }
    let nearest = nearest(sae, manifest.config.neighbors)?;
    manifest.labeled = labeled;
    let completed = Completed { tokenizer, lenses, nearest };
    let (files, named) = tables::write(state, &manifest, Some(completed), out)?;
    manifest.files = files;
    if manifest.config.latents {
        let sha256 = harvester::sha256_file(&out.join(LATENTS.file))?;
        manifest.files.push(IndexedFile { file: LATENTS.file.into(), sha256 });
    }
    let mut list = |file: &str, sha256| manifest.files.push(IndexedFile { file: file.into(), sha256 });
    list(LABELS.file, LABELS.write(out, &labels)?);
    if let Some(effects) = effects {
        list(EFFECTS.file, EFFECTS.write(out, &effects)?);
    }
    if let Some(documents) = documents(&named)? {
        list(DocumentRecord::FILE, DocumentRecord::write_table(out, &documents)?);
    }
    manifest.write(out)?;
    Ok(manifest)
}
