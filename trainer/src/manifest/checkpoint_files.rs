//! The checkpoints in a run's folder, by name.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harvester::{Error, Result};

/// Folder of the checkpoints in a run's folder.
pub(crate) const FOLDER: &str = "checkpoints";

/// The file of the checkpoint after `step` steps. Leading zeros: the order of names is that of steps.
pub(crate) fn name(step: u64) -> String {
    format!("step-{step:09}.safetensors")
}

/// The step that a file of [`name`] is of.
pub(crate) fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?;
    digits.parse().ok().filter(|step| name(*step) == format!("step-{digits}.safetensors"))
}

/// The checkpoints of a run, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    // A temporary file of an interrupted write ends otherwise, and a user's copy is named otherwise.
    let mut found: Vec<_> = entries(dir)?.into_iter().filter(|path| step_of(path).is_some()).collect();
    found.sort();
    Ok(found)
}

/// Everything in the folder of checkpoints; nothing where there is none.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join(FOLDER);
    match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(Error::io("list", &folder))?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(Error::io("list", &folder)(error)),
    }
}
