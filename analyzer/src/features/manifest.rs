//! [`FeaturesManifest`]: the inputs and the files of a folder of features.

use std::{fmt, path::Path};

use harvester::{
    ArtifactRef, CorpusPart, DocumentRecord, HookPoint, Location, Manifest, ModelIdentity, OutputFolder, differences,
    human::grouped,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::latents::LATENTS;
use super::tables::{CONTROL, EFFECTS, EXAMPLES, FEATURES, LABELS, SAMPLE, TOKENS};
use crate::{Label, PlacedSae, Result};

/// The folder in a folder of features that holds the state of an unfinished run.
pub(crate) const PARTIAL_FOLDER: &str = "partial";

/// The saved state of an unfinished run.
pub(crate) const STATE_FILE: &str = "partial/state.json";

/// Settings of an index: the facts to keep per latent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IndexConfig {
    /// Number of strongest examples kept, each from another context and with another text. Default 20.
    pub examples: usize,
    /// Tokens shown on each side of an example's peak. Default 12.
    pub reach: usize,
    /// Number of promoted tokens kept, and of suppressed ones. Default 10.
    pub logit_tokens: usize,
    /// Number of nearest latents kept, and of those that fire together. Default 5.
    #[serde(alias = "neighbours")]
    pub neighbors: usize,
    /// Size of the sample: its tokens and their active latents, together at most. Default 8,000,000, which are 64 MB.
    pub sample: u64,
    /// True to measure what each latent does to the next token. Default true.
    pub effects: bool,
    /// True to write the active latents of every token too, as `latents.parquet`. Default false.
    pub latents: bool,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            examples: 20,
            reach: 12,
            logit_tokens: 10,
            neighbors: 5,
            sample: 8_000_000,
            effects: true,
            latents: false,
        }
    }
}

/// The text that was indexed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IndexedText {
    /// The folder of activations, whose hash is that of its manifest; `None` if the model ran over a corpus, or if
    /// several indexes were merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations: Option<ArtifactRef>,
    /// The corpus and the settings with which it was made into contexts.
    pub identity: Value,
    /// The parts of the corpus; empty for all of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<CorpusPart>,
    /// Most tokens taken of a corpus over which the model ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
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
    /// The text.
    pub text: IndexedText,
    /// The model.
    pub model: ModelIdentity,
    /// The hook point.
    pub hook_point: HookPoint,
    /// Rows with a larger norm are attention sinks, which were left out.
    pub sink_norm: f32,
    /// Number of latents: rows of `features.parquet`.
    pub d_sae: usize,
    /// Number of latents that are active on no token.
    pub never_active: u64,
    /// Tokens that were encoded: all except position 0 and attention sinks.
    pub tokens: u64,
    /// The sources of the documents.
    pub sources: Vec<IndexedSource>,
    /// The settings of the index.
    pub config: IndexConfig,
    /// The sample holds every context whose hash is below the first number, and the control sample those below the
    /// second.
    pub sample_cuts: [u64; 2],
    /// How many latents have a label that predicts well.
    #[serde(default)]
    pub labeled: Labeled,
    /// The tables.
    pub files: Vec<IndexedFile>,
}

/// Shares of latents whose label has an F1 of at least 0.8, measured on at least 20 firings, among those that fire in the
/// text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Labeled {
    /// Latents of the SAE, on the sample.
    pub sample: f32,
    /// Latents of the SAE, on the text of the control sample.
    pub control_text: f32,
    /// Latents of the random dictionary, on the same text.
    pub control: f32,
}

impl fmt::Display for Labeled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [sample, control_text, control] =
            [self.sample, self.control_text, self.control].map(|share| format!("{:.1} %", 100.0 * share));
        write!(f, "{}: {sample} of the latents that fire; ", Label::goodness())?;
        write!(f, "in the control's text {control_text}, at random {control}")
    }
}

impl FeaturesManifest {
    /// The counts, and how well labels predict, in two lines.
    pub fn summary(&self) -> [String; 2] {
        let (latents, tokens) = (grouped(self.d_sae as u64), grouped(self.tokens));
        [format!("{latents} latents over {tokens} tokens"), format!("labels of {}", self.labeled)]
    }

    /// The unfinished run in `dir`, with the counts of its last saved state; `None` if there is none.
    ///
    /// # Errors
    /// A state that cannot be read.
    pub(crate) fn of_unfinished(dir: &Path) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct State {
            run: FeaturesManifest,
        }
        let path = dir.join(STATE_FILE);
        if dir.join(Self::FILE).exists() || !path.exists() {
            return Ok(None);
        }
        let bytes = std::fs::read(&path).map_err(harvester::Error::io("read", &path))?;
        let State { run } = serde_json::from_slice(&bytes).map_err(|error| {
            let hint = format!("Remove {} to index from the start", dir.join(PARTIAL_FOLDER).display());
            harvester::Error::malformed(&path, "the state of an unfinished index", error.to_string(), hint)
        })?;
        Ok(Some(run.located(&dir.into())))
    }

    /// The SAE that was indexed, also one of another tool: `folder`, that of the manifest, says where it belongs.
    ///
    /// # Errors
    /// When it is at no recorded place, or cannot be read.
    pub(crate) fn placed_sae(&self, folder: &Path) -> Result<PlacedSae> {
        PlacedSae::recorded(&self.sae, folder, |path, sae, sha256| PlacedSae {
            path,
            sae,
            hook_point: self.hook_point,
            sink_norm: self.sink_norm,
            bos: self.text.identity["config"]["bos"].as_str().and_then(|bos| bos.parse().ok()),
            model: self.model.clone(),
            sha256,
            manifest: None,
        })
    }

    /// Checks that the tables are in `dir`, the folder of the manifest.
    ///
    /// # Errors
    /// A table that is not there.
    pub(crate) fn check_files(&self, dir: &Path) -> Result<()> {
        match self.files.iter().map(|table| dir.join(&table.file)).find(|table| !table.is_file()) {
            None => Ok(()),
            Some(missing) => {
                let hint = format!("Restore it, or remove {} to index again", dir.join(Self::FILE).display());
                let expected = format!("a table that {} lists", Self::FILE);
                Err(harvester::Error::malformed(missing, expected, "no such file", hint).into())
            }
        }
    }
}

/// Written last, so that a folder with a manifest is finished.
impl Manifest for FeaturesManifest {
    const FORMAT: &'static str = "refract.features";
    const VERSION: u32 = 4;
    const OLDEST_VERSION: u32 = 4;
    const COMMAND: &'static str = "index";

    fn located(self, folder: &Location) -> Self {
        Self { model: self.model.clone().located(folder), ..self }
    }

    fn leaves(_folder: &OutputFolder, name: &str) -> bool {
        let tables = [FEATURES.file, EXAMPLES.file, SAMPLE.file, CONTROL.file, TOKENS.file, LABELS.file, EFFECTS.file];
        let tables = [&tables[..], &[LATENTS.file]].concat();
        [PARTIAL_FOLDER, DocumentRecord::FILE].contains(&name)
            || tables.contains(&name.strip_suffix(".tmp").unwrap_or(name))
    }

    fn differences(&self, wanted: &Self) -> Vec<String> {
        let mut lines = differences("sae", &self.sae.sha256.as_deref(), &wanted.sae.sha256.as_deref());
        let activations = |manifest: &Self| {
            let activations = manifest.text.activations.as_ref();
            activations.and_then(|activations| activations.sha256.clone())
        };
        lines.extend(differences("activations", &activations(self), &activations(wanted)));
        let text = |manifest: &Self| IndexedText { activations: None, ..manifest.text.clone() };
        lines.extend(differences("text", &text(self), &text(wanted)));
        lines.extend(differences("config", &self.config, &wanted.config));
        lines
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
