//! [`train`]: trains an SAE on a folder of activations. After an interruption, the same call resumes the run, with
//! bit-identical results. The config is checked against the data here; the loop is in [`crate::run`].

use std::path::Path;

use harvester::{ActivationDataset, Monitor, OutputFolder, StorageDtype, VectorDataset};

use crate::{
    Error, Result,
    config::{Resolved, TrainConfig},
    data::{
        harvested_data::HarvestedData,
        shard_source::ShardSource,
        standardize::Standard,
        training_data::{HeldOut, Split, TrainingData},
        vector_data::VectorData,
    },
    manifest::{SaeManifest, checkpoint_files},
    run::{Run, estimate, initial_weights, score::curve_rows},
    sae::{HookPoints, Sae},
};

/// The rows to train on.
#[derive(Debug, Clone, Copy)]
pub enum TrainData<'a> {
    /// A folder that `harvest` wrote.
    Harvested(&'a ActivationDataset),
    /// Vectors that any program wrote. The held-out rows are drawn one by one from the config's seed, because files may
    /// be sorted.
    Vectors(&'a VectorDataset),
}

impl<'a> From<&'a ActivationDataset> for TrainData<'a> {
    fn from(dataset: &'a ActivationDataset) -> Self {
        Self::Harvested(dataset)
    }
}

impl<'a> From<&'a VectorDataset> for TrainData<'a> {
    fn from(vectors: &'a VectorDataset) -> Self {
        Self::Vectors(vectors)
    }
}

impl<'a> TrainData<'a> {
    /// Number of rows, including held-out ones.
    pub(crate) fn n_rows(self) -> u64 {
        match self {
            Self::Harvested(dataset) => dataset.manifest.counts.tokens,
            Self::Vectors(vectors) => vectors.n_rows,
        }
    }

    /// Type of the values in memory.
    pub(crate) fn dtype(self) -> StorageDtype {
        match self {
            Self::Harvested(dataset) => dataset.manifest.config.dtype,
            Self::Vectors(vectors) => vectors.dtype,
        }
    }

    /// The activations that the run in `out` began with, if their folder has been extended since. A run without a
    /// checkpoint begins again, with all of them.
    pub(crate) fn begun_with(&self, out: &Path) -> Result<Option<ActivationDataset>> {
        let (Self::Harvested(dataset), Ok(begun)) = (self, SaeManifest::read(out)) else { return Ok(None) };
        let Some(sha256) = begun.activations.sha256.as_deref() else { return Ok(None) };
        let is_begun = begun.complete || !checkpoint_files::list(out)?.is_empty();
        if !is_begun || dataset.manifest_sha256()? == sha256 {
            return Ok(None);
        }
        let earlier = ActivationDataset::open_as(dataset.location.clone(), sha256)?;
        if earlier.manifest_sha256()? != sha256 {
            return Ok(None);
        }
        let (n, now) = (earlier.manifest.counts.tokens, dataset.manifest.counts.tokens);
        tracing::warn!("this run goes on with the {n} tokens that it began with; their folder has {now} now");
        Ok(Some(earlier))
    }

    /// The data at the hook points that `config` names.
    pub(crate) fn of(self, config: &TrainConfig) -> Result<Box<dyn TrainingData + 'a>> {
        match self {
            Self::Harvested(dataset) => {
                Ok(Box::new(HarvestedData::new(dataset, config.hook_points_in(&dataset.manifest)?)))
            }
            Self::Vectors(vectors) => {
                config.check_vectors(&vectors.location)?;
                Ok(Box::new(VectorData(vectors)))
            }
        }
    }
}

/// Trains an SAE on `data` into the folder `out`. An unfinished run with the same config is continued; a finished
/// one is left unchanged.
///
/// The data are checked only when they are opened: each manifest against its own checksum; each part's size, rows and
/// columns against the manifest. The contents of parts are not hashed: row groups are read in random order, and only
/// some hook points of each, so hashing would need a separate pass. [`ActivationDataset::verify`] makes that pass.
///
/// # Errors
/// When the config does not fit the activations, `out` holds another run, a file cannot be read or written, the run
/// diverges, or the user asked to stop. The last good checkpoint is kept in every case.
pub fn train<'a>(
    data: impl Into<TrainData<'a>>,
    config: &TrainConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<SaeManifest> {
    let rows = data.into();
    let is_finished = SaeManifest::read(out).is_ok_and(|begun| begun.complete);
    let begun_with = if is_finished { None } else { rows.begun_with(out)? };
    let rows = begun_with.as_ref().map_or(rows, TrainData::from);
    let data = &*rows.of(config)?;
    let resolved = resolve(config, data)?;
    let estimate = || estimate::of_rows(&resolved, rows.n_rows(), rows.dtype());
    // Before a row is read: it refuses what does not fit in memory.
    let estimated = if is_finished { None } else { Some(estimate()?) };
    let split = split(data, &resolved.config)?;
    let training = split.training.as_ref();
    let folder = OutputFolder::open(out)?;
    let wanted = SaeManifest::begin(data, &resolved, split.held_out_contexts, out)?;
    let estimate = || estimated.map_or_else(estimate, Ok);
    estimate::say_beginning(folder.find_run(&wanted)?.as_ref(), (config, &resolved), out, estimate, monitor)?;
    let manifest = folder.begin(wanted)?;
    if manifest.is_finished(out)? {
        return Ok(manifest);
    }
    folder.keep_command(monitor.command())?;
    let source = ShardSource::new(training, resolved.config.seed, resolved.config.buffer_bytes);
    let held_out = curve_rows(split.held_out.as_ref(), resolved.config.batch, &Standard::of(data)?.scales)?;
    let run = Run::open(data, &manifest, resolved, held_out, out, monitor)?;
    let manifest = run.complete(manifest, source, training.n_rows_at_most(), split.held_out.as_ref())?;
    folder.keep_command(None)?;
    Ok(manifest)
}

/// Checks the config against the data, and the SAE to begin from against both.
pub(crate) fn resolve(config: &TrainConfig, data: &dyn TrainingData) -> Result<Resolved> {
    let widths = data.columns()?.iter().map(|column| column.mean.len()).collect();
    resolve_widths(config, data.hook_points(), widths)
}

/// The same if the widths of the columns are known before the data.
pub(crate) fn resolve_widths(config: &TrainConfig, hook_points: HookPoints, widths: Vec<usize>) -> Result<Resolved> {
    let initial = config.init_from.as_deref().map(Sae::load).transpose()?;
    let d_sae = config.d_sae.or_else(|| initial.as_ref().map(Sae::d_sae));
    let mut resolved = TrainConfig { d_sae, ..config.clone() }.resolve(hook_points, widths)?;
    initial.iter().try_for_each(|sae| initial_weights::check_fits(sae, &resolved))?;
    resolved.initial = initial;
    Ok(resolved)
}

/// Splits the data into two parts. Refuses data that do not vary or do not fill a batch.
pub(crate) fn split<'a>(data: &'a dyn TrainingData, config: &TrainConfig) -> Result<Split<'a>> {
    Standard::of(data)?;
    let split = data.split(HeldOut { fraction: config.held_out_fraction, seed: config.seed })?;
    let (n, batch) = (split.training.n_rows_at_most(), config.batch);
    if n >= batch as u64 {
        return Ok(split);
    }
    let hint = "Train on more rows, or with a smaller `batch`";
    let expected = format!("at least a batch, {batch} rows, to train on");
    Err(Error::malformed(data.location().to_string(), expected, n.to_string(), hint))
}
