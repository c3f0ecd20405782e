//! [`FeaturesManifest`]: the inputs and the files of a folder of features.

use std::path::Path;

use harvester::{ArtifactRef, HookPoint, MANIFEST_FILE, ModelIdentity};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Settings of an index: the facts to keep per latent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// Number of strongest examples kept, each from another context. Default 20.
    pub examples: usize,
    /// Tokens shown on each side of an example's peak. Default 12.
    pub reach: usize,
    /// Number of promoted tokens kept, and of suppressed ones. Default 10.
    pub logit_tokens: usize,
    /// Number of nearest latents kept. Default 5.
    #[serde(alias = "neighbours")]
    pub neighbors: usize,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self { examples: 20, reach: 12, logit_tokens: 10, neighbors: 5 }
    }
}

/// `manifest.json` of a folder of features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeaturesManifest {
    /// `refract.features`.
    pub format: String,
    /// Version of the artifacts' layout.
    pub version: u32,
    /// Version of refract that wrote this folder.
    pub refract_version: String,
    /// The SAE's folder or file. The hash is that of its manifest; for an SAE of another tool, the hashes of its files,
    /// joined by `+`.
    pub sae: ArtifactRef,
    /// The activations' folder. The hash is that of its manifest.
    pub activations: ArtifactRef,
    /// The model.
    pub model: ModelIdentity,
    /// The hook point.
    pub hook_point: HookPoint,
    /// Number of latents: rows of `features.parquet`.
    pub d_sae: usize,
    /// Tokens that were encoded: all except position 0 and attention sinks.
    pub tokens: u64,
    /// The sources of the documents.
    pub sources: Vec<IndexedSource>,
    /// The settings of the index.
    pub config: IndexConfig,
    /// The tables.
    pub files: Vec<IndexedFile>,
}

impl FeaturesManifest {
    /// Checks that the tables are in `dir`, the folder of the manifest.
    ///
    /// # Errors
    /// A table that is not there.
    pub(crate) fn check_files(&self, dir: &Path) -> Result<()> {
        match self.files.iter().map(|table| dir.join(&table.file)).find(|table| !table.is_file()) {
            None => Ok(()),
            Some(missing) => {
                let hint = format!("Restore it, or remove {} to index again", dir.join(MANIFEST_FILE).display());
                let expected = format!("a table that {MANIFEST_FILE} lists");
                Err(harvester::Error::malformed(missing, expected, "no such file", hint).into())
            }
        }
    }
}

/// A table of a folder of features.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedFile {
    /// Name of its file.
    pub file: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A source of the corpus, as far as it was indexed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedSource {
    /// Its name, e.g. `code`.
    pub name: String,
    /// Number of its tokens that were encoded.
    pub tokens: u64,
    /// Number of its first document.
    pub first_document: u64,
    /// Number of its documents.
    pub documents: u64,
}
