//! [`HarvestFolder`]: the folder a harvest writes to, and the decision what to do with what is in it already: begin,
//! go on, extend, or leave alone. Nothing that is not ours is ever touched.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use super::{
    journal::Journal,
    manifest::{HarvestManifest, Part},
    part_names::{is_journal_of, journal_file},
    writer::ShardWriter,
};
use crate::{
    Error, Location, Result,
    store::{DatasetFolder, MANIFEST_FILE, RESUME_FOLDER},
};

/// An output folder, locked for this process, whose manifest is there and agrees with the run that is wanted.
#[derive(Debug)]
pub(crate) struct HarvestFolder {
    folder: DatasetFolder,
    manifest: HarvestManifest,
    /// Held while the folder is written.
    _lock: Option<File>,
}

impl HarvestFolder {
    /// Opens `location` for the run that `wanted` describes, a manifest without parts. Leftovers of a killed run go,
    /// but for the journal of the part that it was making.
    ///
    /// # Errors
    /// When the folder holds another run or something else, or another process is writing to it.
    pub(crate) fn open(location: &Location, wanted: HarvestManifest) -> Result<Self> {
        Self::open_in(DatasetFolder::at(location)?, wanted)
    }

    /// [`Self::open`] for a run that knows its files beforehand: those of `planned` that a killed run left stay, for
    /// the caller to look at.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(crate) fn open_planned(location: &Location, wanted: HarvestManifest, planned: &[Part]) -> Result<Self> {
        Self::open_keeping(DatasetFolder::at(location)?, wanted, planned)
    }

    /// [`Self::open`], where it is settled in which folder of this machine unfinished parts are.
    pub(crate) fn open_in(folder: DatasetFolder, wanted: HarvestManifest) -> Result<Self> {
        Self::open_keeping(folder, wanted, &[])
    }

    fn open_keeping(folder: DatasetFolder, wanted: HarvestManifest, planned: &[Part]) -> Result<Self> {
        let location = folder.location();
        let lock = folder.lock()?;
        let manifest = if location.join(MANIFEST_FILE).bytes()?.is_some() {
            continued(&folder, HarvestManifest::read(location)?, wanted)?
        } else {
            check_empty(&folder)?;
            wanted.write(location)?;
            wanted
        };
        remove_leftovers(&folder, &manifest, planned)?;
        Ok(Self { folder, manifest, _lock: lock })
    }

    /// The writer that goes on here.
    ///
    /// # Errors
    /// When a part listed is missing or damaged, or the journal cannot be read.
    pub(crate) fn writer(&self) -> Result<ShardWriter> {
        ShardWriter::resume(self.folder.clone(), self.manifest.clone())
    }

    /// Where the parts go.
    pub(crate) fn folder(&self) -> &DatasetFolder {
        &self.folder
    }

    /// The manifest that is in the folder now.
    pub(crate) fn manifest(&self) -> &HarvestManifest {
        &self.manifest
    }
}

/// The manifest to go on with: the one wanted, where nothing is finished; else the one found; or where a larger budget
/// extends a finished folder, that one without its completeness and without a last part shorter than the others.
fn continued(folder: &DatasetFolder, found: HarvestManifest, wanted: HarvestManifest) -> Result<HarvestManifest> {
    let differences = found.differences(&wanted);
    let nothing_finished = found.parts.is_empty() && !has_journal(folder);
    if !differences.is_empty() && !nothing_finished {
        return Err(Error::OtherRun { path: folder.path(), differences });
    }
    if found.parts.is_empty() {
        wanted.write(folder.location())?;
        return Ok(wanted);
    }
    if found.config.tokens == wanted.config.tokens {
        return Ok(found);
    }
    let mut extended = found;
    extended.config.tokens = wanted.config.tokens;
    // Tokens were left over only where the corpus ended, and then there is nothing to extend with.
    if extended.complete && extended.counts.dropped_tokens == 0 {
        extended.complete = false;
        extended.drop_short_part();
    }
    // Written before any file is replaced: a manifest never lists a part that changes under it.
    extended.write(folder.location())?;
    Ok(extended)
}

/// Whether a run left a batch of the first part in a journal.
fn has_journal(folder: &DatasetFolder) -> bool {
    Journal::has_batches(&folder.resume().join(journal_file(0)))
}

/// Refuses a folder with anything in it but what a run killed at its very start leaves.
fn check_empty(folder: &DatasetFolder) -> Result<()> {
    let leftovers = [format!("{MANIFEST_FILE}.tmp"), RESUME_FOLDER.to_string()];
    match folder.names()?.into_iter().find(|name| !leftovers.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let found = format!("a folder without a manifest that holds {name}");
            let expected = "an empty folder, or one that harvest wrote";
            Err(Error::malformed(folder.path(), expected, found, "Choose another --out"))
        }
    }
}

/// Removes temporary files, parts that appeared but were not listed yet when the run was killed, and what is unfinished
/// but for the next part's journal. Parts in `planned` stay.
fn remove_leftovers(folder: &DatasetFolder, manifest: &HarvestManifest, planned: &[Part]) -> Result<()> {
    for name in folder.names()? {
        let ours = name.strip_suffix(".tmp").unwrap_or(&name);
        let is_part = ours.starts_with("part-") && ours.ends_with(".parquet");
        let listed = manifest.parts.iter().chain(planned).any(|part| part.file == name);
        if (is_part && !listed) || name == format!("{MANIFEST_FILE}.tmp") {
            folder.location().join(&name).remove()?;
        }
    }
    if manifest.complete {
        return folder.remove_unfinished();
    }
    for path in unfinished_parts(folder.resume())? {
        if !is_journal_of(&path, manifest.parts.len()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The parts and journals in the folder of unfinished things. Others keep things there too.
fn unfinished_parts(resume: &Path) -> Result<Vec<PathBuf>> {
    if !resume.exists() {
        return Ok(vec![]);
    }
    let entries = Location::from(resume).list()?.into_iter().filter(|entry| entry.name.starts_with("part-"));
    Ok(entries.filter_map(|entry| entry.location.local().map(Path::to_path_buf)).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{StorageDtype, activations::testing::manifest};

    fn wanted() -> HarvestManifest {
        manifest(3, 4, 8, StorageDtype::F16)
    }

    #[test]
    #[cfg(unix)]
    fn two_processes_never_write_to_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = HarvestFolder::open(&dir.path().into(), wanted()).unwrap();
        let message = HarvestFolder::open(&dir.path().into(), wanted()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        drop(first);
        HarvestFolder::open(&dir.path().into(), wanted()).unwrap();
    }

    #[test]
    fn a_run_that_finished_no_part_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        HarvestFolder::open(&dir.path().into(), wanted()).unwrap();
        let other = manifest(3, 4, 8, StorageDtype::F32);
        let folder = HarvestFolder::open(&dir.path().into(), other.clone()).unwrap();
        assert_eq!(*folder.manifest(), other);
    }

    #[test]
    fn a_folder_killed_while_its_first_manifest_was_written_is_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.json.tmp"), "{").unwrap();
        HarvestFolder::open(&dir.path().into(), wanted()).unwrap();
        let names = DatasetFolder::local(dir.path()).names().unwrap();
        assert_eq!(names, ["manifest.json"]);
    }
}
