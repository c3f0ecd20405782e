//! [`HarvestFolder`]: the folder a harvest writes to, and the decision what to do with what is in it already: begin,
//! go on, extend, or leave alone. Nothing that is not ours is ever touched.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use crate::{Error, Result, manifest::HarvestManifest, manifest_file::MANIFEST_FILE};

/// An output folder, locked for this process, whose manifest is on disk and agrees with the run that is wanted.
#[derive(Debug)]
pub(crate) struct HarvestFolder {
    manifest: HarvestManifest,
    /// Held while the folder is written.
    _lock: Option<File>,
}

impl HarvestFolder {
    /// Opens `dir` for the run that `wanted` describes, a manifest without parts. Leftovers of a killed run go.
    ///
    /// # Errors
    /// When the folder holds another run or something else, or another process is writing to it.
    pub(crate) fn open(dir: &Path, wanted: HarvestManifest) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
        let lock = lock(dir)?;
        let manifest = if dir.join(MANIFEST_FILE).exists() {
            let found = HarvestManifest::read(dir)?;
            continued(dir, found, wanted)?
        } else {
            check_empty(dir)?;
            wanted.write(dir)?;
            wanted
        };
        remove_leftovers(dir, &manifest)?;
        Ok(Self { manifest, _lock: lock })
    }

    /// The manifest that is on disk now.
    pub(crate) fn manifest(&self) -> &HarvestManifest {
        &self.manifest
    }
}

/// The manifest to go on with: the one wanted, where no part is finished; else the one found; or where a larger budget
/// extends a finished folder, that one without its completeness and without a last part shorter than the others.
fn continued(dir: &Path, found: HarvestManifest, wanted: HarvestManifest) -> Result<HarvestManifest> {
    let differences = found.differences(&wanted);
    if found.parts.is_empty() {
        wanted.write(dir)?;
        return Ok(wanted);
    }
    if !differences.is_empty() {
        return Err(Error::OtherRun { path: dir.to_path_buf(), differences });
    }
    if found.config.tokens == wanted.config.tokens {
        return Ok(found);
    }
    let mut extended = found;
    extended.config.tokens = wanted.config.tokens;
    // Tokens were left over only where the corpus ended, and then there is nothing to extend with.
    if extended.complete && extended.counts.dropped_tokens == 0 {
        extended.complete = false;
        let part_tokens = extended.config.part_tokens as u64;
        extended.parts.pop_if(|last| last.rows < part_tokens);
        extended.count_parts();
    }
    // Written before any file is replaced: a manifest never lists a part that changes under it.
    extended.write(dir)?;
    Ok(extended)
}

/// Takes an existing folder for this process. The lock goes with the process, however it ends, and leaves no file behind.
/// Systems and file systems that cannot lock a folder are written to without.
///
/// # Errors
/// When another process is writing to the folder.
pub fn lock(dir: &Path) -> Result<Option<File>> {
    let Ok(file) = File::open(dir) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::Error(_)) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let hint = "Wait until it ends, or choose another --out";
            Err(Error::malformed(dir, "a folder that nobody is writing to", "another process that is", hint))
        }
    }
}

/// Refuses a folder with anything in it but what a run killed at its very start leaves.
fn check_empty(dir: &Path) -> Result<()> {
    let leftover = format!("{MANIFEST_FILE}.tmp");
    match names(dir)?.into_iter().find(|name| *name != leftover) {
        None => Ok(()),
        Some(name) => {
            let found = format!("a folder without a manifest that holds {name}");
            Err(Error::malformed(dir, "an empty folder, or one that harvest wrote", found, "Choose another --out"))
        }
    }
}

/// Removes temporary files, and parts that were renamed but not yet listed when the run was killed.
fn remove_leftovers(dir: &Path, manifest: &HarvestManifest) -> Result<()> {
    for name in names(dir)? {
        let ours = name.strip_suffix(".tmp").unwrap_or(&name);
        let is_part = ours.starts_with("part-") && ours.ends_with(".parquet");
        let listed = manifest.parts.iter().any(|part| part.file == name);
        if (is_part && !listed) || name == format!("{MANIFEST_FILE}.tmp") {
            let path: PathBuf = dir.join(&name);
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    let names: std::io::Result<Vec<String>> =
        entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(Error::io("list", dir))?;
    names.sort();
    Ok(names)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{StorageDtype, shard::testing::manifest};

    fn wanted() -> HarvestManifest {
        manifest(3, 4, 8, StorageDtype::F16)
    }

    #[test]
    #[cfg(unix)]
    fn two_processes_never_write_to_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = HarvestFolder::open(dir.path(), wanted()).unwrap();
        let message = HarvestFolder::open(dir.path(), wanted()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        drop(first);
        HarvestFolder::open(dir.path(), wanted()).unwrap();
    }

    #[test]
    fn a_run_that_finished_no_part_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        HarvestFolder::open(dir.path(), wanted()).unwrap();
        let other = manifest(3, 4, 8, StorageDtype::F32);
        let folder = HarvestFolder::open(dir.path(), other.clone()).unwrap();
        assert_eq!(*folder.manifest(), other);
    }

    #[test]
    fn a_folder_killed_while_its_first_manifest_was_written_is_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.json.tmp"), "{").unwrap();
        HarvestFolder::open(dir.path(), wanted()).unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["manifest.json"]);
    }
}
