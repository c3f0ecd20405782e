//! The state of an index as tables, and back: the same tables hold the state of an unfinished run, that of a part to be
//! merged, and, with the columns that are computed at the end, a finished index.

use std::{collections::HashSet, path::Path};

use harvester::TextTokenizer;
use rayon::prelude::*;

use super::{
    counts::{LatentCounts, UNITS},
    fires_with::fires_with,
    from_sample::Draw,
    logit_lens::Lens,
    state::IndexState,
    top_examples::Candidate,
};
use crate::{
    Result,
    features::{
        Example, ExampleKind, Feature, FeaturesManifest, Histogram, IndexedFile, Sample,
        tables::{
            CONTROL, EXAMPLES, EXAMPLES_GROUP, FEATURES, FEATURES_GROUP, SAMPLE, SAMPLE_GROUP, TOKENS, TokenCount,
            read_examples, read_sample,
        },
    },
};

/// Latents whose rows are made together.
const BLOCK: usize = 512;
/// Different peaks kept per latent.
const PEAKS: usize = 8;
/// Rows of a sample that are made together.
const SAMPLE_BLOCK: usize = 8192;

/// The columns that are computed at the end, from the SAE and the model.
pub(crate) struct Completed<'a> {
    pub(crate) tokenizer: &'a TextTokenizer,
    pub(crate) lenses: Vec<Lens>,
    pub(crate) nearest: Vec<Vec<(u32, f32)>>,
}

/// Writes all tables into `dir`; without `completed`, only what the state holds. Returns the tables and the documents of
/// the examples.
pub(crate) fn write(
    state: &IndexState,
    manifest: &FeaturesManifest,
    completed: Option<Completed<'_>>,
    dir: &Path,
) -> Result<(Vec<IndexedFile>, HashSet<u64>)> {
    let (d_sae, config) = (manifest.d_sae, &manifest.config);
    let sample = state.sample.joined();
    let tokenizer = completed.as_ref().map(|completed| completed.tokenizer);
    let mut files = vec![write_sample(&SAMPLE, &sample, dir)?, write_sample(&CONTROL, &state.control.joined(), dir)?];
    files.push(write_tokens(state, tokenizer, dir)?);

    let by_latent = completed.as_ref().map(|_| sample.by_latent(d_sae));
    let draw = by_latent.as_ref().map(|by_latent| Draw::new(&sample, by_latent, config.reach));
    let fires = by_latent.as_ref().map(|by_latent| fires_with(&sample, by_latent, d_sae, config.neighbors));
    let describe = |latent: usize| {
        let mut feature = counted(state, latent);
        let top = state.top.latents[latent].iter().map(|top| (ExampleKind::Top, 1.0, top.clone()));
        let mut found: Vec<(ExampleKind, f32, Candidate)> = top.collect();
        if let Some(draw) = &draw {
            let drawn = draw.examples(latent as u32).into_iter();
            found.extend(drawn.map(|(quantile, example)| (ExampleKind::Sampled, quantile, example)));
            feature.silent_rows = draw.silent(latent as u32);
        }
        if let Some(fires) = &fires {
            feature.fires_with.clone_from(&fires[latent]);
        }
        if let Some(Completed { lenses, nearest, .. }) = &completed {
            (feature.promoted, feature.suppressed) = lenses[latent].clone();
            feature.nearest.clone_from(&nearest[latent]);
        }
        let examples = examples(latent as u32, found, tokenizer);
        feature.fires_on = peaks(&examples);
        (feature, examples)
    };
    let (mut features, mut table) = (FEATURES.writer(dir, FEATURES_GROUP)?, EXAMPLES.writer(dir, EXAMPLES_GROUP)?);
    let (mut first_example, mut documents) = (0, HashSet::new());
    for start in (0..d_sae).step_by(BLOCK) {
        let latents = start..d_sae.min(start + BLOCK);
        let (mut described, found): (Vec<Feature>, Vec<Vec<Example>>) = latents.into_par_iter().map(describe).unzip();
        for (feature, found) in described.iter_mut().zip(&found) {
            (feature.first_example, feature.n_examples) = (first_example, found.len() as u32);
            first_example += found.len() as u64;
            documents.extend(found.iter().map(|example| example.document));
        }
        features.add(&described)?;
        table.add(&found.concat())?;
    }
    for (file, sha256) in [(FEATURES.file, features.finish()?), (EXAMPLES.file, table.finish()?)] {
        files.push(IndexedFile { file: file.into(), sha256 });
    }
    Ok((files, documents))
}

/// The facts about a latent that its counts give.
fn counted(state: &IndexState, latent: usize) -> Feature {
    let LatentCounts { n_active, sum, max } = state.counts.latents[latent];
    let histogram = state.counts.histogram(latent);
    let by_source = state.counts.by_source(latent);
    let share = |n: u64, of: u64| if of == 0 { 0.0 } else { n as f64 / of as f64 };
    Feature {
        latent: latent as u32,
        n_active,
        density: share(n_active, state.tokens),
        max,
        mean: if n_active == 0 { 0.0 } else { (sum as f64 / UNITS / n_active as f64) as f32 },
        quantiles: [0.5, 0.9, 0.99, 0.999].map(|q| histogram.quantile(q, max)),
        histogram,
        activation_sum: sum,
        n_active_by_source: by_source.to_vec(),
        density_by_source: by_source.iter().zip(&state.source_tokens).map(|(n, of)| share(*n, *of) as f32).collect(),
        ..Feature::default()
    }
}

/// Rows of the table of examples, ranked within each kind.
fn examples(latent: u32, found: Vec<(ExampleKind, f32, Candidate)>, tokenizer: Option<&TextTokenizer>) -> Vec<Example> {
    let mut ranks = [0, 0];
    let example = |(kind, quantile, candidate): (ExampleKind, f32, Candidate)| {
        let next = &mut ranks[kind as usize];
        let rank = std::mem::replace(next, *next + 1);
        let Candidate { activation, document, context, position, peak, tokens, activations } = candidate;
        let texts = tokenizer.map_or_else(Vec::new, |tokenizer| tokenizer.token_texts(&tokens));
        Example {
            latent,
            kind,
            rank,
            quantile,
            activation,
            document,
            context,
            position,
            peak,
            tokens,
            texts,
            activations,
        }
    };
    found.into_iter().map(example).collect()
}

/// The tokens at the peaks of some examples, without case and spaces, most frequent first; of equals, the first seen.
fn peaks(examples: &[Example]) -> Vec<String> {
    let mut counts: Vec<(String, usize)> = vec![];
    // A character of several tokens has its text at the last of them.
    let at_peak =
        |example: &Example| example.texts.iter().skip(example.peak as usize).find(|it| !it.is_empty()).cloned();
    for text in examples.iter().filter_map(at_peak) {
        let text = if text.trim().is_empty() { text.clone() } else { text.trim().to_lowercase() };
        match counts.iter_mut().find(|(peak, _)| *peak == text) {
            Some((_, n)) => *n += 1,
            None => counts.push((text, 1)),
        }
    }
    counts.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    counts.into_iter().take(PEAKS).map(|(text, _)| text).collect()
}

fn write_sample(
    table: &harvester::Table<crate::features::SampleRow>,
    sample: &Sample,
    dir: &Path,
) -> Result<IndexedFile> {
    let mut writer = table.writer(dir, SAMPLE_GROUP)?;
    for start in (0..sample.len()).step_by(SAMPLE_BLOCK) {
        let rows = start..sample.len().min(start + SAMPLE_BLOCK);
        writer.add(&rows.map(|row| sample.row(row)).collect::<Vec<_>>())?;
    }
    Ok(IndexedFile { file: table.file.into(), sha256: writer.finish()? })
}

fn write_tokens(state: &IndexState, tokenizer: Option<&TextTokenizer>, dir: &Path) -> Result<IndexedFile> {
    let text = |token| tokenizer.map_or_else(String::new, |tokenizer| tokenizer.token_text(token));
    let occurring = (0..).zip(&state.token_counts).filter(|(_, count)| **count > 0);
    let rows: Vec<_> = occurring.map(|(token, &count)| TokenCount { token, text: text(token), count }).collect();
    Ok(IndexedFile { file: TOKENS.file.into(), sha256: TOKENS.write(dir, &rows)? })
}

/// The state that the tables in `dir` hold, of a run with this manifest.
pub(crate) fn read(dir: &Path, manifest: &FeaturesManifest) -> Result<IndexState> {
    let mut state = IndexState::new(manifest);
    let changed = |file: &str, found: String| {
        let expected = format!("rows of {} latents and {} sources", manifest.d_sae, manifest.sources.len());
        let hint = "It was changed by hand: index again into another folder";
        harvester::Error::malformed(dir.join(file), expected, found, hint)
    };
    read_counts(dir, &mut state)?.ok_or_else(|| changed(FEATURES.file, "others".into()))?;
    state.tokens = manifest.tokens;
    for (tokens, source) in state.source_tokens.iter_mut().zip(&manifest.sources) {
        *tokens = source.tokens;
    }
    let tokens = TOKENS.open(dir)?;
    let counts = tokens.read_rows::<u64>("count", ..)?;
    for (token, count) in tokens.read_rows::<u32>("token", ..)?.into_iter().zip(counts) {
        let place = state.token_counts.get_mut(token as usize);
        *place.ok_or_else(|| changed(TOKENS.file, format!("token {token}")))? = count;
    }
    let table = EXAMPLES.open(dir)?;
    for start in (0..table.n_rows()).step_by(8 * EXAMPLES_GROUP) {
        let examples = read_examples(&table, start..table.n_rows().min(start + 8 * EXAMPLES_GROUP))?;
        for e in examples.into_iter().filter(|example| example.kind == ExampleKind::Top) {
            let Example { latent, activation, document, context, position, peak, tokens, activations, .. } = e;
            if latent as usize >= manifest.d_sae || peak as usize >= tokens.len() {
                return Err(changed(EXAMPLES.file, format!("latent {latent} with its peak at token {peak}")).into());
            }
            let candidate = Candidate { activation, document, context, position, peak, tokens, activations };
            state.top.offer(latent as usize, candidate);
        }
    }
    state.sample.restore_below(manifest.sample_cuts[0], &read_sample(&SAMPLE.open(dir)?)?);
    state.control.restore_below(manifest.sample_cuts[1], &read_sample(&CONTROL.open(dir)?)?);
    Ok(state)
}

fn read_counts(dir: &Path, state: &mut IndexState) -> Result<Option<()>> {
    let table = FEATURES.open(dir)?;
    if table.n_rows() != state.counts.latents.len() {
        return Ok(None);
    }
    for start in (0..table.n_rows()).step_by(8 * FEATURES_GROUP) {
        let rows = start..table.n_rows().min(start + 8 * FEATURES_GROUP);
        let n_active = table.read_rows::<u64>("n_active", rows.clone())?;
        let sum = table.read_rows::<u64>("activation_sum", rows.clone())?;
        let max = table.read_rows::<f32>("max", rows.clone())?;
        let starts = table.read_rows::<u32>("histogram_start", rows.clone())?;
        let histograms = table.read_rows::<Vec<u32>>("histogram", rows.clone())?;
        let by_source = table.read_rows::<Vec<u64>>("n_active_by_source", rows.clone())?;
        for (at, (counts, by_source)) in histograms.into_iter().zip(by_source).enumerate() {
            let latent = LatentCounts { n_active: n_active[at], sum: sum[at], max: max[at] };
            let histogram = Histogram { start: starts[at], counts };
            if state.counts.restore(start + at, latent, &histogram, &by_source).is_none() {
                return Ok(None);
            }
        }
    }
    Ok(Some(()))
}
