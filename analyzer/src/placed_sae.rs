//! [`PlacedSae`]: an SAE with the place in a model that it belongs at. Of one that refract trained, its manifest says
//! so; of one of another tool, the activations that it is used on do, and the user where it names no place itself.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use harvester::{ActivationDataset, HookPoint, LanguageModel, MANIFEST_FILE, ModelIdentity, Monitor};
use trainer::{Sae, SaeFormat, SaeManifest};

use crate::{Result, Site};

/// An SAE and where it belongs.
#[derive(Debug, Clone)]
pub struct PlacedSae {
    /// Its folder or file.
    pub path: PathBuf,
    /// The SAE.
    pub sae: Sae,
    /// Where in the model its activations are from.
    pub hook_point: HookPoint,
    /// Rows of a larger norm are attention sinks.
    pub sink_norm: f32,
    /// The model.
    pub model: ModelIdentity,
    /// SHA-256 of its manifest; of an SAE of another tool, those of its files, joined by `+`.
    pub sha256: String,
    /// What made it; `None` where another tool did.
    pub manifest: Option<SaeManifest>,
}

impl PlacedSae {
    /// Whether refract trained the SAE at `path`: its folder has a manifest.
    pub fn is_ours(path: &Path) -> bool {
        path.join(MANIFEST_FILE).is_file()
    }

    /// An SAE that refract trained.
    ///
    /// # Errors
    /// A folder without a manifest, or one whose training is not done; an SAE of vectors of no model; a file that
    /// cannot be read.
    pub fn trained(dir: &Path) -> Result<Self> {
        let manifest = SaeManifest::finished(dir)?;
        let (model, hook_point) = manifest.site()?;
        Ok(Self {
            path: dir.to_path_buf(),
            sae: Sae::load(dir)?,
            hook_point,
            sink_norm: manifest.sink_norm,
            model: model.clone(),
            sha256: harvester::sha256_file(&dir.join(MANIFEST_FILE))?,
            manifest: Some(manifest),
        })
    }

    /// An SAE of any tool, as it belongs to the model that `dataset` is of.
    ///
    /// # Errors
    /// A format that is not known; no place named by either, or another by each; a place that the dataset does not
    /// have.
    pub fn on(path: &Path, dataset: &ActivationDataset, hook_point: Option<HookPoint>) -> Result<Self> {
        let sae = Sae::load(path)?;
        let hook_point = place(&sae, hook_point)?;
        let hashes: Vec<String> =
            SaeFormat::files_of(path)?.iter().map(|file| harvester::sha256_file(file)).collect::<Result<_, _>>()?;
        Ok(Self {
            path: path.to_path_buf(),
            sae,
            hook_point,
            sink_norm: dataset.manifest().sink_norm(hook_point)?,
            model: dataset.manifest().model.clone(),
            sha256: hashes.join("+"),
            manifest: None,
        })
    }

    /// Checks that `dataset` is of the model that the SAE belongs to: others' activations mean something else, also
    /// where they are as wide.
    ///
    /// # Errors
    /// When it is of another model.
    pub fn check_model(&self, dataset: &ActivationDataset) -> Result<()> {
        let found = &dataset.manifest().model;
        if found.sha256 == self.model.sha256 {
            return Ok(());
        }
        let what = format!("model of the activations {}", dataset.dir().display());
        let name = |model: &ModelIdentity| format!("{} ({})", model.source, model.sha256);
        let expected = format!("{}, which the SAE {} belongs to", name(&self.model), self.path.display());
        Err(harvester::Error::invalid(what, expected, name(found)).into())
    }

    /// The model that the SAE belongs to: `open`, where that is given, else found again.
    ///
    /// # Errors
    /// When it is no longer there, or another to the bit.
    pub fn language_model(&self, open: Option<&LanguageModel>, monitor: &dyn Monitor) -> Result<LanguageModel> {
        let Some(model) = open else { return Ok(LanguageModel::find(&self.model, monitor)?) };
        model.check(&self.model)?;
        Ok(model.clone())
    }

    /// The contexts of `dataset` that training held out; `None` where it is not what the SAE was trained on, or what it
    /// was trained on is not known.
    ///
    /// # Errors
    /// When the manifest of `dataset` cannot be read.
    pub fn held_out(&self, dataset: &ActivationDataset) -> Result<Option<Range<u64>>> {
        match &self.manifest {
            Some(manifest) if manifest.activations.sha256() == Some(&dataset.manifest_sha256()?) => {
                Ok(Some(manifest.held_out.clone()))
            }
            _ => Ok(None),
        }
    }

    /// What evaluation and steering need of it.
    pub fn site(&self) -> Site<'_> {
        Site { sae: &self.sae, hook_point: self.hook_point, sink_norm: self.sink_norm }
    }
}

/// Where the SAE says that its activations are from; where it says nothing, what the user says.
fn place(sae: &Sae, given: Option<HookPoint>) -> Result<HookPoint> {
    let hook_points = &sae.config().hook_points;
    match (hook_points.reads().first().copied(), given) {
        (None, Some(given)) => Ok(given),
        (Some(said), Some(given)) if said != given => {
            let expected = format!("{said}, which the SAE says itself, or no `hook_point`");
            Err(harvester::Error::invalid("`hook_point`", expected, given.to_string()).into())
        }
        _ => Ok(hook_points.first_read()?),
    }
}
