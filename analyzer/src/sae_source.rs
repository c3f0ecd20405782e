//! [`SaeSource`]: the user's choice of an SAE, of its model and of the activations on which it is used.

use std::path::{Path, PathBuf};

use harvester::{ActivationDataset, Compute, Error as Harvester, HookPoint, LanguageModel, Location, Monitor};
use serde::{Deserialize, Serialize};

use crate::{Error, FeatureIndex, PlacedSae, Result, Workbench, artifact::ArtifactKind};

/// An SAE, its model, and the activations on which it is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SaeSource {
    /// The folder that training wrote, or an SAE of another tool.
    pub sae: PathBuf,
    /// Activations of its model. Default: those that it was trained on. They must be given for an SAE of another tool.
    #[serde(default)]
    pub activations: Option<PathBuf>,
    /// The hook point of its activations, for an SAE of another tool that does not name it.
    #[serde(default)]
    pub hook_point: Option<HookPoint>,
    /// The present place of its model, a [`ModelSource`](harvester::ModelSource). Default: where the model was when the SAE was trained.
    #[serde(default)]
    pub model: Option<String>,
    /// True to use the SAE on a model that it was not trained on, of the same width: that of `activations`, or `model`.
    #[serde(default)]
    pub other_model: bool,
}

impl SaeSource {
    /// An SAE that refract trained, used on the activations that it was trained on.
    pub fn trained(sae: impl Into<PathBuf>) -> Self {
        Self { sae: sae.into(), ..Self::default() }
    }

    /// Opens the SAE, and either the given activations or those that it was trained on. `opened` is its model, if the
    /// caller has opened that already.
    ///
    /// # Errors
    /// As [`PlacedSae::trained`] and [`PlacedSae::on`]; when there are no such activations; or when `model` is another
    /// model than the SAE's.
    pub fn open(
        &self,
        opened: Option<&LanguageModel>,
        monitor: &dyn Monitor,
    ) -> Result<(Workbench, ActivationDataset)> {
        let (given, model) = (self.given_activations()?, self.model(opened, monitor)?);
        if !self.is_ours()? {
            let dataset = given.ok_or_else(|| {
                let hint = "Name activations of its model with `activations`";
                Harvester::malformed(&self.sae, "an SAE that refract trained", "one of another tool", hint)
            })?;
            let sae = PlacedSae::on(&self.sae, &dataset, self.hook_point)?;
            return Ok((self.bench(sae, Some(&dataset), model)?, dataset));
        }
        if self.other_model && given.is_none() {
            let why = "without `activations` of the other model".into();
            return Err(Harvester::NoEffect { setting: "other_model", why }.into());
        }
        let sae = self.ours()?;
        let dataset = match given {
            Some(dataset) => dataset,
            None => {
                let manifest = sae.manifest.as_ref().expect("read by PlacedSae::trained");
                let moved = |error: trainer::Error| Error::ActivationsMoved(self.sae.clone(), error.into());
                manifest.open_activations(&self.sae).map_err(moved)?
            }
        };
        Ok((self.bench(sae, Some(&dataset), model)?, dataset))
    }

    /// Opens only the SAE. Activations are opened only if they are given, to check that they are of its model.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn workbench(&self, opened: Option<&LanguageModel>, monitor: &dyn Monitor) -> Result<Workbench> {
        if !self.is_ours()? {
            return Ok(self.open(opened, monitor)?.0);
        }
        let given = self.given_activations()?;
        let bench = self.bench(self.ours()?, given.as_ref(), self.model(opened, monitor)?)?;
        given.iter().try_for_each(|dataset| bench.sae().check_model(dataset))?;
        Ok(bench)
    }

    /// True if refract trained the SAE, so that its folder has a manifest; false if another tool did.
    fn is_ours(&self) -> Result<bool> {
        match ArtifactKind::of(&self.sae)? {
            ArtifactKind::Sae => Ok(true),
            ArtifactKind::ForeignSae(_) => Ok(false),
            other => {
                let hint = "Name the folder that training wrote, or the folder or file of another tool's SAE";
                Err(Harvester::malformed(&self.sae, "an SAE", other.to_string(), hint).into())
            }
        }
    }

    /// The model at the given place, else the one that is open already.
    fn model(&self, opened: Option<&LanguageModel>, monitor: &dyn Monitor) -> Result<Option<LanguageModel>> {
        let Some(source) = &self.model else { return Ok(opened.cloned()) };
        Ok(Some(LanguageModel::open(&source.parse()?, Compute::F32, monitor)?))
    }

    /// The SAE with its model.
    fn bench(
        &self,
        mut sae: PlacedSae,
        dataset: Option<&ActivationDataset>,
        model: Option<LanguageModel>,
    ) -> Result<Workbench> {
        if self.other_model {
            let other = match (dataset, &model) {
                (Some(dataset), _) => dataset.manifest.model.clone(),
                (None, Some(model)) => model.identity()?.clone(),
                (None, None) => {
                    let why = "without `activations` of the other model, or `model`".into();
                    return Err(Harvester::NoEffect { setting: "other_model", why }.into());
                }
            };
            sae.use_on(other, dataset)?;
        }
        Workbench::new(sae, model.as_ref())
    }

    fn given_activations(&self) -> Result<Option<ActivationDataset>> {
        let open = |dir: &PathBuf| Ok(ActivationDataset::open(Location::named(dir)?)?);
        self.activations.as_ref().map(open).transpose()
    }

    fn ours(&self) -> Result<PlacedSae> {
        let placed = PlacedSae::trained(&self.sae)?;
        match self.hook_point {
            Some(point) if point != placed.hook_point => {
                let expected = format!("{}, where {} was trained", placed.hook_point, self.sae.display());
                Err(Harvester::invalid("`hook_point`", expected, point.to_string()).into())
            }
            _ => Ok(placed),
        }
    }
}

impl FeatureIndex {
    /// The SAE that was indexed with its model, which is `model` if that is open already. An SAE that has moved is at
    /// `sae`; one of another tool also needs `activations`.
    ///
    /// # Errors
    /// When the SAE is not where it was, or cannot be read.
    pub fn workbench(
        &self,
        sae: Option<&Path>,
        activations: Option<&Path>,
        model: Option<&LanguageModel>,
        monitor: &dyn Monitor,
    ) -> Result<Workbench> {
        if sae.is_none() && activations.is_none() {
            return Workbench::new(self.manifest().placed_sae(self.dir())?, model);
        }
        let sae = sae.map_or_else(|| self.manifest().sae.shown(self.dir()).into(), Path::to_path_buf);
        let activations = activations.map(Path::to_path_buf);
        SaeSource { activations, ..SaeSource::trained(sae) }.workbench(model, monitor)
    }
}
