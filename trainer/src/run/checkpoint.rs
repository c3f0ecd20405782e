//! [`save`] and [`restore`]: everything a run needs to continue as if it had never stopped: weights, moments, each
//! latent's tokens since it was last active, the step and the position in the data. A checkpoint is one safetensors
//! file, written whole. Saving removes nothing: older checkpoints are removed once a newer one is known to be good, and
//! bad ones when the run diverges.
//!
//! Each checkpoint names its run and has a SHA-256 of its whole content. If a checkpoint is damaged, the next older one
//! is restored, which costs only some steps. A checkpoint of another run is refused, because training would continue
//! with the other run's weights.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    data::shuffle_buffer::Cursor,
    manifest::checkpoint_files::{FOLDER, entries, list, name, step_of},
    run::health::Health,
    step::{Learner, adam::Moments},
    tensors::{Tensor, TensorFile, sha256_of, write_tensors},
};

/// Key of [`Header`] in the file's own header.
const NOTE: &str = "refract";
/// The hint if every checkpoint is damaged.
const HINT: &str = "Remove the folder `checkpoints` to start the run again from the beginning";

/// Our part of the file's header.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// [`Note`], as the hashed text.
    note: String,
    /// SHA-256 of that text and the tensors.
    sha256: String,
}

/// The run and its progress.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// [`crate::SaeManifest::run_id`].
    run: String,
    progress: Progress,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps done.
    pub(crate) step: u64,
    /// Position of the next row.
    pub(crate) cursor: Cursor,
    /// Fraction of variance unexplained of the last batch.
    pub(crate) fvu: f64,
    /// Weight of the sparsity loss.
    pub(crate) sparsity_coefficient: f64,
    /// History of the steps so far.
    #[serde(default)]
    pub(crate) health: Health,
}

/// True if all weights and moments are finite. One pass without hashes and branches: it takes a few milliseconds,
/// writing a checkpoint takes hundreds.
pub(crate) fn is_finite(learner: &Learner) -> bool {
    parameters(learner)
        .flat_map(|(_, values, moments)| [values, &moments.m, &moments.v])
        .all(|values| values.iter().fold(true, |all, value| all & value.is_finite()))
}

/// Every parameter and its moments, with its name in the file.
fn parameters(learner: &Learner) -> impl Iterator<Item = (&str, &[f32], &Moments)> {
    let (weights, adam) = (&learner.weights, &learner.adam);
    let all = [
        ("w_enc", &weights.w_enc[..], &adam.w_enc),
        ("b_enc", &weights.b_enc, &adam.b_enc),
        ("w_dec", &weights.w_dec, &adam.w_dec),
        ("b_dec", &weights.b_dec, &adam.b_dec),
    ];
    let extra = weights.extra.iter().zip(&adam.extra);
    all.into_iter().chain(extra.map(|(parameter, moments)| (parameter.name, &parameter.values[..], moments)))
}

/// Saves `learner` after `progress.step` steps of `run`.
pub(crate) fn save(dir: &Path, run: &str, learner: &Learner, progress: Progress) -> Result<()> {
    let folder = dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut tensors = vec![Tensor::u64("tokens_since_fired", &learner.dead_latents.tokens_since_fired)];
    for (name, values, moments) in parameters(learner) {
        let shape = [values.len()];
        tensors.push(Tensor::f32(name, &shape, values));
        tensors.push(Tensor::f32(&format!("{name}.m"), &shape, &moments.m));
        tensors.push(Tensor::f32(&format!("{name}.v"), &shape, &moments.v));
    }
    let path = folder.join(name(progress.step));
    let note = as_json(&Note { run: run.into(), progress }, &path)?;
    let sha256 = sha256_of(&note, &tensors);
    let header = as_json(&Header { note, sha256 }, &path)?;
    write_tensors(&path, tensors, Some((NOTE, header)))
}

fn as_json(value: &impl Serialize, path: &Path) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::io("write", path)(error.into()))
}

/// Removes all but the last `keep` checkpoints.
pub(crate) fn keep_last(dir: &Path, keep: usize) -> Result<()> {
    let found = list(dir)?;
    found[..found.len().saturating_sub(keep)].iter().try_for_each(|path| remove(path))
}

/// Removes the checkpoints of `step` and later steps, and returns the last one before them.
pub(crate) fn remove_from(dir: &Path, step: u64) -> Result<Option<PathBuf>> {
    let first = dir.join(FOLDER).join(name(step));
    let (good, bad): (Vec<_>, Vec<_>) = list(dir)?.into_iter().partition(|path| *path < first);
    bad.iter().try_for_each(|path| remove(path))?;
    Ok(good.into_iter().next_back())
}

fn remove(path: &Path) -> Result<()> {
    fs::remove_file(path).map_err(Error::io("remove", path))
}

/// Puts the last undamaged checkpoint of `run` into `learner`; returns `None` if there is no checkpoint at all. Damaged
/// ones after it are renamed, so that they do not count among those to keep. Files of an interrupted save are removed.
pub(crate) fn restore(dir: &Path, run: &str, learner: &mut Learner) -> Result<Option<Progress>> {
    remove_leftovers(dir)?;
    let mut damaged: Vec<(PathBuf, Error)> = vec![];
    for path in list(dir)?.into_iter().rev() {
        match open(&path) {
            Ok((_, note)) if note.run != run => {
                let hint = "Remove this file: it was copied from another run's folder";
                let expected = "a checkpoint of the run in this folder";
                return Err(Error::malformed(path, expected, "a checkpoint of another run", hint));
            }
            Ok((file, note)) => {
                put_into(learner, file, &note.progress)?;
                damaged.iter().try_for_each(|(path, _)| set_aside(path))?;
                return Ok(Some(note.progress));
            }
            Err(error @ Error::Harvester(harvester::Error::Malformed { .. })) => damaged.push((path, error)),
            Err(error) => return Err(error),
        }
    }
    damaged.into_iter().next().map_or(Ok(None), |(_, error)| Err(error))
}

fn set_aside(path: &Path) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    tracing::warn!("{} is damaged: it is skipped and renamed to end in .damaged", path.display());
    fs::rename(path, &aside).map_err(Error::io("rename", path))
}

/// Opens a checkpoint and checks its checksum and its name.
fn open(path: &Path) -> Result<(TensorFile, Note)> {
    let file = TensorFile::read(path, HINT)?;
    let damaged = |expected: &str, found: String| Error::malformed(path, expected, found, HINT);
    let unread = |error: serde_json::Error| damaged("a checkpoint", error.to_string());
    let Header { note, sha256 } = serde_json::from_str(&file.note(NOTE)?).map_err(unread)?;
    let found = file.sha256(&note)?;
    if found != sha256 {
        return Err(damaged(&format!("content of SHA-256 {sha256}"), found));
    }
    let note: Note = serde_json::from_str(&note).map_err(unread)?;
    if path.file_name().is_none_or(|found| found != name(note.progress.step).as_str()) {
        return Err(damaged("the step in its file name", format!("step {}", note.progress.step)));
    }
    Ok((file, note))
}

fn put_into(learner: &mut Learner, mut file: TensorFile, progress: &Progress) -> Result<()> {
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
    file.end()
}

/// Removes the temporary files of a killed save. Nothing else would, if no checkpoint of the same step follows.
fn remove_leftovers(dir: &Path) -> Result<()> {
    let is_left = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "tmp") && step_of(&path.with_extension("")).is_some()
    };
    entries(dir)?.iter().filter(|path| is_left(path)).try_for_each(|path| remove(path))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        data::activation_source::BlockPlace,
        kernels::plain,
        step::{architecture::TrainArchitecture, config::StepConfig},
    };

    const RUN: &str = "this run";

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
                let progress =
                    Progress { step: 3, cursor, sparsity_coefficient: whole.sparsity.value, ..Progress::default() };
                save(dir.path(), RUN, &whole, progress).unwrap();
            }
        }
        let mut resumed = learner(architecture);
        let progress = restore(dir.path(), RUN, &mut resumed).unwrap().unwrap();
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
    fn the_last_ones_are_kept_and_the_last_is_restored() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(restore(dir.path(), RUN, &mut learner(TrainArchitecture::TopK)).unwrap(), None);
        for step in [90, 100, 1000] {
            let progress = Progress { step, ..Progress::default() };
            save(dir.path(), RUN, &learner(TrainArchitecture::TopK), progress).unwrap();
        }
        for stray in ["step-abc.safetensors", "step-2000.safetensors", "step-000000100 (copy).safetensors"] {
            fs::write(dir.path().join(FOLDER).join(stray), "not ours").unwrap();
        }
        assert_eq!(list(dir.path()).unwrap().len(), 3, "saving removes nothing");
        keep_last(dir.path(), 2).unwrap();
        assert_eq!(list(dir.path()).unwrap().len(), 2);
        let last =
            || restore(dir.path(), RUN, &mut learner(TrainArchitecture::TopK)).unwrap().map(|progress| progress.step);
        assert_eq!(last(), Some(1000));
        let good = remove_from(dir.path(), 101).unwrap();
        assert_eq!(good, Some(dir.path().join("checkpoints/step-000000100.safetensors")));
        assert_eq!(last(), Some(100));
        assert_eq!(remove_from(dir.path(), 100).unwrap(), None);
        assert_eq!(last(), None);
    }

    #[test]
    fn a_single_number_that_is_none_is_seen() {
        assert!(is_finite(&learner(TrainArchitecture::TopK)));
        let spoiled: [fn(&mut Learner); 4] = [
            |learner| learner.weights.w_enc[17] = f32::NAN,
            |learner| learner.weights.b_dec[7] = f32::INFINITY,
            |learner| learner.adam.w_dec.m[319] = f32::NAN,
            |learner| learner.adam.b_enc.v[0] = f32::INFINITY,
        ];
        for spoil in spoiled {
            let mut learner = learner(TrainArchitecture::TopK);
            spoil(&mut learner);
            assert!(!is_finite(&learner));
        }
    }

    /// The error of restoring the only checkpoint of a folder.
    fn refused(dir: &Path, run: &str, architecture: TrainArchitecture, d_sae: usize) -> String {
        let config = StepConfig::example(architecture, 3, 8, d_sae);
        let mut learner = Learner::start(d_sae, vec![0.1; 8], 1, config);
        let message = restore(dir, run, &mut learner).unwrap_err().to_string();
        assert!(message.contains("step-000000001.safetensors"), "{message}");
        assert!(message.contains("Remove"), "{message}");
        message
    }

    #[test]
    fn a_checkpoint_that_is_not_this_runs_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let progress = Progress { step: 1, ..Progress::default() };
        save(dir.path(), RUN, &learner(TrainArchitecture::JumpRelu), progress).unwrap();
        let narrow = refused(dir.path(), RUN, TrainArchitecture::JumpRelu, 39);
        assert!(narrow.contains("w_enc of shape [312], found [320]"), "{narrow}");
        let left = refused(dir.path(), RUN, TrainArchitecture::TopK, 40);
        assert!(left.contains("found also threshold, threshold.m, threshold.v"), "{left}");
        let other = refused(dir.path(), "another run", TrainArchitecture::JumpRelu, 40);
        assert!(other.contains("a checkpoint of the run in this folder, found a checkpoint of another run"), "{other}");
    }

    #[test]
    fn a_damaged_checkpoint_is_named_and_an_older_one_restored() {
        let dir = tempfile::tempdir().unwrap();
        let learner = || learner(TrainArchitecture::JumpRelu);
        save(dir.path(), RUN, &learner(), Progress { step: 1, ..Progress::default() }).unwrap();
        let path = list(dir.path()).unwrap().pop().unwrap();
        let bytes = fs::read(&path).unwrap();
        let mut flipped = bytes.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let header = String::from_utf8_lossy(&bytes).find("sparsity_coefficient").unwrap();
        let mut other_header = bytes.clone();
        other_header[header] = b'z';
        let damages = [
            (&bytes[..bytes.len() - 1], "a complete safetensors file"),
            (&flipped[..], "content of SHA-256"),
            (&other_header[..], "content of SHA-256"),
            (&[], "complete"),
        ];
        for (damaged, expected) in damages {
            fs::write(&path, damaged).unwrap();
            let message = refused(dir.path(), RUN, TrainArchitecture::JumpRelu, 40);
            assert!(message.contains(expected), "{message}");
        }
        fs::write(&path, &bytes).unwrap();
        let renamed = path.with_file_name(name(7));
        fs::write(&renamed, &bytes).unwrap();
        let message = open(&renamed).err().unwrap().to_string();
        assert!(message.contains("expected the step in its file name, found step 1"), "{message}");
        fs::write(path.with_file_name(name(8)), &flipped).unwrap();
        let left = path.with_file_name(format!("{}.tmp", name(9)));
        fs::write(&left, &bytes[..100]).unwrap();
        let restored = restore(dir.path(), RUN, &mut learner()).unwrap();
        assert_eq!(restored.map(|progress| progress.step), Some(1), "steps 7 and 8 are damaged");
        keep_last(dir.path(), 1).unwrap();
        assert_eq!(list(dir.path()).unwrap(), [path], "damaged ones do not count among those to keep");
        assert!(renamed.with_extension("safetensors.damaged").is_file() && !left.exists());
    }
}
