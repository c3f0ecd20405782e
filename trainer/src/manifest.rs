//! [`SaeManifest`]: what made an SAE folder, how far it has come, and how good it is. It holds no wall-clock facts, so
//! the same run always writes the same bytes.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use harvester::{ContextCursor, HookPoint, MANIFEST_FILE, ModelIdentity, VectorFile, read_manifest, write_manifest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Result,
    config::TrainConfig,
    data::training_data::VectorsIdentity,
    formats::{self, SaeFormat},
    sae::Sae,
};

pub use self::results::TrainResults;

mod results;

/// `format` of an SAE folder.
pub const SAE_FORMAT: &str = "refract.sae";

/// Folder of the activations held out by a run on a running model, in its own.
pub const HELD_OUT_FOLDER: &str = "held-out";

/// Options that may differ when a run is continued: they do not shape the result. Of `init_from` the content does.
const FREE_OPTIONS: [&str; 3] = ["checkpoint_every", "keep_checkpoints", "init_from"];

/// What made an SAE folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeManifest {
    /// [`SAE_FORMAT`].
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// The refract that began this folder.
    pub refract_version: String,
    /// Which run this is: SHA-256 of what this file was when it began. Checkpoints have it too.
    pub run_id: String,
    /// Whether training is done and the SAE is there.
    pub complete: bool,
    /// The folder of activations, or the file or folder of vectors, that it was trained on; where it was trained on a
    /// running model, the activations held out. A relative path is below the SAE's folder.
    pub activations: PathBuf,
    /// SHA-256 of that folder's manifest; absent for vectors, which have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activations_manifest_sha256: Option<String>,
    /// The vectors' files; absent where the rows are a model's activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorsIdentity>,
    /// The model whose activations they are; absent for vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelIdentity>,
    /// Where in the model; of several inputs the first. Absent for vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hook_point: Option<HookPoint>,
    /// All inputs, where there are several: a crosscoder's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hook_points: Vec<HookPoint>,
    /// What is predicted from the inputs, where that is not they themselves: a transcoder's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_hook_point: Option<HookPoint>,
    /// Width of all inputs together.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Contexts of the activations that were never trained on. Empty for vectors: of those, the config's seed and
    /// fraction tell which rows.
    pub held_out: Range<u64>,
    /// Where a running model's contexts to train on begin; absent where the activations were harvested first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_from: Option<ContextCursor>,
    /// Rows of a larger norm at `hook_point` are attention sinks; they were dropped, together with position 0. The
    /// largest number there is for vectors, of which none is dropped.
    pub sink_norm: f32,
    /// Everything that was asked for, with the defaults that the activations decide.
    pub config: TrainConfig,
    /// The files of the SAE that it began from, where it began from one; `config` says where they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_from: Vec<InitialFile>,
    /// The weight of the sparsity loss that it began with, where that is the last one of the run that made that SAE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sparsity_coefficient: Option<f64>,
    /// Why it was stopped, where nothing good would have come of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// How it ended; absent until it has.
    pub results: Option<TrainResults>,
}

/// A file of the SAE that a run began from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialFile {
    /// Its own name.
    pub name: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

impl SaeManifest {
    /// Reads the manifest of an SAE folder.
    ///
    /// # Errors
    /// When there is none, or one of another kind or version, or one that is not as it was written.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(read_manifest(dir, SAE_FORMAT)?)
    }

    /// The manifest of an SAE whose training is done.
    ///
    /// # Errors
    /// When there is none, or training is not done.
    pub fn finished(dir: &Path) -> Result<Self> {
        let manifest = Self::read(dir)?;
        if let Some(why) = manifest.diverged {
            let hint = "Train again with other settings into another --out";
            return Err(Error::malformed(
                dir,
                "an SAE whose training is done",
                format!("one that stopped: {why}"),
                hint,
            ));
        }
        if !manifest.complete {
            let hint = "Repeat the command that made this folder: it goes on where it stopped";
            return Err(Error::malformed(dir, "an SAE whose training is done", "an unfinished one", hint));
        }
        Ok(manifest)
    }

    /// The model, and the one place in it that the SAE reads and writes: what evaluation, the index and steering need.
    ///
    /// # Errors
    /// When it was trained on vectors of no model.
    pub fn site(&self) -> Result<(&ModelIdentity, HookPoint)> {
        match (&self.model, self.hook_point) {
            (Some(model), Some(hook_point)) => Ok((model, hook_point)),
            _ => {
                let found =
                    format!("one trained on the vectors in {}, which are no model's", self.activations.display());
                Err(Error::invalid("SAE", "one trained on a model's activations: only those have a text", found))
            }
        }
    }

    /// Whether `dir` holds a manifest of ours, whole or damaged: a file of that name may be another tool's.
    pub(crate) fn is_in(dir: &Path) -> bool {
        let has_format = |bytes: Vec<u8>| bytes.windows(SAE_FORMAT.len()).any(|part| part == SAE_FORMAT.as_bytes());
        fs::read(dir.join(MANIFEST_FILE)).is_ok_and(has_format)
    }

    /// With the SHA-256 of the rest as [`SaeManifest::run_id`].
    pub(crate) fn identified(self) -> Self {
        let bytes = serde_json::to_vec(&self).expect("plain data, which serde_json can always write");
        Self { run_id: harvester::sha256_bytes([bytes]), ..self }
    }

    /// Whether the SAE of this run, which is that of `dir`, is there. Of one whose weights were removed nothing but the
    /// end is done again, from its last checkpoint.
    ///
    /// # Errors
    /// When the weights have changed since.
    pub fn is_finished(&self, dir: &Path) -> Result<bool> {
        match &self.results {
            Some(results) if self.complete && results.files().all(|(name, _)| dir.join(name).is_file()) => {
                results.verify(dir).map(|()| true)
            }
            _ => Ok(false),
        }
    }

    /// Compares the SAE's files with the checksums that were recorded when training ended.
    ///
    /// # Errors
    /// When training is not done, or a file has changed.
    pub fn verify(dir: &Path) -> Result<()> {
        Self::finished(dir)?.results.map_or(Ok(()), |results| results.verify(dir))
    }

    /// Replaces the manifest in `dir`.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        Ok(write_manifest(dir, self)?)
    }

    /// The folder of activations, for a manifest read from the SAE folder `dir`.
    pub fn activations_dir(&self, dir: &Path) -> PathBuf {
        match self.activations.to_str() {
            Some(url) if url.contains("://") => self.activations.clone(),
            _ => dir.join(&self.activations),
        }
    }

    fn vector_files(&self) -> impl Iterator<Item = &VectorFile> {
        self.vectors.iter().flat_map(|vectors| &vectors.files)
    }

    /// What differs between the run that made this folder and `other`, one line each; empty when `other` may go on
    /// here.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut differences = Vec::new();
        let mut compare = |name: &str, there: &Value, here: &Value| differences.extend(difference(name, there, here));
        let hash = |manifest: &Self| Value::from(manifest.activations_manifest_sha256.clone());
        compare("manifest of the activations", &hash(self), &hash(other));
        let column = |manifest: &Self| Value::from(manifest.vectors.as_ref().map(|vectors| vectors.column.clone()));
        compare("column", &column(self), &column(other));
        for file in self.vector_files().chain(other.vector_files()).map(|file| &file.name).collect::<BTreeSet<_>>() {
            let hash = |manifest: &Self| {
                Value::from(manifest.vector_files().find(|at| at.name == *file).map(|at| at.sha256.clone()))
            };
            compare(&format!("SHA-256 of {file}"), &hash(self), &hash(other));
        }
        let initial = |manifest: &Self| {
            serde_json::to_value(&manifest.init_from).expect("plain data, which serde_json can always write")
        };
        compare("files of the SAE begun from (--init-from)", &initial(self), &initial(other));
        let coefficient = |manifest: &Self| Value::from(manifest.init_sparsity_coefficient);
        compare("its last sparsity coefficient (--init-from)", &coefficient(self), &coefficient(other));
        differences.extend(option_differences(&self.config, &other.config));
        differences
    }
}

impl Sae {
    /// Reads an SAE in any format of [`SaeFormat`]; the files that are there tell which one. What a run of refract wrote
    /// is first compared with the checksums in its manifest.
    ///
    /// # Errors
    /// Names the file, and the tensor or field, that is missing, unknown, of another shape or type, or not finite.
    pub fn load(path: &Path) -> Result<Self> {
        let dir = formats::folder_of(path);
        // A run that goes on has not written its SAE yet, which its manifest says better than the missing files.
        if SaeManifest::is_in(&dir) && (SaeManifest::read(&dir)?.complete || SaeFormat::of(path).is_err()) {
            SaeManifest::verify(&dir)?;
        }
        formats::read(path)
    }
}

/// Options that differ and shape the result, one line each.
pub(crate) fn option_differences(there: &TrainConfig, here: &TrainConfig) -> Vec<String> {
    let [there, here] = [there, here]
        .map(|config| serde_json::to_value(config).expect("plain data, which serde_json can always write"));
    let shaping = there.as_object().into_iter().flatten().filter(|(name, _)| !FREE_OPTIONS.contains(&name.as_str()));
    shaping.filter_map(|(name, value)| difference(name, value, here.get(name).unwrap_or(&Value::Null))).collect()
}

fn difference(name: &str, there: &Value, here: &Value) -> Option<String> {
    (there != here).then(|| format!("{name}: {there} there, {here} here"))
}
