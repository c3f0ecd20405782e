//! What [`SaeArgs`] name: the SAE, placed in its model, and the activations that it is used on.

use std::path::Path;

use analyzer::PlacedSae;
use anyhow::Context;
use harvester::{ActivationDataset, Location};
use trainer::SaeManifest;

use crate::cli::SaeArgs;

impl SaeArgs {
    /// An SAE that refract trained, on the activations that it was trained on.
    pub(crate) fn trained(sae: &Path) -> Self {
        Self { sae: sae.to_path_buf(), activations: None, hook_point: None }
    }

    /// The SAE and the activations named, or those that it was trained on.
    pub(crate) fn open(&self) -> anyhow::Result<(PlacedSae, ActivationDataset)> {
        if PlacedSae::is_ours(&self.sae) {
            let placed = self.ours()?;
            let dataset = self.dataset(&placed)?;
            return Ok((placed, dataset));
        }
        let activations = self.activations.as_deref().with_context(|| {
            let sae = self.sae.display();
            format!("{sae} is no SAE that refract trained: name activations of its model with --activations")
        })?;
        let dataset = ActivationDataset::open(Location::named(activations)?)?;
        Ok((PlacedSae::on(&self.sae, &dataset, self.hook_point)?, dataset))
    }

    /// The SAE alone; activations are opened only where they are named: of its model they must be in any case.
    pub(crate) fn place(&self) -> anyhow::Result<PlacedSae> {
        if !PlacedSae::is_ours(&self.sae) {
            return Ok(self.open()?.0);
        }
        let placed = self.ours()?;
        if let Some(dir) = &self.activations {
            placed.check_model(&ActivationDataset::open(Location::named(dir)?)?)?;
        }
        Ok(placed)
    }

    fn ours(&self) -> anyhow::Result<PlacedSae> {
        let placed = PlacedSae::trained(&self.sae)?;
        if let Some(point) = self.hook_point.filter(|point| *point != placed.hook_point) {
            let (sae, trained) = (self.sae.display(), placed.hook_point);
            anyhow::bail!("--hook-point: expected {trained}, where {sae} was trained, found {point}");
        }
        Ok(placed)
    }

    /// The activations given, or those that the SAE was trained on: the same ones, not others put in their place.
    fn dataset(&self, placed: &PlacedSae) -> anyhow::Result<ActivationDataset> {
        let (Some(manifest), None) = (&placed.manifest, &self.activations) else {
            let dir = self.activations.as_deref().context("name activations with --activations")?;
            return Ok(ActivationDataset::open(Location::named(dir)?)?);
        };
        manifest.open_activations(&self.sae).context("name others, or where they are now, with --activations")
    }
}

/// Whether an SAE was trained on exactly these activations.
pub(crate) fn is_trained_on(manifest: &SaeManifest, dataset: &ActivationDataset) -> anyhow::Result<bool> {
    Ok(Some(dataset.manifest_sha256()?.as_str()) == manifest.activations.sha256())
}
