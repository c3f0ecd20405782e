//! [`FeatureIndex`]: a folder of features on disk. Opening it reads the footers of its tables. A latent is read when it
//! is asked for, and only its rows; whole columns are read to rank latents, after the table was compared with its
//! checksum. The examples, which are most of the bytes, are compared only on request.

use std::{
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use harvester::{DocumentRecord, Location, Manifest, Table, TableReader, Value, go_on};
use trainer::SaeManifest;

use super::{
    feature::{Example, ExampleKind, Feature},
    manifest::{FeaturesManifest, IndexedFile},
    sample::Sample,
    tables::{
        CONTROL, EFFECTS, EXAMPLES, FEATURES, LABELS, SAMPLE, TOKENS, read_effects, read_examples, read_features,
        read_labels, read_sample,
    },
};
use crate::{Effect, Error, Label, PlacedSae, Result};

/// Latents whose rows are read together when all are.
const BLOCK: usize = 1024;

/// A folder of features, opened.
#[derive(Debug)]
pub struct FeatureIndex {
    dir: PathBuf,
    manifest: FeaturesManifest,
    features: SmallTable,
    examples: TableReader,
    labels: SmallTable,
    /// `None` if effects were not measured.
    effects: Option<SmallTable>,
    /// The documents of the examples, by number, once they are asked for.
    documents: OnceLock<HashMap<u64, DocumentRecord>>,
}

/// A table that is compared with its checksum before it is read whole.
#[derive(Debug)]
struct SmallTable {
    table: TableReader,
    path: PathBuf,
    /// `None` if the manifest does not list it.
    sha256: Option<String>,
    compared: OnceLock<()>,
}

impl SmallTable {
    fn open<R>(table: &Table<R>, dir: &Path, manifest: &FeaturesManifest) -> Result<Self> {
        let listed = manifest.files.iter().find(|listed| listed.file == table.file);
        Ok(Self {
            table: table.open(dir)?,
            path: dir.join(table.file),
            sha256: listed.map(|listed| listed.sha256.clone()),
            compared: OnceLock::new(),
        })
    }

    /// The table, to read all rows of it.
    fn whole(&self) -> Result<&TableReader> {
        if let (None, Some(sha256)) = (self.compared.get(), &self.sha256) {
            Location::from(self.path.clone()).check_sha256(sha256, CHANGED)?;
            self.compared.get_or_init(|| ());
        }
        Ok(&self.table)
    }

    fn n_rows(&self) -> usize {
        self.table.n_rows()
    }
}

/// What to do about a table that is not the one that was written.
const CHANGED: &str = "The file has changed since it was written: index again into another folder";

impl FeatureIndex {
    /// Opens a folder written by [`crate::index`].
    ///
    /// # Errors
    /// A file that is missing, truncated, or of another kind or version.
    pub fn open(dir: &Path) -> Result<Self> {
        if FeaturesManifest::of_unfinished(dir)?.is_some() {
            return Err(harvester::Error::malformed(dir, "a finished index", "one that was stopped", go_on(dir)).into());
        }
        let manifest = FeaturesManifest::read(dir)?;
        manifest.check_files(dir)?;
        if let Some(sae) = other_sae(&manifest, dir)? {
            tracing::warn!(
                "{}: its latents are those of another SAE than {sae} holds now: index that one into another folder",
                dir.display()
            );
        }
        let (features, examples) = (SmallTable::open(&FEATURES, dir, &manifest)?, EXAMPLES.open(dir)?);
        if features.n_rows() != manifest.d_sae {
            let expected = format!("{} rows, one per latent", manifest.d_sae);
            return Err(changed(dir, FEATURES.file, expected, format!("{} rows", features.n_rows())));
        }
        let labels = SmallTable::open(&LABELS, dir, &manifest)?;
        if labels.n_rows() != manifest.d_sae {
            let expected = format!("{} rows, one per latent", manifest.d_sae);
            return Err(changed(dir, LABELS.file, expected, format!("{} rows", labels.n_rows())));
        }
        let has_effects = manifest.files.iter().any(|table| table.file == EFFECTS.file);
        let effects = if has_effects { Some(SmallTable::open(&EFFECTS, dir, &manifest)?) } else { None };
        Ok(Self { dir: dir.to_path_buf(), manifest, features, examples, labels, effects, documents: OnceLock::new() })
    }

    /// Compares the tables with the checksums recorded when they were written.
    ///
    /// # Errors
    /// A table that has changed.
    pub fn verify(&self) -> Result<()> {
        for IndexedFile { file, sha256 } in &self.manifest.files {
            Location::from(self.dir.join(file)).check_sha256(sha256, CHANGED)?;
        }
        Ok(())
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest of this folder.
    pub fn manifest(&self) -> &FeaturesManifest {
        &self.manifest
    }

    /// A column of `features.parquet`: a value for every latent.
    ///
    /// # Errors
    /// A damaged table, or a column of another type.
    pub fn column<T: Value>(&self, name: &str) -> Result<Vec<T>> {
        Ok(self.features.whole()?.read_rows(name, ..)?)
    }

    /// Every latent, in order. It reads the whole table: [`Self::column`] is for what needs a few facts of each.
    ///
    /// # Errors
    /// A damaged table.
    pub fn features(&self) -> Result<Vec<Feature>> {
        self.features.whole()?;
        self.read(0..self.manifest.d_sae)
    }

    /// One latent.
    ///
    /// # Errors
    /// A number that the SAE does not have, or a damaged table.
    pub fn feature(&self, latent: u32) -> Result<Feature> {
        let row = self.row(latent)?;
        let mut read = self.read(row..row + 1)?;
        read.pop().ok_or_else(|| changed(&self.dir, FEATURES.file, format!("a row {row}"), "none".into()))
    }

    /// The row of a latent.
    fn row(&self, latent: u32) -> Result<usize> {
        if (latent as usize) < self.manifest.d_sae {
            return Ok(latent as usize);
        }
        let expected = format!("below {}, the SAE's latents", self.manifest.d_sae);
        Err(harvester::Error::invalid("latent", expected, latent.to_string()).into())
    }

    /// Features of the latents `rows`.
    fn read(&self, rows: Range<usize>) -> Result<Vec<Feature>> {
        let features = read_features(&self.features.table, rows.clone())?;
        let n_sources = self.manifest.sources.len();
        for (row, feature) in rows.zip(&features) {
            let found = (feature.latent as usize, feature.density_by_source.len());
            if found != (row, n_sources) {
                let of = |(latent, n): (usize, usize)| format!("latent {latent} with {n} densities by source");
                let expected = format!("in row {row} {}", of((row, n_sources)));
                return Err(changed(&self.dir, FEATURES.file, expected, of(found)));
            }
        }
        Ok(features)
    }

    /// A latent's strongest examples, strongest first.
    ///
    /// # Errors
    /// As for [`Self::feature`].
    pub fn examples(&self, latent: u32) -> Result<Vec<Example>> {
        self.examples_of(&self.feature(latent)?, ExampleKind::Top)
    }

    /// Examples of a latent over the range of its activations, strongest first.
    ///
    /// # Errors
    /// As for [`Self::feature`].
    pub fn sampled_examples(&self, latent: u32) -> Result<Vec<Example>> {
        self.examples_of(&self.feature(latent)?, ExampleKind::Sampled)
    }

    /// The examples of one kind of a latent that is already read, strongest first.
    ///
    /// # Errors
    /// A damaged table.
    pub fn examples_of(&self, feature: &Feature, kind: ExampleKind) -> Result<Vec<Example>> {
        let mut examples = self.read_examples(std::slice::from_ref(feature))?;
        examples.retain(|example| example.kind == kind);
        Ok(examples)
    }

    /// The label of a latent.
    ///
    /// # Errors
    /// As for [`Self::feature`].
    pub fn label(&self, latent: u32) -> Result<Label> {
        let row = self.row(latent)?;
        let mut read = read_labels(&self.labels.table, row..row + 1)?;
        read.pop().ok_or_else(|| changed(&self.dir, LABELS.file, format!("a row {row}"), "none".into()))
    }

    /// The label of every latent.
    ///
    /// # Errors
    /// A damaged table.
    pub fn labels(&self) -> Result<Vec<Label>> {
        Ok(read_labels(self.labels.whole()?, 0..self.manifest.d_sae)?)
    }

    /// The measured effect of a latent; `None` if it never fires, or effects were not measured.
    ///
    /// # Errors
    /// As for [`Self::feature`].
    pub fn effect(&self, latent: u32) -> Result<Option<Effect>> {
        self.row(latent)?;
        let Some(effects) = &self.effects else { return Ok(None) };
        let table = effects.whole()?;
        let latents = table.read_rows::<u32>("latent", ..)?;
        let Ok(row) = latents.binary_search(&latent) else { return Ok(None) };
        Ok(read_effects(table, row..row + 1)?.pop())
    }

    /// The effects of all latents that fire, in their order; empty if they were not measured.
    ///
    /// # Errors
    /// A damaged table.
    pub fn effects(&self) -> Result<Vec<Effect>> {
        let Some(effects) = &self.effects else { return Ok(vec![]) };
        Ok(read_effects(effects.whole()?, 0..effects.n_rows())?)
    }

    /// Calls `each` with every latent and its examples, in order.
    ///
    /// # Errors
    /// A damaged table, or an error of `each`.
    pub fn for_each(&self, mut each: impl FnMut(&Feature, &[Example]) -> Result<()>) -> Result<()> {
        self.features.whole()?;
        for start in (0..self.manifest.d_sae).step_by(BLOCK) {
            let features = self.read(start..self.manifest.d_sae.min(start + BLOCK))?;
            let examples = self.read_examples(&features)?;
            let mut rest = &examples[..];
            for feature in &features {
                let (of_latent, others) = rest.split_at(feature.n_examples as usize);
                rest = others;
                each(feature, of_latent)?;
            }
        }
        Ok(())
    }

    /// The examples of consecutive latents.
    fn read_examples(&self, features: &[Feature]) -> Result<Vec<Example>> {
        let n: usize = features.iter().map(|feature| feature.n_examples as usize).sum();
        let start = features.iter().find(|feature| feature.n_examples > 0).map_or(0, |feature| feature.first_example);
        let rows = start as usize..(start as usize).saturating_add(n);
        if rows.end > self.examples.n_rows() {
            let expected = format!("at least {} rows, which {} refers to", rows.end, FEATURES.file);
            return Err(changed(&self.dir, EXAMPLES.file, expected, format!("{} rows", self.examples.n_rows())));
        }
        let examples = read_examples(&self.examples, rows.clone())?;
        let latents = features.iter().flat_map(|feature| vec![feature.latent; feature.n_examples as usize]);
        for (row, (latent, e)) in rows.zip(latents.zip(&examples)) {
            let (n, n_activations) = (e.texts.len(), e.activations.len());
            if e.latent != latent || e.peak as usize >= n || n != n_activations {
                let expected = format!(
                    "in row {row} latent {latent} with an activation for each token and its peak at one of them"
                );
                let found = format!(
                    "latent {} with {n} tokens, {n_activations} activations and the peak at token {}",
                    e.latent, e.peak
                );
                return Err(changed(&self.dir, EXAMPLES.file, expected, found));
            }
        }
        Ok(examples)
    }

    /// The sample: whole contexts with the active latents of every token.
    ///
    /// # Errors
    /// A damaged table.
    pub fn sample(&self) -> Result<Sample> {
        Ok(read_sample(&SAMPLE.open(self.dir.as_path())?)?)
    }

    /// Contexts of the sample, encoded with a random dictionary of as many latents.
    ///
    /// # Errors
    /// A damaged table.
    pub fn control(&self) -> Result<Sample> {
        Ok(read_sample(&CONTROL.open(self.dir.as_path())?)?)
    }

    /// A latent's strongest examples that are from a source of the corpus.
    ///
    /// # Errors
    /// As for [`Self::feature`].
    pub fn examples_from(&self, latent: u32, source: &str) -> Result<Vec<Example>> {
        let mut examples = self.examples(latent)?;
        examples.retain(|example| self.source_of(example.document) == Some(source));
        Ok(examples)
    }

    /// Names of the corpus' sources.
    pub fn source_names(&self) -> Vec<String> {
        self.manifest.sources.iter().map(|source| source.name.clone()).collect()
    }

    /// The document of an example: its file, its line or row, and the fields kept beside it. `None` if that was not
    /// recorded.
    pub fn document(&self, number: u64) -> Option<&DocumentRecord> {
        self.documents.get_or_init(|| self.read_documents()).get(&number)
    }

    fn read_documents(&self) -> HashMap<u64, DocumentRecord> {
        let has_documents = self.manifest.files.iter().any(|table| table.file == DocumentRecord::FILE);
        let read = if has_documents { DocumentRecord::read_table(self.dir.as_path()) } else { Ok(vec![]) };
        let documents = read.unwrap_or_else(|error| {
            tracing::warn!("files and lines of examples are not known: {error}");
            vec![]
        });
        documents.into_iter().map(|record| (record.document, record)).collect()
    }

    /// The name of the source that the document of an example is from.
    pub fn source_of(&self, document: u64) -> Option<&str> {
        if let Some(record) = self.document(document) {
            return Some(&record.source);
        }
        let holds = |first: u64, n: u64| (first..first + n).contains(&document);
        let source = self.manifest.sources.iter().find(|source| holds(source.first_document, source.documents));
        source.map(|source| source.name.as_str())
    }

    /// File and line of an example in 20 characters, or its source if that is all that is known. The end is what tells
    /// lines apart, so a longer name loses its beginning.
    pub fn place(&self, example: &Example) -> String {
        const WIDTH: usize = 20;
        let known = self.document(example.document).map(DocumentRecord::place);
        let place = known.unwrap_or_else(|| self.source_of(example.document).unwrap_or("?").to_owned());
        match place.chars().count() {
            0..=WIDTH => place,
            length => format!("…{}", place.chars().skip(length + 1 - WIDTH).collect::<String>()),
        }
    }

    /// The texts of the tokens that occur in the indexed text.
    ///
    /// # Errors
    /// A damaged table.
    pub fn token_texts(&self) -> Result<HashMap<u32, String>> {
        let table = TOKENS.open(self.dir.as_path())?;
        Ok(table.read_rows::<u32>("token", ..)?.into_iter().zip(table.read_rows::<String>("text", ..)?).collect())
    }

    /// Checks that the index is of this SAE.
    ///
    /// # Errors
    /// If it is of another one.
    pub(crate) fn check_sae(&self, sae: &PlacedSae) -> Result<()> {
        match self.manifest.sae.sha256.as_deref().filter(|indexed| *indexed != sae.sha256) {
            None => Ok(()),
            Some(indexed) => {
                let expected = format!("an index of the SAE {}, of SHA-256 {}", sae.path.display(), sae.sha256);
                let found = format!("one of another SAE, of SHA-256 {indexed}: index this one");
                Err(harvester::Error::invalid("`features`", expected, found).into())
            }
        }
    }
}

/// The error for a table that contradicts the manifest or another table: later code uses indices into them.
fn changed(dir: &Path, file: &str, expected: String, found: String) -> Error {
    let hint = "It was changed by hand: index again into another folder";
    harvester::Error::malformed(dir.join(file), expected, found, hint).into()
}

/// The place of the SAE that was indexed, if it now holds another one. Only an SAE that refract trained is compared: to
/// tell one of another tool, all of its bytes would have to be read.
fn other_sae(manifest: &FeaturesManifest, dir: &Path) -> Result<Option<String>> {
    let sae = manifest.sae.shown(dir);
    let its_manifest = Path::new(&sae).join(SaeManifest::FILE);
    if !its_manifest.is_file() {
        return Ok(None);
    }
    let is_same = manifest.sae.sha256.as_deref() == Some(&*harvester::sha256_file(&its_manifest)?);
    Ok((!is_same).then_some(sae))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::features::tests::manifest;

    fn feature(latent: u32, n_sources: usize, first_example: u64, n_examples: u32) -> Feature {
        let density_by_source = vec![0.0; n_sources];
        Feature { latent, density_by_source, first_example, n_examples, ..Feature::default() }
    }

    fn example(latent: u32, rank: u32, peak: u32, activations: usize) -> Example {
        let (tokens, texts) = (vec![0; 2], vec![String::new(); 2]);
        Example { latent, rank, peak, tokens, texts, activations: vec![0.0; activations], ..Example::default() }
    }

    /// Reads everything of a folder with these tables.
    fn read_all(features: &[Feature], examples: &[Example]) -> Result<Vec<usize>, String> {
        let dir = tempfile::tempdir().unwrap();
        FEATURES.write(dir.path(), features).unwrap();
        EXAMPLES.write(dir.path(), examples).unwrap();
        LABELS.write(dir.path(), &[Label::none(0, 0), Label::none(1, 0)]).unwrap();
        manifest().write(dir.path()).unwrap();
        let index = FeatureIndex::open(dir.path()).map_err(|error| error.to_string())?;
        let mut counts = vec![];
        let read = index.for_each(|feature, examples| {
            assert_eq!(index.feature(feature.latent).unwrap(), *feature);
            assert_eq!(index.examples(feature.latent).unwrap(), examples);
            counts.push(examples.len());
            Ok(())
        });
        read.map(|()| counts).map_err(|error| error.to_string())
    }

    #[test]
    fn a_latent_is_read_with_its_examples() {
        let features = [feature(0, 1, 0, 1), feature(1, 1, 1, 2)];
        let examples = [example(0, 0, 1, 2), example(1, 0, 0, 2), example(1, 1, 0, 2)];
        assert_eq!(read_all(&features, &examples).unwrap(), [1, 2]);
    }

    #[test]
    fn tables_that_contradict_the_manifest_are_refused_with_what_they_hold() {
        let whole = [feature(0, 1, 0, 0), feature(1, 1, 0, 1)];
        for (features, examples, want) in [
            (&whole[..1], vec![], "features.parquet: expected 2 rows, one per latent, found 1 rows"),
            (
                &[feature(0, 1, 0, 0), feature(2, 1, 0, 0)],
                vec![],
                "expected in row 1 latent 1 with 1 densities by source, found latent 2 with 1 densities by source",
            ),
            (&[feature(0, 1, 0, 0), feature(1, 3, 0, 0)], vec![], "found latent 1 with 3 densities by source"),
            (&whole, vec![], "examples.parquet: expected at least 1 rows"),
            (&whole, vec![example(1, 0, 2, 2)], "found latent 1 with 2 tokens, 2 activations and the peak at token 2"),
            (&whole, vec![example(1, 0, 0, 1)], "found latent 1 with 2 tokens, 1 activations and the peak at token 0"),
            (&whole, vec![example(0, 0, 0, 2)], "expected in row 0 latent 1 with"),
        ] {
            let message = read_all(features, &examples).expect_err(want);
            assert!(message.contains(want), "{message}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_the_range() {
        let dir = tempfile::tempdir().unwrap();
        FEATURES.write(dir.path(), &[feature(0, 1, 0, 0), feature(1, 1, 0, 0)]).unwrap();
        EXAMPLES.write(dir.path(), &[]).unwrap();
        LABELS.write(dir.path(), &[Label::none(0, 0), Label::none(1, 0)]).unwrap();
        manifest().write(dir.path()).unwrap();
        let message = FeatureIndex::open(dir.path()).unwrap().feature(2).unwrap_err().to_string();
        assert!(message.contains("below 2, the SAE's latents") && message.contains("found 2"), "{message}");
    }
}
