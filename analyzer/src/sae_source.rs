//! [`SaeSource`]: the user's choice of an SAE and of the activations on which it is used.

use std::path::PathBuf;

use harvester::{ActivationDataset, Error as Harvester, HookPoint, Location};
use serde::{Deserialize, Serialize};

use crate::{Error, PlacedSae, Result, artifact::ArtifactKind};

/// An SAE, and the activations on which it is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
}

impl SaeSource {
    /// An SAE that refract trained, used on the activations that it was trained on.
    pub fn trained(sae: impl Into<PathBuf>) -> Self {
        Self { sae: sae.into(), activations: None, hook_point: None }
    }

    /// Opens the SAE, and either the given activations or those that it was trained on.
    ///
    /// # Errors
    /// As [`PlacedSae::trained`] and [`PlacedSae::on`], or when there are no such activations.
    pub fn open(&self) -> Result<(PlacedSae, ActivationDataset)> {
        if !self.is_ours()? {
            let dataset = self.named()?.ok_or_else(|| {
                let hint = "Name activations of its model with `activations`";
                Harvester::malformed(&self.sae, "an SAE that refract trained", "one of another tool", hint)
            })?;
            return Ok((PlacedSae::on(&self.sae, &dataset, self.hook_point)?, dataset));
        }
        let placed = self.ours()?;
        let dataset = match self.named()? {
            Some(dataset) => dataset,
            None => {
                let manifest = placed.manifest.as_ref().expect("read by PlacedSae::trained");
                manifest.open_activations(&self.sae).map_err(|error| Error::ActivationsMoved(error.into()))?
            }
        };
        Ok((placed, dataset))
    }

    /// Opens only the SAE. Activations are opened only if they are given, to check that they are of its model.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn place(&self) -> Result<PlacedSae> {
        if !self.is_ours()? {
            return Ok(self.open()?.0);
        }
        let placed = self.ours()?;
        self.named()?.iter().try_for_each(|dataset| placed.check_model(dataset))?;
        Ok(placed)
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

    fn named(&self) -> Result<Option<ActivationDataset>> {
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
