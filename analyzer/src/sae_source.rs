//! [`SaeSource`]: the user's choice of an SAE, of its model and of the activations on which it is used.

use std::path::PathBuf;

use harvester::{
    ActivationDataset, Compute, Error as Harvester, HookPoint, LanguageModel, Location, ModelSource, Monitor,
};
use serde::{Deserialize, Serialize};

use crate::{Error, PlacedSae, Result, Workbench, artifact::ArtifactKind};

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
    /// The present place of its model, a [`ModelSource`]. Default: where the model was when the SAE was trained.
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
        let given = self.given_activations()?;
        if !self.is_ours()? {
            let dataset = given.ok_or_else(|| {
                let hint = "Name activations of its model with `activations`";
                Harvester::malformed(&self.sae, "an SAE that refract trained", "one of another tool", hint)
            })?;
            let sae = PlacedSae::on(&self.sae, &dataset, self.hook_point)?;
            return Ok((self.bench(sae, Some(&dataset), (opened, monitor))?, dataset));
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
        Ok((self.bench(sae, Some(&dataset), (opened, monitor))?, dataset))
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
        let bench = self.bench(self.ours()?, given.as_ref(), (opened, monitor))?;
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

    /// The SAE with its model, which is opened now if its place is given, or if the SAE is used on another model.
    fn bench(
        &self,
        mut sae: PlacedSae,
        dataset: Option<&ActivationDataset>,
        (opened, monitor): (Option<&LanguageModel>, &dyn Monitor),
    ) -> Result<Workbench> {
        let open = |source: &String| -> Result<LanguageModel> {
            let resolved = source.parse::<ModelSource>()?.resolve(monitor)?;
            Ok(LanguageModel::open(&resolved, Compute::F32)?)
        };
        let model = self.model.as_ref().map(open).transpose()?.or(opened.cloned());
        if self.other_model {
            let other = match (dataset.filter(|_| self.activations.is_some()), &model) {
                (Some(dataset), _) => dataset.manifest().model.clone(),
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
