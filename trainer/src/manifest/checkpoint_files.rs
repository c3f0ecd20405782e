//! The names of the checkpoints in a run's folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harvester::{Error, Result};

/// Subfolder of the checkpoints.
pub(crate) const FOLDER: &str = "checkpoints";

/// File name of the checkpoint after `step` steps. With leading zeros, names sort in the order of steps.
pub(crate) fn name(step: u64) -> String {
    format!("step-{step:09}.safetensors")
}

/// The step of a file named by [`name`].
pub(crate) fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".safetensors")?;
    digits.parse().ok().filter(|step| name(*step) == format!("step-{digits}.safetensors"))
}

/// The checkpoints of a run, oldest first.
pub(crate) fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    // Temporary files of an interrupted write and a user's copies have other names.
    let mut found: Vec<_> = entries(dir)?.into_iter().filter(|path| step_of(path).is_some()).collect();
    found.sort();
    Ok(found)
}

/// All entries of the folder of checkpoints; none if the folder does not exist.
pub(crate) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let folder = dir.join(FOLDER);
    match fs::read_dir(&folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(Error::io("list", &folder))?.path())).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(vec![]),
        Err(error) => Err(Error::io("list", &folder)(error)),
    }
}
