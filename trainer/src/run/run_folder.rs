//! The folder of a run: what its manifest says when it begins, and whether a folder that is there holds the same run.

use std::{ops::Range, path::Path};

use harvester::{ActivationDataset, FORMAT_VERSION, MANIFEST_FILE};

use crate::{
    Result, SaeManifest,
    config::Resolved,
    data::training_data::{Provenance, TrainingData},
    manifest::{HELD_OUT_FOLDER, SAE_FORMAT},
    run::{checkpoint, initial_weights, own_folder::refuse_foreign},
};

impl SaeManifest {
    /// Whether the run in `dir` has a checkpoint to go on from; without one it begins again.
    ///
    /// # Errors
    /// When the folder of checkpoints cannot be listed.
    pub fn has_checkpoint(dir: &Path) -> Result<bool> {
        Ok(!checkpoint::list(dir)?.is_empty())
    }

    /// The manifest of a run on a running model that begins: what it knows of its data is what was held out, in `dir`.
    pub(crate) fn begin_live(
        held_out: &ActivationDataset,
        data: &dyn TrainingData,
        resolved: &Resolved,
    ) -> Result<Self> {
        let contexts = held_out.context_end();
        let live_from = held_out.manifest().parts.last().map(|part| part.next);
        let harvested = Self { run_id: String::new(), ..Self::begin(data, resolved, 0..contexts)? };
        Ok(Self { activations: HELD_OUT_FOLDER.into(), live_from, ..harvested }.identified())
    }

    /// The manifest of a run that begins.
    pub(crate) fn begin(data: &dyn TrainingData, resolved: &Resolved, held_out: Range<u64>) -> Result<Self> {
        let Provenance { path, manifest_sha256, model, vectors, sink_norm } = data.provenance()?;
        let begun = Self {
            format: SAE_FORMAT.into(),
            version: FORMAT_VERSION,
            refract_version: env!("CARGO_PKG_VERSION").into(),
            run_id: String::new(),
            complete: false,
            activations: path,
            activations_manifest_sha256: manifest_sha256,
            vectors,
            model,
            hook_point: resolved.config.hook_point,
            hook_points: resolved.config.hook_points.clone(),
            target_hook_point: resolved.config.target_hook_point,
            d_in: resolved.d_in,
            d_sae: resolved.d_sae,
            held_out,
            live_from: None,
            sink_norm,
            config: resolved.config.clone(),
            init_from: initial_weights::files(&resolved.config)?,
            init_sparsity_coefficient: initial_weights::last_coefficient(&resolved.config),
            diverged: None,
            results: None,
        };
        Ok(begun.identified())
    }
}

/// Refuses a folder that has no manifest and yet is not empty.
pub(crate) fn refuse_unfinished(out: &Path) -> Result<()> {
    let leftovers = [format!("{MANIFEST_FILE}.tmp"), HELD_OUT_FOLDER.to_string()];
    refuse_foreign(out, &leftovers, "train", "a manifest")
}

/// Begins a folder, or checks that the one that is there belongs to the same run; returns its manifest. Where nothing
/// was saved yet, another run may take the folder: none of the user's work is in it.
pub(crate) fn open_folder(out: &Path, wanted: SaeManifest) -> Result<SaeManifest> {
    if let Some(found) = find_run(out, &wanted)? {
        return Ok(found);
    }
    wanted.write(out)?;
    Ok(wanted)
}

/// The manifest of the run in `out`, if there is one, which is `wanted`'s. Changes nothing.
pub(crate) fn find_run(out: &Path, wanted: &SaeManifest) -> Result<Option<SaeManifest>> {
    if !out.join(MANIFEST_FILE).exists() {
        return if out.exists() { refuse_unfinished(out).map(|()| None) } else { Ok(None) };
    }
    let found = SaeManifest::read(out)?;
    let differences = found.differences(wanted);
    if differences.is_empty() {
        return Ok(Some(found));
    }
    if found.complete || SaeManifest::has_checkpoint(out)? {
        return Err(harvester::Error::OtherRun { path: out.to_path_buf(), differences }.into());
    }
    Ok(None)
}
