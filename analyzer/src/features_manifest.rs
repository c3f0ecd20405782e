//! [`FeaturesManifest`]: what made a folder of features and which of its files count. Shared by the pass that makes the
//! features and the file that writes and reads them.

use harvester::{ArtifactRef, HookPoint, ModelIdentity};
use serde::{Deserialize, Serialize};

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
    /// The refract that wrote this folder.
    pub refract_version: String,
    /// The SAE's folder or file. The hash is that of its manifest; of an SAE of another tool, those of its files, joined
    /// by `+`.
    pub sae: ArtifactRef,
    /// The activations' folder. The hash is that of its manifest.
    pub activations: ArtifactRef,
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
