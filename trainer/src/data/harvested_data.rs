//! [`HarvestedData`]: a folder written by `harvest`, as [`TrainingData`]. Its last contexts are held out.

use std::path::Path;

use harvester::ActivationDataset;

use crate::{
    Result,
    data::{
        activations::{Activations, split},
        columns::Columns,
        rows::RowSource,
        training_data::{ColumnSummary, HeldOut, Label, Provenance, Split, TrainingData},
    },
};

/// Some columns of a harvested folder.
#[derive(Debug)]
pub(crate) struct HarvestedData<'a> {
    dataset: &'a ActivationDataset,
    columns: Columns,
}

impl<'a> HarvestedData<'a> {
    /// The folder must have all of `columns`.
    pub(crate) fn new(dataset: &'a ActivationDataset, columns: Columns) -> Self {
        Self { dataset, columns }
    }

    /// All usable rows, for a folder that contains only held-out contexts.
    pub(crate) fn all(&self) -> Result<Box<dyn RowSource + '_>> {
        Ok(Box::new(Activations::all(self.dataset, &self.columns.all())?))
    }
}

impl TrainingData for HarvestedData<'_> {
    fn dir(&self) -> &Path {
        self.dataset.dir()
    }

    fn columns(&self) -> Result<Vec<ColumnSummary<'_>>> {
        let manifest = self.dataset.manifest();
        let summaries = self.columns.all().into_iter().map(|point| {
            let summary = manifest.hook_point(point)?;
            Ok(ColumnSummary { name: point.to_string(), mean: &summary.mean, std: &summary.std })
        });
        summaries.collect()
    }

    fn split(&self, wanted: HeldOut) -> Result<Split<'_>> {
        let (training, held_out) = split(self.dataset, &self.columns.all(), wanted.fraction)?;
        let held_out_contexts = held_out.contexts();
        Ok(Split { training: Box::new(training), held_out: Box::new(held_out), held_out_contexts })
    }

    fn provenance(&self) -> Result<Provenance> {
        let manifest = self.dataset.manifest();
        let sink_norms = self.columns.inputs.iter().map(|point| manifest.sink_norm(*point));
        Ok(Provenance {
            path: self.dataset.absolute()?,
            manifest_sha256: Some(self.dataset.manifest_sha256()?),
            model: Some(manifest.model.clone()),
            vectors: None,
            sink_norm: sink_norms.collect::<harvester::Result<Vec<_>>>()?.first().copied().unwrap_or(f32::MAX),
        })
    }

    fn label(&self) -> Label {
        let manifest = self.dataset.manifest();
        Label {
            hook_point: self.columns.inputs.first().copied(),
            model_name: manifest.model.source.clone(),
            ctx_len: Some(manifest.config.ctx_len),
            prepend_bos: manifest.config.bos.id().is_some(),
            dataset: manifest.corpus.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", "),
        }
    }
}
