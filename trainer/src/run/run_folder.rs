//! The manifest of a run that begins.

use std::{ops::Range, path::Path};

use harvester::{ActivationDataset, ArtifactRef, Manifest};

use crate::{
    Result, SaeManifest,
    config::Resolved,
    data::training_data::{Provenance, TrainingData},
    run::initial_weights,
};

impl SaeManifest {
    /// The manifest of a new run on a running model in `out`: its facts about the data come from the held-out
    /// activations.
    pub(crate) fn begin_live(
        held_out: &ActivationDataset,
        data: &dyn TrainingData,
        resolved: &Resolved,
        out: &Path,
    ) -> Result<Self> {
        let contexts = held_out.context_end;
        let live_from = held_out.manifest.parts.last().map(|part| part.next);
        Ok(Self { live_from, ..Self::begin(data, resolved, 0..contexts, out)? }.identified())
    }

    /// The manifest of a new run in `out`.
    pub(crate) fn begin(
        data: &dyn TrainingData,
        resolved: &Resolved,
        held_out: Range<u64>,
        out: &Path,
    ) -> Result<Self> {
        let Provenance { manifest_sha256, model, vectors, sink_norm, bos } = data.provenance()?;
        let begun = Self {
            format: Self::FORMAT.into(),
            version: Self::VERSION,
            refract_version: env!("CARGO_PKG_VERSION").into(),
            run_id: String::new(),
            complete: false,
            activations: ArtifactRef::new(out, data.location(), manifest_sha256),
            vectors,
            model: model.map(|model| model.seen_from(&out.into())),
            recorded_points: (&resolved.config).into(),
            d_in: resolved.d_in,
            d_sae: resolved.d_sae,
            held_out,
            live_from: None,
            sink_norm,
            bos,
            config: resolved.config.clone(),
            init_from: initial_weights::files(&resolved.config)?,
            init_sparsity_coefficient: initial_weights::last_coefficient(&resolved.config),
            diverged: None,
            results: None,
        };
        Ok(begun.identified())
    }
}
