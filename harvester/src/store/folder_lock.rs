//! [`create_folder`] and [`lock`]: create a folder on this machine and reserve it for one process.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::{Error, Result};

/// Creates an output folder and its parents.
///
/// # Errors
/// If it cannot be created, or its path is not a folder.
pub(super) fn create_folder(dir: &Path) -> Result<()> {
    let Err(error) = std::fs::create_dir_all(dir) else { return Ok(()) };
    let refused = |found: String| Error::malformed(dir, "a folder to write, or nothing yet", found, CHOOSE_ANOTHER);
    match (std::fs::symlink_metadata(dir), dir.exists()) {
        (Ok(there), false) if there.is_symlink() => {
            let to = std::fs::read_link(dir).map_or_else(|_| "elsewhere".to_string(), |to| to.display().to_string());
            Err(refused(format!("a link to {to}, which does not exist")))
        }
        (Ok(there), _) if there.is_dir() => Err(Error::io("create", dir)(error)),
        (Ok(_), _) => Err(refused("a file".to_string())),
        (Err(_), _) => Err(Error::io("create", dir)(error)),
    }
}

/// Next step if the output path cannot be a folder.
const CHOOSE_ANOTHER: &str = "Choose another `out`";

/// Locks an existing folder for this process. The lock ends with the process, however it ends, and leaves no file
/// behind. Does nothing on systems and file systems that cannot lock a folder.
///
/// # Errors
/// If another process is writing to the folder.
pub(super) fn lock(dir: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(dir) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(_)) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let hint = "Wait until it ends, or choose another `out`";
            Err(Error::malformed(
                dir,
                "a folder that no other process is writing to",
                "another process writing to it",
                hint,
            ))
        }
    }
}
