//! [`Checkpoint`]: everything a run needs to go on as if it had never stopped: weights, moments, the count of silent
//! tokens of each latent, the step and the place in the data. One safetensors file a checkpoint, written whole; the
//! last two are kept.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    adam::Moments,
    shuffle_buffer::Cursor,
    step::Learner,
    tensors::{Tensor, TensorFile, write_tensors},
};

/// Folder of the checkpoints in a run's folder.
const FOLDER: &str = "checkpoints";
/// How many are kept.
const KEPT: usize = 2;
/// Key of [`Progress`] in the file's header.
const NOTE: &str = "progress";

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: u64,
    /// The next row.
    pub(crate) cursor: Cursor,
    /// Loss of the last step.
    pub(crate) loss: f64,
    /// The last batch's fraction of variance unexplained.
    pub(crate) fvu: f64,
    /// Weight of the sparsity loss.
    pub(crate) sparsity_coefficient: f64,
}

/// Saves `learner` after `progress.step` steps and removes all but the last checkpoints.
pub(crate) fn save(dir: &Path, learner: &Learner, progress: Progress) -> Result<()> {
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let (weights, adam) = (&learner.weights, &learner.adam);
    let mut tensors = vec![Tensor::u64("tokens_since_fired", &learner.dead_latents.tokens_since_fired)];
    let mut put = |name: &str, values: &[f32], moments: &Moments| {
        let shape = [values.len()];
        tensors.push(Tensor::f32(name, &shape, values));
        tensors.push(Tensor::f32(&format!("{name}.m"), &shape, &moments.m));
        tensors.push(Tensor::f32(&format!("{name}.v"), &shape, &moments.v));
    };
    put("w_enc", &weights.w_enc, &adam.w_enc);
    put("b_enc", &weights.b_enc, &adam.b_enc);
    put("w_dec", &weights.w_dec, &adam.w_dec);
    put("b_dec", &weights.b_dec, &adam.b_dec);
    for (parameter, moments) in weights.extra.iter().zip(&adam.extra) {
        put(parameter.name, &parameter.values, moments);
    }
    let path = folder.join(format!("step-{:09}.safetensors", progress.step));
    let note = serde_json::to_string(&progress).map_err(|error| Error::io("write", &path)(error.into()))?;
    write_tensors(&path, tensors, Some((NOTE, note)))?;
    let found = list(dir)?;
    for old in &found[..found.len().saturating_sub(KEPT)] {
        fs::remove_file(old).map_err(Error::io("remove", old))?;
    }
    Ok(())
}

/// Puts the last checkpoint into `learner`; `None` where there is none.
pub(crate) fn restore(dir: &Path, learner: &mut Learner) -> Result<Option<Progress>> {
    let Some(path) = list(dir)?.pop() else { return Ok(None) };
    let mut file = TensorFile::read(&path)?;
    let progress: Progress = serde_json::from_str(&file.note(NOTE)?).map_err(|error| {
        Error::malformed(&path, "a checkpoint", error.to_string(), "Remove this file to go on from the one before")
    })?;
    let mut take = |name: &str, weights: &mut Vec<f32>, moments: &mut Moments| {
        let shape = [weights.len()];
        *weights = file.take_f32(name, &shape)?;
        *moments = Moments {
            m: file.take_f32(&format!("{name}.m"), &shape)?,
            v: file.take_f32(&format!("{name}.v"), &shape)?,
        };
        Ok::<_, Error>(())
    };
    let (weights, adam) = (&mut learner.weights, &mut learner.adam);
    take("w_enc", &mut weights.w_enc, &mut adam.w_enc)?;
    take("b_enc", &mut weights.b_enc, &mut adam.b_enc)?;
    take("w_dec", &mut weights.w_dec, &mut adam.w_dec)?;
    take("b_dec", &mut weights.b_dec, &mut adam.b_dec)?;
    for (parameter, moments) in weights.extra.iter_mut().zip(&mut adam.extra) {
        take(parameter.name, &mut parameter.values, moments)?;
    }
    let d_sae = weights.d_sae;
    learner.dead_latents.tokens_since_fired = file.take_u64("tokens_since_fired", d_sae)?;
    learner.sparsity.value = progress.sparsity_coefficient;
    learner.restored();
    learner.adam.step = progress.step;
    file.end()?;
    Ok(Some(progress))
}

/// The checkpoints of a run, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", &folder)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(Error::io("list", &folder))?.path();
        // A temporary file of an interrupted write ends otherwise.
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            found.push(path);
        }
    }
    // The step has leading zeros: the order of names is that of steps.
    found.sort();
    Ok(found)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{activation_source::BlockPlace, architecture::TrainArchitecture, kernels::plain, step::StepConfig};

    fn learner(architecture: TrainArchitecture) -> Learner {
        let config = StepConfig { dead_after_tokens: 50, ..StepConfig::example(architecture, 3, 8, 40) };
        Learner::start(40, vec![0.1; config.row_width(8)], 1, config)
    }

    fn goes_on_to_the_same_bits(architecture: TrainArchitecture) {
        let dir = tempfile::tempdir().unwrap();
        let width = learner(architecture).weights.row_width();
        let batch = |step: u64| plain::random(30 * width, step);
        let mut whole = learner(architecture);
        for step in 0..6 {
            whole.step(&batch(step), 1e-3);
            if step == 2 {
                let cursor = Cursor { place: BlockPlace { epoch: 1, block: 2 }, row: 3, began_at: None };
                let sparsity_coefficient = whole.sparsity.value;
                save(dir.path(), &whole, Progress { step: 3, cursor, loss: 0.1, fvu: 0.1, sparsity_coefficient })
                    .unwrap();
            }
        }
        let mut resumed = learner(architecture);
        let progress = restore(dir.path(), &mut resumed).unwrap().unwrap();
        assert_eq!((progress.step, progress.cursor.row), (3, 3));
        for step in 3..6 {
            resumed.step(&batch(step), 1e-3);
        }
        assert!(resumed.weights == whole.weights && resumed.adam == whole.adam, "{architecture}");
        assert_eq!((resumed.dead_latents, resumed.sparsity), (whole.dead_latents, whole.sparsity), "{architecture}");
    }

    #[test]
    fn a_restored_learner_goes_on_to_the_same_bits() {
        TrainArchitecture::ALL.into_iter().for_each(goes_on_to_the_same_bits);
    }

    #[test]
    fn the_last_two_are_kept_and_the_last_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(restore(dir.path(), &mut learner(TrainArchitecture::TopK)).unwrap(), None);
        for step in [90, 100, 1000] {
            save(dir.path(), &learner(TrainArchitecture::TopK), Progress { step, ..Progress::default() }).unwrap();
        }
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        assert_eq!(
            restore(dir.path(), &mut learner(TrainArchitecture::TopK)).unwrap().map(|progress| progress.step),
            Some(1000)
        );
    }

    #[test]
    fn a_damaged_checkpoint_is_named() {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path(), &learner(TrainArchitecture::TopK), Progress::default()).unwrap();
        let path = list(dir.path()).unwrap().pop().unwrap();
        fs::write(&path, &fs::read(&path).unwrap()[..500]).unwrap();
        let message = restore(dir.path(), &mut learner(TrainArchitecture::TopK)).unwrap_err().to_string();
        assert!(message.contains("step-000000000.safetensors"), "{message}");
    }
}
