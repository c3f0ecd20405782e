//! [`DatasetFolder`]: where a dataset is published, and the folder on this machine where its unfinished parts and their
//! journals lie. No other file knows whether the two are on one disk.
//!
//! ```text
//! published in   runs/activations         unfinished in   runs/activations/.resume
//! published in   s3://bucket/activations  unfinished in   $REFRACT_CACHE/staging/<hash of the URL>
//! ```
//!
//! A part is finished in the second folder, flushed, and then appears whole in the first. The second goes with the end
//! of the harvest.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    atomic::sync_folder_of,
    cache_folder::cache_folder,
    folder_lock::{create_folder, lock},
    hash::hex,
    location::Location,
};
use crate::{Error, Result};

/// Name of the folder of unfinished things in a folder on this machine.
pub const RESUME_FOLDER: &str = ".resume";

/// Where a dataset is and where it is made.
#[derive(Debug, Clone)]
pub(crate) struct DatasetFolder {
    published: Location,
    resume: PathBuf,
}

impl DatasetFolder {
    /// The dataset at `location`. Nothing is created yet.
    ///
    /// # Errors
    /// When it is in an object store and there is no cache folder to work in.
    pub(crate) fn at(location: &Location) -> Result<Self> {
        Ok(Self { published: location.clone(), resume: resume_folder(location)? })
    }

    /// The dataset at `location`, unfinished parts being in `resume`.
    #[cfg(test)]
    pub(crate) fn with_resume(location: &Location, resume: &Path) -> Self {
        Self { published: location.clone(), resume: resume.to_path_buf() }
    }

    /// The dataset in a folder on this machine.
    pub(crate) fn local(dir: &Path) -> Self {
        Self { published: dir.into(), resume: dir.join(RESUME_FOLDER) }
    }

    /// Where finished files are.
    pub(crate) fn location(&self) -> &Location {
        &self.published
    }

    /// Its name, as errors give it.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(self.published.to_string())
    }

    /// A file of the folder of unfinished things, which is created if need be.
    pub(crate) fn unfinished(&self, name: &str) -> Result<PathBuf> {
        fs::create_dir_all(&self.resume).map_err(Error::io("create", &self.resume))?;
        Ok(self.resume.join(name))
    }

    /// The folder of unfinished things, which may not exist.
    pub(crate) fn resume(&self) -> &Path {
        &self.resume
    }

    /// Takes the folder for this process; see [`lock`]. Of an object store only this machine's part can be taken.
    pub(crate) fn lock(&self) -> Result<Option<File>> {
        let dir = self.published.local().unwrap_or(&self.resume);
        create_folder(dir)?;
        lock(dir)
    }

    /// Makes a file that is finished and flushed appear among the published ones.
    pub(crate) fn publish(&self, finished: &Path, name: &str) -> Result<()> {
        let place = self.published.join(name);
        place.upload(finished)?;
        match place.local() {
            Some(path) => sync_folder_of(path),
            None => fs::remove_file(finished).map_err(Error::io("remove", finished)),
        }
    }

    /// Names of the published files and folders, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        Ok(self.published.list()?.into_iter().map(|entry| entry.name).collect())
    }

    /// Removes everything unfinished.
    pub(crate) fn remove_unfinished(&self) -> Result<()> {
        match fs::remove_dir_all(&self.resume) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", &self.resume)(error)),
            _ => Ok(()),
        }
    }
}

/// The folder on this machine that an unfinished harvest into `out` keeps what it needs to go on in. It may not exist;
/// the harvest removes it when it is complete.
///
/// # Errors
/// When `out` is in an object store and there is no cache folder.
pub fn resume_folder(out: &Location) -> Result<PathBuf> {
    match out.local() {
        Some(dir) => Ok(dir.join(RESUME_FOLDER)),
        None => {
            let hash = hex(&Sha256::digest(out.to_string().trim_end_matches('/')));
            Ok(cache_folder()?.join("staging").join(&hash[..16]))
        }
    }
}
