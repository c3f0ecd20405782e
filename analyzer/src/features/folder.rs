//! [`FeatureIndex`]: a folder of features on disk: `features.parquet`, one row per latent; `examples.parquet`, one row
//! per example, sorted by latent and rank; `documents.parquet`, the documents of the examples; `manifest.json`, written
//! last, so that a folder with a manifest is complete.

use std::{collections::HashMap, path::Path};

use harvester::{DocumentRecord, Location, MANIFEST_FILE, Manifest, OutputFolder, differences};

use super::{
    feature::{Example, Feature},
    manifest::{FeaturesManifest, IndexedFile},
    tables::{EXAMPLES, FEATURES, read_examples, read_features},
};
use crate::{Error, Result};

/// A folder of features, read into memory.
#[derive(Debug)]
pub struct FeatureIndex {
    manifest: FeaturesManifest,
    features: Vec<Feature>,
    /// Sorted by latent, then rank.
    examples: Vec<Example>,
    /// The documents of the examples, by number; empty if the activations had no table of documents.
    documents: HashMap<u64, DocumentRecord>,
}

impl FeatureIndex {
    /// Opens a folder written by [`crate::index`].
    ///
    /// # Errors
    /// A file that is missing, truncated, or of another kind or version.
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest = FeaturesManifest::read(dir)?;
        manifest.check_files(dir)?;
        if let Some(sae) = other_sae(&manifest, dir)? {
            tracing::warn!(
                "{}: its latents are those of another SAE than {sae} holds now: index that one into another folder",
                dir.display()
            );
        }
        let features = read_features(&FEATURES.open(dir)?)?;
        let examples = read_examples(&EXAMPLES.open(dir)?)?;
        check(dir, (manifest.d_sae, manifest.sources.len()), &features, &examples)?;
        let has_documents = manifest.files.iter().any(|table| table.file == DocumentRecord::FILE);
        let documents = if has_documents { DocumentRecord::read_table(dir)? } else { vec![] };
        let documents = documents.into_iter().map(|record| (record.document, record)).collect();
        Ok(Self { manifest, features, examples, documents })
    }

    /// Compares the tables of `dir` with the checksums recorded when they were written.
    ///
    /// # Errors
    /// A table that has changed.
    pub fn verify(&self, dir: &Path) -> Result<()> {
        for IndexedFile { file, sha256 } in &self.manifest.files {
            let hint = "The file has changed since it was written: index again into another folder";
            Location::from(dir.join(file)).check_sha256(sha256, hint)?;
        }
        Ok(())
    }

    /// The manifest of this folder.
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
    /// A number that the SAE does not have.
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

    /// A latent's examples that are from a source of the corpus.
    pub fn examples_from(&self, latent: u32, source: &str) -> Vec<Example> {
        let from_there = |example: &&Example| self.source_of(example.document) == Some(source);
        self.examples(latent).iter().filter(from_there).cloned().collect()
    }

    /// Names of the corpus' sources.
    pub fn source_names(&self) -> Vec<String> {
        self.manifest.sources.iter().map(|source| source.name.clone()).collect()
    }

    /// The document of an example: its file, its line or row, and the fields kept beside it.
    pub fn document(&self, number: u64) -> Option<&DocumentRecord> {
        self.documents.get(&number)
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

    /// Indices in the manifest of the sources with these names.
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

/// The place of the SAE that was indexed, if it now holds another one. Only an SAE that refract trained is compared: to
/// tell one of another tool, all of its bytes would have to be read.
fn other_sae(manifest: &FeaturesManifest, dir: &Path) -> Result<Option<String>> {
    let sae = manifest.sae.shown(dir);
    let its_manifest = Path::new(&sae).join(MANIFEST_FILE);
    if !its_manifest.is_file() {
        return Ok(None);
    }
    let is_same = manifest.sae.sha256() == Some(&*harvester::sha256_file(&its_manifest)?);
    Ok((!is_same).then_some(sae))
}

/// Refuses tables that contradict the manifest or each other, because all later code uses indices into them.
fn check(dir: &Path, (d_sae, n_sources): (usize, usize), features: &[Feature], examples: &[Example]) -> Result<()> {
    let refuse = |file: &str, expected: String, found: String| {
        let hint = "It was changed by hand: index again into another folder";
        Err(harvester::Error::malformed(dir.join(file), expected, found, hint).into())
    };
    if features.len() != d_sae {
        return refuse(FEATURES.file, format!("{d_sae} rows, one per latent"), format!("{} rows", features.len()));
    }
    for (row, feature) in features.iter().enumerate() {
        let found = (feature.latent as usize, feature.density_by_source.len());
        if found != (row, n_sources) {
            let of = |(latent, n): (usize, usize)| format!("latent {latent} with {n} densities by source");
            let expected = format!("in row {row} {}", of((row, n_sources)));
            return refuse(FEATURES.file, expected, of(found));
        }
    }
    for (row, e) in examples.iter().enumerate() {
        let (n, n_activations) = (e.texts.len(), e.activations.len());
        if e.peak as usize >= n || n != n_activations {
            let expected =
                format!("in row {row} a window with an activation for each token, and its peak at one of them");
            let found = format!("{n} tokens with {n_activations} activations and the peak at token {}", e.peak);
            return refuse(EXAMPLES.file, expected, found);
        }
    }
    let place = |e: &Example| (e.latent, e.rank);
    if let Some(row) = examples.windows(2).position(|pair| place(&pair[0]) > place(&pair[1])) {
        let [before, after] =
            [row, row + 1].map(|row| format!("latent {}, rank {}", examples[row].latent, examples[row].rank));
        let expected = "rows sorted by latent and rank".to_string();
        return refuse(EXAMPLES.file, expected, format!("{after} in row {} after {before}", row + 1));
    }
    Ok(())
}

/// Written last, so that a folder with a manifest is finished.
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
        [FEATURES.file, EXAMPLES.file, DocumentRecord::FILE].contains(&name.strip_suffix(".tmp").unwrap_or(name))
    }

    fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut lines = differences("sae", &self.sae.sha256(), &wanted.sae.sha256());
        lines.extend(differences("activations", &self.activations.sha256(), &wanted.activations.sha256()));
        lines.extend(differences("config", &self.config, &wanted.config));
        lines
    }
}

/// Writes the tables, and then the manifest that lists them.
pub(crate) fn write(
    out: &Path,
    mut manifest: FeaturesManifest,
    features: &[Feature],
    examples: &[Example],
    documents: Option<&[DocumentRecord]>,
) -> Result<FeaturesManifest> {
    let indexed = |file: &str, sha256: String| IndexedFile { file: file.into(), sha256 };
    manifest.files = vec![
        indexed(FEATURES.file, FEATURES.write(out, features)?),
        indexed(EXAMPLES.file, EXAMPLES.write(out, examples)?),
    ];
    if let Some(documents) = documents {
        manifest.files.push(indexed(DocumentRecord::FILE, DocumentRecord::write_table(out, documents)?));
    }
    manifest.write(out)?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(latent: u32, n_sources: usize) -> Feature {
        Feature {
            latent,
            n_active: 0,
            density: 0.0,
            max: 0.0,
            mean: 0.0,
            histogram: vec![],
            density_by_source: vec![0.0; n_sources],
            promoted: vec![],
            suppressed: vec![],
            nearest: vec![],
        }
    }

    fn example(latent: u32, rank: u32, peak: u32, activations: usize) -> Example {
        Example {
            latent,
            rank,
            activation: 0.0,
            document: 0,
            context: 0,
            position: 0,
            peak,
            tokens: vec![0; 2],
            texts: vec![String::new(); 2],
            activations: vec![0.0; activations],
        }
    }

    #[test]
    fn tables_that_contradict_the_manifest_are_refused_with_what_they_hold() {
        let check = |features: &[Feature], examples: &[Example]| {
            check(Path::new("index"), (2, 1), features, examples).map_err(|error| error.to_string())
        };
        let whole = [feature(0, 1), feature(1, 1)];
        assert!(check(&whole, &[example(0, 0, 1, 2), example(1, 0, 0, 2), example(1, 1, 0, 2)]).is_ok());
        for (features, examples, want) in [
            (&whole[..1], vec![], "features.parquet: expected 2 rows, one per latent, found 1 rows"),
            (
                &[feature(0, 1), feature(2, 1)],
                vec![],
                "expected in row 1 latent 1 with 1 densities by source, found latent 2 with 1 densities by source",
            ),
            (&[feature(0, 1), feature(1, 3)], vec![], "found latent 1 with 3 densities by source"),
            (&whole, vec![example(0, 0, 2, 2)], "found 2 tokens with 2 activations and the peak at token 2"),
            (&whole, vec![example(0, 0, 0, 1)], "found 2 tokens with 1 activations and the peak at token 0"),
            (
                &whole,
                vec![example(1, 1, 0, 2), example(1, 0, 0, 2)],
                "examples.parquet: expected rows sorted by latent and rank, found latent 1, rank 0 in row 1 after \
                 latent 1, rank 1",
            ),
        ] {
            let message = check(features, &examples).expect_err(want);
            assert!(message.contains(want), "{message}");
        }
    }
}
