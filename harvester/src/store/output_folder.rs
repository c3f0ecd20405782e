//! [`OutputFolder`]: the folder that a stage writes to, with one protocol for all stages. The folder is created and
//! locked. Files of others and the work of another run are refused. Files appear in it whole, and its manifest says
//! which of them count.
//!
//! ```text
//! published in   runs/activations         unfinished in   runs/activations/.resume
//! published in   s3://bucket/activations  unfinished in   $REFRACT_CACHE/staging/<hash of the URL>
//! ```
//!
//! Large files are made in the folder of unfinished files, flushed, and then appear whole among the published files.
//! Only this file knows whether the two folders are on one disk.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    artifact_ref::{ArtifactRef, real_path},
    atomic::{sync_folder_of, temporary_path, write_atomically},
    cache_folder::cache_folder,
    folder_lock::{create_folder, lock},
    hash::hex,
    location::Location,
    manifest_file::{Expected, MANIFEST_FILE, read_manifest, write_manifest},
};
use crate::{Error, Result};

/// The manifest that a stage writes into its folder: which files count, and everything that downstream stages need.
pub trait Manifest: Serialize + DeserializeOwned {
    /// Value of its field `format`.
    const FORMAT: &'static str;
    /// The newest version of its layout.
    const VERSION: u32 = 1;
    /// The oldest version that can be read.
    const OLDEST_VERSION: u32 = 1;
    /// Next step if the file is damaged.
    const REPAIR: &'static str = "Restore it, or run its stage again into another folder";
    /// True if its last field is a checksum of the rest.
    const HAS_CHECKSUM: bool = true;
    /// The command that writes such folders.
    const COMMAND: &'static str;
    /// Fields that refer to other artifacts. In version 1 each was a path, and the second field of the pair had the
    /// hash.
    const ARTIFACTS: &'static [(&'static str, &'static str)] = &[];
    /// File name in the folder.
    const FILE: &'static str = MANIFEST_FILE;

    /// True if a run that was killed before it wrote its manifest may have left an entry of this name in `folder`.
    fn leaves(folder: &OutputFolder, name: &str) -> bool;

    /// Differences between the run that wrote this and `wanted`, one line each; empty if `wanted` may continue from it.
    fn differences(&self, wanted: &Self) -> Vec<String>;

    /// True if `folder` holds work of this run that another run must not replace.
    ///
    /// # Errors
    /// If the folder cannot be listed.
    fn is_begun(&self, _folder: &OutputFolder) -> Result<bool> {
        Ok(true)
    }

    /// Updates everything that depends on the present place of `folder`, which holds the manifest.
    #[must_use]
    fn located(self, _folder: &Location) -> Self {
        self
    }

    /// Reads the manifest of a folder, on this machine or in an object store.
    ///
    /// # Errors
    /// If there is no manifest, it has another format or version, or its bytes were changed.
    fn read(folder: impl Into<Location>) -> Result<Self> {
        let folder = folder.into();
        let place = folder.join(Self::FILE);
        if place.bytes()?.is_none() && folder.is_folder()? {
            let expected = format!("a folder that holds {}", Self::FORMAT);
            let found = format!("a folder without a {}", Self::FILE);
            let hint = format!("Name the output folder of the previous stage; it has a {}", Self::FILE);
            return Err(Error::malformed(folder.to_string(), expected, found, hint));
        }
        let expected = Expected {
            format: Self::FORMAT,
            versions: Self::OLDEST_VERSION..=Self::VERSION,
            has_checksum: Self::HAS_CHECKSUM,
            repair: Self::REPAIR,
            command: Self::COMMAND,
        };
        let (version, mut value) = read_manifest(&place, &expected)?;
        for (field, hash_field) in Self::ARTIFACTS.iter().filter(|_| version == 1) {
            ArtifactRef::upgrade(&mut value, field, hash_field);
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| expected.damaged(&place, error.to_string()))?;
        Ok(manifest.located(&folder))
    }

    /// Replaces the manifest in `folder`.
    ///
    /// # Errors
    /// If it cannot be written; the old one is then still there.
    fn write(&self, folder: impl Into<Location>) -> Result<()> {
        write_manifest(&folder.into().join(Self::FILE), self, Self::HAS_CHECKSUM)
    }
}

/// Name of the folder of unfinished files, for a dataset on this machine.
pub(crate) const RESUME_FOLDER: &str = ".resume";

/// Name of the file with the command of an unfinished run.
const COMMAND_FILE: &str = "command";

/// The command that goes on with the unfinished run in `folder`, if it was kept: there, or, for a run of a sweep, in
/// the folder of the sweep.
pub fn go_on(folder: impl Into<Location>) -> String {
    let folder = folder.into();
    let around = folder.local().map(|path| Location::from(real_path(path).join("..").as_path()));
    let kept = |it: OutputFolder| fs::read_to_string(it.resume.join(COMMAND_FILE)).ok();
    match [Some(folder), around].into_iter().flatten().find_map(|folder| OutputFolder::at(folder).ok().and_then(kept)) {
        Some(command) => format!("To go on where it stopped: {command}"),
        None => "Repeat the command that made this folder; it continues where it stopped".into(),
    }
}

/// A folder that a stage writes to.
#[derive(Debug)]
pub struct OutputFolder {
    location: Location,
    resume: PathBuf,
    /// Held while the folder is written.
    _lock: Option<File>,
}

impl OutputFolder {
    /// Creates the folder and locks it for this process. For an object store, only the folder on this machine can be
    /// locked.
    ///
    /// # Errors
    /// If the folder cannot be created, or another process is writing to it.
    pub fn open(location: impl Into<Location>) -> Result<Self> {
        Self::at(location)?.locked()
    }

    /// The folder as it is; creates and locks nothing.
    ///
    /// # Errors
    /// If it is in an object store and there is no cache folder.
    pub fn at(location: impl Into<Location>) -> Result<Self> {
        let location = location.into();
        let resume = match location.local() {
            Some(dir) => dir.join(RESUME_FOLDER),
            None => {
                let hash = hex(&Sha256::digest(location.to_string().trim_end_matches('/')));
                cache_folder()?.join("staging").join(&hash[..16])
            }
        };
        Ok(Self { location, resume, _lock: None })
    }

    /// Like [`Self::open`], with unfinished files in `resume`.
    #[cfg(all(test, feature = "cloud"))]
    pub(crate) fn open_with_resume(location: &Location, resume: &Path) -> Result<Self> {
        Self { location: location.clone(), resume: resume.to_path_buf(), _lock: None }.locked()
    }

    fn locked(self) -> Result<Self> {
        let dir = self.location.local().unwrap_or(&self.resume);
        create_folder(dir)?;
        let lock = lock(dir)?;
        Ok(Self { _lock: lock, ..self })
    }

    /// Location of the finished files.
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The manifest of the run in this folder; `None` if the folder is new, or a run of the stage was killed before it
    /// wrote a manifest.
    ///
    /// # Errors
    /// If the manifest cannot be read, or there is none and the folder holds something that the stage does not leave
    /// there.
    pub fn find<M: Manifest>(&self) -> Result<Option<M>> {
        if self.location.join(M::FILE).bytes()?.is_some() {
            return M::read(&self.location).map(Some);
        }
        let unfinished = temporary_path(Path::new(M::FILE));
        let is_foreign =
            |name: &String| Path::new(name) != unfinished && name != RESUME_FOLDER && !M::leaves(self, name);
        match self.location.names()?.into_iter().find(is_foreign) {
            None => Ok(None),
            Some(name) => {
                let expected = format!("an empty folder, or one that {} wrote", M::COMMAND);
                let found = format!("a folder without {} that holds `{name}`", M::FILE);
                Err(Error::malformed(self.location.to_string(), expected, found, "Choose another `out`"))
            }
        }
    }

    /// The manifest of the earlier run that `wanted` continues; `None` if no work of another run would be lost. Changes
    /// nothing.
    ///
    /// # Errors
    /// As for [`Self::find`]; or if the folder holds another run's work.
    pub fn find_run<M: Manifest>(&self, wanted: &M) -> Result<Option<M>> {
        let Some(found) = self.find::<M>()? else { return Ok(None) };
        let differences = found.differences(wanted);
        if differences.is_empty() {
            return Ok(Some(found));
        }
        if found.is_begun(self)? {
            Err(Error::OtherRun { place: self.location.to_string(), differences })
        } else {
            Ok(None)
        }
    }

    /// The manifest to continue with: that of the earlier run, else `wanted`, which is then written.
    ///
    /// # Errors
    /// As for [`Self::find_run`]; or if the manifest cannot be written.
    pub fn begin<M: Manifest>(&self, wanted: M) -> Result<M> {
        if let Some(found) = self.find_run(&wanted)? {
            return Ok(found);
        }
        wanted.write(&self.location)?;
        Ok(wanted)
    }

    /// Keeps the command of an unfinished run, for [`go_on`]; `None`: forgets it.
    ///
    /// # Errors
    /// If it cannot be written or removed.
    pub fn keep_command(&self, command: Option<String>) -> Result<()> {
        if let Some(command) = command {
            return write_atomically(&self.unfinished(COMMAND_FILE)?, command.as_bytes());
        }
        match fs::remove_file(self.resume.join(COMMAND_FILE)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", &self.resume.join(COMMAND_FILE))(error))
            }
            _ => {
                // Other unfinished files may be there.
                let _ = fs::remove_dir(&self.resume);
                Ok(())
            }
        }
    }

    /// Path of a file in the folder of unfinished files, which is created if necessary.
    pub(crate) fn unfinished(&self, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.resume).map_err(Error::io("create", &self.resume))?;
        Ok(self.resume.join(name))
    }

    /// The folder of unfinished files, which may not exist.
    pub(crate) fn resume(&self) -> &Path {
        &self.resume
    }

    /// Moves a finished and flushed file to the published ones.
    pub(crate) fn publish(&self, finished: &Path, name: &str) -> Result<()> {
        let place = self.location.join(name);
        place.upload(finished)?;
        match place.local() {
            Some(path) => sync_folder_of(path),
            None => fs::remove_file(finished).map_err(Error::io("remove", finished)),
        }
    }

    /// Removes temporary files of a killed run, and the published files that `unwanted` selects.
    pub(crate) fn remove_leftovers<M: Manifest>(&self, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let unfinished = temporary_path(Path::new(M::FILE));
        let is_left = |name: &String| Path::new(name) == unfinished || unwanted(name);
        self.location
            .names()?
            .iter()
            .filter(|name| is_left(name))
            .try_for_each(|name| self.location.join(name).remove())
    }

    /// Removes all unfinished files.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        match fs::remove_dir_all(&self.resume) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.resume)(error)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::differences;

    /// The manifest of a stage for tests.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Note {
        format: String,
        version: u32,
        seed: u64,
        begun: bool,
    }

    impl Manifest for Note {
        const FORMAT: &'static str = "refract.note";
        const COMMAND: &'static str = "note";

        fn leaves(_folder: &OutputFolder, name: &str) -> bool {
            name == "draft"
        }

        fn differences(&self, wanted: &Self) -> Vec<String> {
            differences("seed", &self.seed, &wanted.seed)
        }

        fn is_begun(&self, _folder: &OutputFolder) -> Result<bool> {
            Ok(self.begun)
        }
    }

    fn note(seed: u64, begun: bool) -> Note {
        Note { format: Note::FORMAT.into(), version: Note::VERSION, seed, begun }
    }

    #[test]
    fn a_run_goes_on_and_another_is_refused_in_words() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(dir.path().join("new/out")).unwrap();
        assert_eq!(folder.begin(note(1, true)).unwrap(), note(1, true));
        assert_eq!(folder.begin(note(1, false)).unwrap(), note(1, true), "the earlier run's manifest counts");
        let message = folder.begin(note(2, true)).unwrap_err().to_string();
        assert!(message.contains("seed: 1 there, 2 here"), "{message}");
    }

    #[test]
    fn the_command_is_kept_until_the_run_is_finished() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(dir.path()).unwrap();
        assert!(go_on(dir.path()).starts_with("Repeat the command that made this folder"));
        folder.keep_command(Some("refract note --out new".into())).unwrap();
        assert_eq!(go_on(dir.path()), "To go on where it stopped: refract note --out new");
        assert_eq!(folder.find::<Note>().unwrap(), None, "nothing foreign is there");
        folder.keep_command(None).unwrap();
        folder.keep_command(None).unwrap();
        assert!(go_on(dir.path()).starts_with("Repeat") && !dir.path().join(RESUME_FOLDER).exists());
    }

    #[test]
    fn a_run_that_saved_nothing_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(dir.path()).unwrap();
        folder.begin(note(1, false)).unwrap();
        assert_eq!(folder.find_run(&note(2, true)).unwrap(), None);
        assert_eq!(folder.begin(note(2, true)).unwrap(), note(2, true));
        assert_eq!(Note::read(dir.path()).unwrap(), note(2, true));
    }

    #[test]
    fn what_a_killed_run_leaves_is_ours_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["manifest.json.tmp", "draft"] {
            fs::write(dir.path().join(name), "half").unwrap();
        }
        let folder = OutputFolder::open(dir.path()).unwrap();
        assert_eq!(folder.find::<Note>().unwrap(), None);
        fs::write(dir.path().join("thesis.tex"), "mine").unwrap();
        let message = folder.begin(note(1, true)).unwrap_err().to_string();
        assert!(message.contains("one that note wrote") && message.contains("`thesis.tex`"), "{message}");
    }

    #[test]
    #[cfg(unix)]
    fn two_processes_never_write_to_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = OutputFolder::open(dir.path()).unwrap();
        let message = OutputFolder::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("another process"), "{message}");
        drop(first);
        OutputFolder::open(dir.path()).unwrap();
    }
}
