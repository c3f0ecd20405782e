//! [`FeatureIndex`]: a folder of features on disk: `features.parquet`, a row a latent; `examples.parquet`, a row an
//! example, sorted by latent and rank; `manifest.json`, written last, so that its presence says the folder is whole.

use std::{fs::File, path::Path, sync::Arc};

use arrow::{
    array::{
        ArrayRef, AsArray, Float32Array, Float32Builder, Float64Array, ListArray, ListBuilder, RecordBatch,
        StringBuilder, UInt32Array, UInt32Builder, UInt64Array,
    },
    datatypes::{Float32Type, Float64Type, UInt32Type, UInt64Type},
    error::ArrowError,
};
use harvester::{AtomicFile, Location, Manifest, OutputFolder, differences};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};

use crate::{Error, Example, Feature, FeaturesManifest, Result, TokenWeight, features_manifest::IndexedFile};

const FEATURES_FILE: &str = "features.parquet";
const EXAMPLES_FILE: &str = "examples.parquet";

/// A folder of features, read into memory.
#[derive(Debug)]
pub struct FeatureIndex {
    manifest: FeaturesManifest,
    features: Vec<Feature>,
    /// Sorted by latent, then rank.
    examples: Vec<Example>,
}

impl FeatureIndex {
    /// Opens what [`crate::index`] wrote.
    ///
    /// # Errors
    /// A file that is missing, cut short, or of another kind or version.
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest = FeaturesManifest::read(dir)?;
        let features = read_table(&dir.join(FEATURES_FILE), read_features)?;
        let examples = read_table(&dir.join(EXAMPLES_FILE), read_examples)?;
        check(dir, &manifest, &features, &examples)?;
        Ok(Self { manifest, features, examples })
    }

    /// Compares the tables of `dir` with the checksums that were recorded when they were written.
    ///
    /// # Errors
    /// A table that has changed.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        for IndexedFile { file, sha256 } in &self.manifest.files {
            let found = harvester::sha256_file(&dir.join(file))?;
            if found != *sha256 {
                let hint = "The file has changed since it was written: index again into another folder";
                return Err(
                    harvester::Error::malformed(dir.join(file), format!("SHA-256 {sha256}"), found, hint).into()
                );
            }
        }
        Ok(())
    }

    /// What made this folder.
    pub fn manifest(&self) -> &FeaturesManifest {
        &self.manifest
    }

    /// Every latent, in order.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// One latent.
    ///
    /// # Errors
    /// A number the SAE does not have.
    pub fn feature(&self, latent: u32) -> Result<&Feature> {
        self.features.get(latent as usize).ok_or_else(|| {
            let expected = format!("below {}, the SAE's latents", self.features.len());
            harvester::Error::invalid("latent", expected, latent.to_string()).into()
        })
    }

    /// A latent's examples, strongest first.
    pub fn examples(&self, latent: u32) -> &[Example] {
        let start = self.examples.partition_point(|example| example.latent < latent);
        let end = self.examples.partition_point(|example| example.latent <= latent);
        &self.examples[start..end]
    }

    /// Names of the corpus' sources.
    pub fn source_names(&self) -> Vec<String> {
        self.manifest.sources.iter().map(|source| source.name.clone()).collect()
    }

    /// The source that a document is from.
    pub fn source_of(&self, document: u64) -> Option<usize> {
        let holds = |first: u64, n: u64| (first..first + n).contains(&document);
        self.manifest.sources.iter().position(|source| holds(source.first_document, source.documents))
    }

    /// Places of the sources called `names` in the manifest.
    pub(crate) fn source_places(&self, names: &[String]) -> Result<Vec<usize>> {
        let place = |name: &String| {
            self.manifest.sources.iter().position(|source| source.name == *name).ok_or_else(|| {
                let expected = format!("one of {}", self.source_names().join(", "));
                Error::from(harvester::Error::invalid("corpus source", expected, format!("`{name}`")))
            })
        };
        names.iter().map(place).collect()
    }
}

/// Refuses tables that contradict the manifest or each other: everything after indexes into them.
fn check(dir: &Path, manifest: &FeaturesManifest, features: &[Feature], examples: &[Example]) -> Result<()> {
    let refuse = |file: &str, expected: &str| {
        let hint = "It was changed by hand: index again into another folder";
        Err(harvester::Error::malformed(dir.join(file), expected, "something else", hint).into())
    };
    let in_place = |(place, feature): (usize, &Feature)| {
        feature.latent as usize == place && feature.density_by_source.len() == manifest.sources.len()
    };
    if features.len() != manifest.d_sae || !features.iter().enumerate().all(in_place) {
        let expected = format!("latents 0 to {}, each with a density for every source", manifest.d_sae);
        return refuse(FEATURES_FILE, &expected);
    }
    let whole = |e: &Example| (e.peak as usize) < e.texts.len() && e.texts.len() == e.activations.len();
    if !examples.iter().all(whole) || !examples.is_sorted_by_key(|e| (e.latent, e.rank)) {
        return refuse(EXAMPLES_FILE, "whole windows, sorted by latent and rank");
    }
    Ok(())
}

/// Written last, so that a folder with a manifest is a finished one.
impl Manifest for FeaturesManifest {
    const FORMAT: &'static str = "refract.features";
    const VERSION: u32 = 2;
    const ARTIFACTS: &'static [(&'static str, &'static str)] =
        &[("sae", "sae_manifest_sha256"), ("activations", "activations_manifest_sha256")];
    const COMMAND: &'static str = "index";

    fn located(self, folder: &Location) -> Self {
        Self { model: self.model.clone().located(folder), ..self }
    }

    fn leaves(_folder: &OutputFolder, name: &str) -> bool {
        [FEATURES_FILE, EXAMPLES_FILE].contains(&name.strip_suffix(".tmp").unwrap_or(name))
    }

    fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut lines = differences("sae", &self.sae.sha256(), &wanted.sae.sha256());
        lines.extend(differences("activations", &self.activations.sha256(), &wanted.activations.sha256()));
        lines.extend(differences("config", &self.config, &wanted.config));
        lines
    }
}

/// Writes the tables and, once both are there, the manifest that lists them.
pub(crate) fn write(
    out: &Path,
    mut manifest: FeaturesManifest,
    features: &[Feature],
    examples: &[Example],
) -> Result<FeaturesManifest> {
    manifest.files = vec![
        write_table(&out.join(FEATURES_FILE), features_batch(features))?,
        write_table(&out.join(EXAMPLES_FILE), examples_batch(examples))?,
    ];
    manifest.write(out)?;
    Ok(manifest)
}

/// Publishes a table whole.
fn write_table(path: &Path, batch: Result<RecordBatch, ArrowError>) -> Result<IndexedFile> {
    let failed = |error| harvester::Error::parquet("write", path)(error);
    let batch = batch.map_err(|error| failed(error.into()))?;
    let mut writer = ArrowWriter::try_new(AtomicFile::create(path)?, batch.schema(), None).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    let published = writer.into_inner().map_err(failed)?.publish()?;
    let file = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    Ok(IndexedFile { file, sha256: published.sha256 })
}

/// A list column of one value type from rows of slices.
macro_rules! list_column {
    ($builder:expr, $rows:expr) => {{
        let mut builder = ListBuilder::new($builder);
        for row in $rows {
            for value in row {
                builder.values().append_value(value);
            }
            builder.append(true);
        }
        Arc::new(builder.finish()) as ArrayRef
    }};
}

fn features_batch(features: &[Feature]) -> Result<RecordBatch, ArrowError> {
    let u32s = UInt32Builder::new;
    let f32s = Float32Builder::new;
    let texts = StringBuilder::new;
    let column = |name, array: ArrayRef| (name, array);
    let tokens = |lens: fn(&Feature) -> &[TokenWeight]| {
        list_column!(u32s(), features.iter().map(|f| lens(f).iter().map(|t| t.token)))
    };
    let words = |lens: fn(&Feature) -> &[TokenWeight]| {
        list_column!(texts(), features.iter().map(|f| lens(f).iter().map(|t| t.text.as_str())))
    };
    let weights = |lens: fn(&Feature) -> &[TokenWeight]| {
        list_column!(f32s(), features.iter().map(|f| lens(f).iter().map(|t| t.weight)))
    };
    RecordBatch::try_from_iter([
        column("latent", Arc::new(UInt32Array::from_iter_values(features.iter().map(|f| f.latent)))),
        column("n_active", Arc::new(UInt64Array::from_iter_values(features.iter().map(|f| f.n_active)))),
        column("density", Arc::new(Float64Array::from_iter_values(features.iter().map(|f| f.density)))),
        column("max", Arc::new(Float32Array::from_iter_values(features.iter().map(|f| f.max)))),
        column("mean", Arc::new(Float32Array::from_iter_values(features.iter().map(|f| f.mean)))),
        column("histogram", list_column!(u32s(), features.iter().map(|f| f.histogram.iter().copied()))),
        column("density_by_source", list_column!(f32s(), features.iter().map(|f| f.density_by_source.iter().copied()))),
        column("promoted_tokens", tokens(|f| &f.promoted)),
        column("promoted_texts", words(|f| &f.promoted)),
        column("promoted_weights", weights(|f| &f.promoted)),
        column("suppressed_tokens", tokens(|f| &f.suppressed)),
        column("suppressed_texts", words(|f| &f.suppressed)),
        column("suppressed_weights", weights(|f| &f.suppressed)),
        column("nearest_latents", list_column!(u32s(), features.iter().map(|f| f.nearest.iter().map(|n| n.0)))),
        column("nearest_cosines", list_column!(f32s(), features.iter().map(|f| f.nearest.iter().map(|n| n.1)))),
    ])
}

fn examples_batch(examples: &[Example]) -> Result<RecordBatch, ArrowError> {
    let column = |name, array: ArrayRef| (name, array);
    let texts = examples.iter().map(|e| e.texts.iter().map(String::as_str));
    RecordBatch::try_from_iter([
        column("latent", Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| e.latent)))),
        column("rank", Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| e.rank)))),
        column("activation", Arc::new(Float32Array::from_iter_values(examples.iter().map(|e| e.activation)))),
        column("document", Arc::new(UInt64Array::from_iter_values(examples.iter().map(|e| e.document)))),
        column("context", Arc::new(UInt64Array::from_iter_values(examples.iter().map(|e| e.context)))),
        column("position", Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| e.position)))),
        column("peak", Arc::new(UInt32Array::from_iter_values(examples.iter().map(|e| e.peak)))),
        column("tokens", list_column!(UInt32Builder::new(), examples.iter().map(|e| e.tokens.iter().copied()))),
        column("texts", list_column!(StringBuilder::new(), texts)),
        column(
            "activations",
            list_column!(Float32Builder::new(), examples.iter().map(|e| e.activations.iter().copied())),
        ),
    ])
}

/// All rows of a table. `read` turns a batch into rows, or names the column that is not as it should be.
fn read_table<T>(path: &Path, read: impl Fn(&Columns<'_>) -> Option<Vec<T>>) -> Result<Vec<T>> {
    let failed = |error| harvester::Error::parquet("read", path)(error);
    let file = File::open(path).map_err(harvester::Error::io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build()).map_err(failed)?;
    let mut rows = vec![];
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.into()))?;
        let hint = "It was written by another version, or by hand: index again into another folder";
        let found = || batch.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(", ");
        let malformed = || harvester::Error::malformed(path, "the columns of data/README.md", found(), hint);
        rows.extend(read(&Columns(&batch)).ok_or_else(malformed)?);
    }
    Ok(rows)
}

/// Columns by name, `None` where absent or of another type.
struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn u32(&self, name: &str) -> Option<Vec<u32>> {
        Some(self.0.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?.values().to_vec())
    }

    fn u64(&self, name: &str) -> Option<Vec<u64>> {
        Some(self.0.column_by_name(name)?.as_primitive_opt::<UInt64Type>()?.values().to_vec())
    }

    fn f32(&self, name: &str) -> Option<Vec<f32>> {
        Some(self.0.column_by_name(name)?.as_primitive_opt::<Float32Type>()?.values().to_vec())
    }

    fn f64(&self, name: &str) -> Option<Vec<f64>> {
        Some(self.0.column_by_name(name)?.as_primitive_opt::<Float64Type>()?.values().to_vec())
    }

    fn list(&self, name: &str) -> Option<&ListArray> {
        self.0.column_by_name(name)?.as_list_opt::<i32>()
    }

    fn u32_lists(&self, name: &str) -> Option<Vec<Vec<u32>>> {
        let rows = self.list(name)?.iter();
        rows.map(|row| Some(row?.as_primitive_opt::<UInt32Type>()?.values().to_vec())).collect()
    }

    fn f32_lists(&self, name: &str) -> Option<Vec<Vec<f32>>> {
        let rows = self.list(name)?.iter();
        rows.map(|row| Some(row?.as_primitive_opt::<Float32Type>()?.values().to_vec())).collect()
    }

    fn text_lists(&self, name: &str) -> Option<Vec<Vec<String>>> {
        let texts = |row: ArrayRef| -> Option<Vec<String>> {
            row.as_string_opt::<i32>()?.iter().map(|text| text.map(str::to_string)).collect()
        };
        self.list(name)?.iter().map(|row| texts(row?)).collect()
    }

    fn token_weights(&self, kind: &str) -> Option<Vec<Vec<TokenWeight>>> {
        let tokens = self.u32_lists(&format!("{kind}_tokens"))?;
        let texts = self.text_lists(&format!("{kind}_texts"))?;
        let weights = self.f32_lists(&format!("{kind}_weights"))?;
        let one = |((token, text), weight)| TokenWeight { token, text, weight };
        let row = |((tokens, texts), weights): ((Vec<u32>, Vec<String>), Vec<f32>)| {
            tokens.into_iter().zip(texts).zip(weights).map(one).collect()
        };
        Some(tokens.into_iter().zip(texts).zip(weights).map(row).collect())
    }
}

fn read_features(columns: &Columns<'_>) -> Option<Vec<Feature>> {
    let (n_active, density) = (columns.u64("n_active")?, columns.f64("density")?);
    let (max, mean) = (columns.f32("max")?, columns.f32("mean")?);
    let mut histogram = columns.u32_lists("histogram")?.into_iter();
    let mut by_source = columns.f32_lists("density_by_source")?.into_iter();
    let mut promoted = columns.token_weights("promoted")?.into_iter();
    let mut suppressed = columns.token_weights("suppressed")?.into_iter();
    let mut nearest = columns.u32_lists("nearest_latents")?.into_iter().zip(columns.f32_lists("nearest_cosines")?);
    let feature = |(row, latent): (usize, u32)| {
        let (latents, cosines) = nearest.next()?;
        Some(Feature {
            latent,
            n_active: n_active[row],
            density: density[row],
            max: max[row],
            mean: mean[row],
            histogram: histogram.next()?,
            density_by_source: by_source.next()?,
            promoted: promoted.next()?,
            suppressed: suppressed.next()?,
            nearest: latents.into_iter().zip(cosines).collect(),
        })
    };
    columns.u32("latent")?.into_iter().enumerate().map(feature).collect()
}

fn read_examples(columns: &Columns<'_>) -> Option<Vec<Example>> {
    let (rank, activation, peak) = (columns.u32("rank")?, columns.f32("activation")?, columns.u32("peak")?);
    let (document, context) = (columns.u64("document")?, columns.u64("context")?);
    let position = columns.u32("position")?;
    let mut tokens = columns.u32_lists("tokens")?.into_iter();
    let mut texts = columns.text_lists("texts")?.into_iter();
    let mut activations = columns.f32_lists("activations")?.into_iter();
    let example = |(row, latent): (usize, u32)| {
        Some(Example {
            latent,
            rank: rank[row],
            activation: activation[row],
            document: document[row],
            context: context[row],
            position: position[row],
            peak: peak[row],
            tokens: tokens.next()?,
            texts: texts.next()?,
            activations: activations.next()?,
        })
    };
    columns.u32("latent")?.into_iter().enumerate().map(example).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    fn feature(latent: u32) -> Feature {
        let lens = |n| vec![TokenWeight { token: n, text: format!(" é{n}"), weight: n as f32 }];
        Feature {
            latent,
            n_active: 7,
            density: 0.25,
            max: 3.5,
            mean: 1.5,
            histogram: vec![1, 2, 3],
            density_by_source: vec![0.5, 0.0],
            promoted: lens(latent),
            suppressed: vec![],
            nearest: vec![(latent + 1, 0.5)],
        }
    }

    #[test]
    fn features_and_examples_survive_a_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let features = vec![feature(0), feature(1)];
        let path = folder.path().join(FEATURES_FILE);
        write_table(&path, features_batch(&features)).unwrap();
        assert_eq!(read_table(&path, read_features).unwrap(), features);
        let example = Example {
            latent: 1,
            rank: 0,
            activation: 2.0,
            document: 3,
            context: 4,
            position: 5,
            peak: 1,
            tokens: vec![8, 9],
            texts: vec!["a".into(), String::new()],
            activations: vec![0.0, 2.0],
        };
        let path = folder.path().join(EXAMPLES_FILE);
        write_table(&path, examples_batch(std::slice::from_ref(&example))).unwrap();
        assert_eq!(read_table(&path, read_examples).unwrap(), [example]);
    }

    #[test]
    fn a_cut_table_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FEATURES_FILE);
        write_table(&path, features_batch(&[feature(0)])).unwrap();
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(read_table(&path, read_features).unwrap_err().to_string().contains(FEATURES_FILE));
    }
}
