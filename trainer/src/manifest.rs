//! [`SaeManifest`]: the inputs of an SAE folder, the state of its run, and its results. It contains no wall-clock
//! times, so the same run always writes the same bytes.

use std::{collections::BTreeSet, ops::Range, path::Path};

use harvester::{
    ActivationDataset, ArtifactRef, ContextCursor, HookPoint, Location, Manifest, ModelIdentity, OutputFolder,
    SpecialToken, VectorFile, differences, go_on, human,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Error, Result,
    config::{TrainConfig, recorded},
    data::training_data::VectorsIdentity,
    formats::{self, SaeFormat},
    sae::Sae,
};

pub use self::results::TrainResults;

pub(crate) mod checkpoint_files;
mod results;

/// Subfolder of the held-out activations of a run on a running model.
pub const HELD_OUT_FOLDER: &str = "held-out";

/// Options that may differ when a run is continued, because they do not change the result. For `init_from` only the
/// content does, not the path.
const FREE_OPTIONS: [&str; 3] = ["checkpoint_every", "keep_checkpoints", "init_from"];

/// The manifest of an SAE folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaeManifest {
    /// `refract.sae`.
    pub format: String,
    /// Version of the layout.
    pub version: u32,
    /// Version of refract that began this folder.
    pub refract_version: String,
    /// Identity of the run: SHA-256 of this file's content when the run began. Checkpoints have it too.
    pub run_id: String,
    /// True once training is done and the SAE is saved.
    pub complete: bool,
    /// The folder of activations, or the file or folder of vectors, that it was trained on. For a run on a running
    /// model: the held-out activations. The hash is that of the folder's manifest; vectors have none.
    pub activations: ArtifactRef,
    /// The vectors' files; `None` if the rows are a model's activations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vectors: Option<VectorsIdentity>,
    /// The model that computed the activations; `None` for vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelIdentity>,
    /// Written for readers of the file only.
    #[serde(flatten)]
    pub(crate) recorded_points: RecordedPoints,
    /// Width of all inputs together.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Contexts of the activations that were never trained on. Empty for vectors: the config's seed and fraction
    /// determine their held-out rows.
    pub held_out: Range<u64>,
    /// Start of the training contexts in a running model's corpus; `None` if the activations were harvested first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live_from: Option<ContextCursor>,
    /// Rows with a larger norm at the first input are attention sinks; they were dropped, as was position 0. For vectors,
    /// of which none are dropped, this is the largest f32.
    pub sink_norm: f32,
    /// The token before every context of the activations, which prompts begin with too. `None` for vectors, and in
    /// manifests of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bos: Option<SpecialToken>,
    /// The config of the run, completed with the defaults that depend on the activations.
    #[serde(deserialize_with = "recorded")]
    pub config: TrainConfig,
    /// The files of the SAE that the run began from, if any; their path is in `config`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub init_from: Vec<InitialFile>,
    /// The initial weight of the sparsity loss, if it was the last one of the run that made that SAE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_sparsity_coefficient: Option<f64>,
    /// The message of a run that was stopped because it diverged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diverged: Option<String>,
    /// The results; `None` until the run has ended.
    pub results: Option<TrainResults>,
}

/// The hook points of a config, as the file names them beside it. Here, only the config's own are used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordedPoints {
    /// That of the first input; `None` for vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hook_point: Option<HookPoint>,
    /// Those of all inputs, if there are several (a crosscoder).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hook_points: Vec<HookPoint>,
    /// The one that a transcoder predicts; `None` if the inputs are reconstructed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    target_hook_point: Option<HookPoint>,
}

impl From<&TrainConfig> for RecordedPoints {
    fn from(config: &TrainConfig) -> Self {
        let inputs = &config.hook_points;
        Self {
            hook_point: inputs.first().copied(),
            hook_points: if inputs.len() > 1 { inputs.clone() } else { vec![] },
            target_hook_point: config.target_hook_point,
        }
    }
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
    /// When it does not exist, has another kind or version, or is damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        Ok(<Self as Manifest>::read(dir)?)
    }

    /// Reads the manifest of an SAE whose training is done.
    ///
    /// # Errors
    /// When it does not exist, or training is not done.
    pub fn finished(dir: &Path) -> Result<Self> {
        let manifest = Self::read(dir)?;
        if let Some(why) = manifest.diverged {
            let hint = "Train again with other settings into another `out`";
            return Err(Error::malformed(
                dir,
                "an SAE whose training is done",
                format!("one that stopped: {why}"),
                hint,
            ));
        }
        if !manifest.complete {
            let hint = go_on(dir);
            return Err(Error::malformed(dir, "an SAE whose training is done", "an unfinished one", hint));
        }
        Ok(manifest)
    }

    /// The hook points that it reads and the one that it predicts, or the column of vectors, in words.
    pub fn place(&self) -> String {
        let inputs: Vec<_> = self.config.hook_points.iter().map(ToString::to_string).collect();
        match (&inputs[..], self.config.target_hook_point, &self.vectors) {
            ([], _, Some(vectors)) => format!("on column `{}`", vectors.column),
            ([], _, None) => "on activations".to_string(),
            (inputs, Some(target), _) => format!("from {} to {target}", inputs.join(" and ")),
            (inputs, None, _) => format!("at {}", inputs.join(" and ")),
        }
    }

    /// What was trained and its results on held-out rows, in lines; none before training is done.
    pub fn summary(&self) -> Vec<String> {
        let (config, Some(results)) = (&self.config, &self.results) else { return vec![] };
        let (arch, sparsity, tokens) = (config.architecture, config.sparsity(), human::grouped(results.tokens));
        let mut lines = vec![format!("{arch}, {sparsity}, {}, after {tokens} tokens", self.place())];
        if let Some(held_out) = &results.held_out {
            let dead = match results.tokens < config.dead_after_tokens {
                true => "fewer tokens than `dead_after_tokens`, too few to tell dead latents".to_string(),
                false => format!("{} dead latents", results.dead),
            };
            lines.push(format!("held out: L0 {:.1}, FVU {:.3}; {dead}", held_out.l0, held_out.fvu));
        }
        lines
    }

    /// Differences between the SAE and the requested one, each in a sentence with advice.
    pub fn doubts(&self) -> Vec<String> {
        self.results.as_ref().map(|results| results.doubts(&self.config)).unwrap_or_default()
    }

    /// The model and the hook point that the SAE reads, for evaluation, the index and steering.
    ///
    /// # Errors
    /// When it was trained on vectors that no model computed.
    pub fn site(&self) -> Result<(&ModelIdentity, HookPoint)> {
        match (&self.model, self.config.hook_points.first()) {
            (Some(model), Some(hook_point)) => Ok((model, *hook_point)),
            _ => {
                let found = format!("one trained on the vectors in {}, which no model computed", self.activations);
                Err(Error::invalid("SAE", "one trained on a model's activations: only those have text", found))
            }
        }
    }

    /// True if `folder` contains a manifest of refract, even a damaged one. Another tool may use the same file name.
    pub(crate) fn is_in(folder: &Location) -> bool {
        let format = Self::FORMAT.as_bytes();
        let read = folder.join(Self::FILE).read_if_there().ok().flatten();
        read.is_some_and(|bytes| bytes.windows(format.len()).any(|part| part == format))
    }

    /// Sets [`SaeManifest::run_id`] to the SHA-256 of the rest, without paths.
    pub(crate) fn identified(self) -> Self {
        let activations = ArtifactRef { relative: None, absolute: None, ..self.activations.clone() };
        let model = self.model.clone().map(|model| ModelIdentity { relative: None, ..model });
        let identity = Self { activations, model, run_id: String::new(), ..self.clone() };
        let bytes = serde_json::to_vec(&identity).expect("plain data, which serde_json can always write");
        Self { run_id: harvester::sha256_bytes([bytes]), ..self }
    }

    /// True once training is done; then the SAE's files in `dir` are those that it wrote.
    ///
    /// # Errors
    /// When a file of a finished SAE was removed or has changed.
    pub(crate) fn is_finished(&self, dir: &Path) -> Result<bool> {
        match &self.results {
            Some(results) if self.complete => results.verify(dir).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Compares the SAE's files with the checksums recorded at the end of training.
    ///
    /// # Errors
    /// When training is not done, or a file has changed.
    pub fn verify(dir: &Path) -> Result<()> {
        Self::finished(dir)?.results.map_or(Ok(()), |results| results.verify(dir))
    }

    /// Opens the activations that it was trained on: of a folder that has been extended since, what it held then.
    /// Others in the same folder are refused. `dir` is the SAE's folder.
    ///
    /// # Errors
    /// When they no longer exist, or cannot be opened.
    pub fn open_activations(&self, dir: &Path) -> Result<ActivationDataset> {
        let what = format!("the activations that {} was trained on", dir.display());
        Ok(self.activations.open(&what, dir, |place| {
            let dataset =
                ActivationDataset::open_as(place.clone(), self.activations.sha256.as_deref().unwrap_or_default())?;
            Ok((Some(dataset.manifest_sha256()?), dataset))
        })?)
    }

    fn vector_files(&self) -> impl Iterator<Item = &VectorFile> {
        self.vectors.iter().flat_map(|vectors| &vectors.files)
    }
}

impl Manifest for SaeManifest {
    const FORMAT: &'static str = "refract.sae";
    const VERSION: u32 = 2;
    const ARTIFACTS: &'static [(&'static str, &'static str)] = &[("activations", "activations_manifest_sha256")];
    const COMMAND: &'static str = "train";

    fn leaves(_folder: &OutputFolder, name: &str) -> bool {
        name == HELD_OUT_FOLDER
    }

    fn differences(&self, wanted: &Self) -> Vec<String> {
        let (there, here) = (self.activations.sha256.as_deref(), wanted.activations.sha256.as_deref());
        let mut lines = differences("manifest of the activations", &there, &here);
        let column = |manifest: &Self| manifest.vectors.as_ref().map(|vectors| vectors.column.clone());
        lines.extend(differences("column", &column(self), &column(wanted)));
        for file in self.vector_files().chain(wanted.vector_files()).map(|file| &file.name).collect::<BTreeSet<_>>() {
            let hash =
                |manifest: &Self| manifest.vector_files().find(|at| at.name == *file).map(|at| at.sha256.clone());
            lines.extend(differences(&format!("SHA-256 of {file}"), &hash(self), &hash(wanted)));
        }
        lines.extend(differences("files of the initial SAE (`init_from`)", &self.init_from, &wanted.init_from));
        let coefficient = |manifest: &Self| manifest.init_sparsity_coefficient;
        let name = "its last sparsity coefficient (`init_from`)";
        lines.extend(differences(name, &coefficient(self), &coefficient(wanted)));
        lines.extend(option_differences(&self.config, &wanted.config));
        lines
    }

    fn located(self, folder: &Location) -> Self {
        Self { model: self.model.clone().map(|model| model.located(folder)), ..self }
    }

    /// If nothing was saved yet, another run may use the folder: it contains none of the user's work.
    fn is_begun(&self, folder: &OutputFolder) -> harvester::Result<bool> {
        let checkpoints = folder.location().join(checkpoint_files::FOLDER);
        let is_one = |name: &str| checkpoint_files::step_of(Path::new(name)).is_some();
        Ok(self.complete || checkpoints.names()?.iter().any(|name| is_one(name)))
    }
}

impl Sae {
    /// Reads an SAE in any format of [`SaeFormat`], which is detected from the files. An SAE written by refract is
    /// first compared with the checksums in its manifest.
    ///
    /// # Errors
    /// Names the file, and the tensor or field, that is missing, unknown, of another shape or type, or not finite.
    pub fn load(path: &Path) -> Result<Self> {
        let dir = formats::folder_of(path);
        // An unfinished run has not written its SAE yet. The error from its manifest explains that better than the one
        // about missing files.
        if SaeManifest::is_in(&dir.as_path().into())
            && (SaeManifest::read(&dir)?.complete || SaeFormat::of(path).is_err())
        {
            SaeManifest::verify(&dir)?;
        }
        formats::read(path)
    }
}

/// Options that differ and change the result, one line each.
pub(crate) fn option_differences(there: &TrainConfig, here: &TrainConfig) -> Vec<String> {
    let shaping = |config: &TrainConfig| {
        let mut options = serde_json::to_value(config).expect("plain data, which serde_json can always write");
        if let Value::Object(options) = &mut options {
            options.retain(|name, _| !FREE_OPTIONS.contains(&name.as_str()));
        }
        options
    };
    let lines = differences("", &shaping(there), &shaping(here));
    // In backticks, as every setting in a message; a part of a setting (`adam.beta1`) has no flag of its own.
    let quoted = |line: String| match line.split_once(": ") {
        Some((name, values)) => format!("`{name}`: {values}"),
        None => line,
    };
    lines.into_iter().map(quoted).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    const KINDS: [&str; 3] = ["sae", "transcoder", "crosscoder"];

    /// The manifest that an earlier version wrote; `tests/fixtures/manifests/make_manifests.sh` made it.
    fn written(kind: &str) -> String {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/manifests");
        fs::read_to_string(folder.join(format!("{kind}.json"))).unwrap()
    }

    #[test]
    fn the_manifests_of_every_kind_of_sae_keep_their_bytes() {
        for kind in KINDS {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(SaeManifest::FILE);
            fs::write(&file, written(kind)).unwrap();
            let read = SaeManifest::read(folder.path()).unwrap();
            assert_eq!(read.recorded_points, RecordedPoints::from(&read.config), "{kind}");
            // A run that began with this manifest goes on: its identity is that of the same bytes.
            let begun = SaeManifest { complete: false, results: None, ..read.clone() }.identified();
            assert_eq!(begun.run_id, read.run_id, "{kind}");
            read.write(folder.path()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), written(kind), "{kind}");
        }
    }

    #[test]
    fn a_config_that_names_one_hook_point_in_its_own_field_is_read() {
        let mut older: Value = serde_json::from_str(&written("sae")).unwrap();
        let points = older["config"].as_object_mut().unwrap().remove("hook_points").unwrap();
        older["config"]["hook_point"] = points[0].clone();
        let read: SaeManifest = serde_json::from_value(older).unwrap();
        assert_eq!(json!(read.site().unwrap().1), points[0]);
    }
}
