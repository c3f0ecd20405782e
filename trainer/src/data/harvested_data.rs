//! [`HarvestedData`]: a folder written by `harvest`, as [`TrainingData`]. Its last contexts are held out.

use harvester::{ActivationDataset, Location, SpecialToken};

use crate::{
    Result,
    data::{
        activations::{Activations, split},
        rows::RowSource,
        training_data::{ColumnSummary, HeldOut, Label, Provenance, Split, TrainingData},
    },
    sae::HookPoints,
};

/// Some columns of a harvested folder.
#[derive(Debug)]
pub(crate) struct HarvestedData<'a> {
    dataset: &'a ActivationDataset,
    hook_points: HookPoints,
}

impl<'a> HarvestedData<'a> {
    /// The folder must have all of `hook_points`.
    pub(crate) fn new(dataset: &'a ActivationDataset, hook_points: HookPoints) -> Self {
        Self { dataset, hook_points }
    }

    /// All usable rows, for a folder that contains only held-out contexts.
    pub(crate) fn all(&self) -> Result<Box<dyn RowSource + '_>> {
        Ok(Box::new(Activations::all(self.dataset, &self.hook_points.columns())?))
    }
}

impl TrainingData for HarvestedData<'_> {
    fn location(&self) -> &Location {
        &self.dataset.location
    }

    fn hook_points(&self) -> HookPoints {
        self.hook_points.clone()
    }

    fn columns(&self) -> Result<Vec<ColumnSummary<'_>>> {
        let manifest = &self.dataset.manifest;
        let summaries = self.hook_points.columns().into_iter().map(|point| {
            let summary = manifest.hook_point(point)?;
            Ok(ColumnSummary { name: point.to_string(), mean: &summary.mean, std: &summary.std })
        });
        summaries.collect()
    }

    fn split(&self, wanted: HeldOut) -> Result<Split<'_>> {
        let (training, held_out) = split(self.dataset, &self.hook_points.columns(), wanted.fraction)?;
        let held_out_contexts = held_out.contexts();
        Ok(Split { training: Box::new(training), held_out: Box::new(held_out), held_out_contexts })
    }

    fn provenance(&self) -> Result<Provenance> {
        let manifest = &self.dataset.manifest;
        let (first, _) = self.hook_points.ends();
        Ok(Provenance {
            manifest_sha256: Some(self.dataset.manifest_sha256()?),
            model: Some(manifest.model.clone()),
            vectors: None,
            sink_norm: first.map_or(Ok(f32::MAX), |point| manifest.hook_point(point).map(|it| it.sink_norm))?,
            bos: Some(manifest.config.bos),
        })
    }

    fn label(&self) -> Label {
        let manifest = &self.dataset.manifest;
        Label {
            model_name: manifest.model.public_name(),
            ctx_len: Some(manifest.config.ctx_len),
            prepend_bos: manifest.config.bos != SpecialToken::None,
            dataset: manifest.corpus.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}
