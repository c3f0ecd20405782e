//! [`ModelCache`]: refract's own folder of downloaded models, for sources that have no cache of their own.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use crate::{Error, Location, Monitor, Result, store::cache_folder};

/// A folder of downloaded models.
#[derive(Debug, Clone)]
pub(crate) struct ModelCache {
    folder: PathBuf,
}

impl ModelCache {
    /// A cache in `folder`, which need not exist yet.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// `models` in the [`cache_folder`].
    ///
    /// # Errors
    /// As for [`cache_folder`].
    pub(crate) fn from_env() -> Result<Self> {
        Ok(Self::new(cache_folder()?.join("models")))
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until no other process downloads into this cache. Dropping the returned file releases the lock. Without
    /// effect on a file system that has no locks.
    pub(super) fn lock(&self, monitor: &dyn Monitor) -> Result<File> {
        fs::create_dir_all(&self.folder).map_err(Error::io("create", &self.folder))?;
        let path = self.folder.join(".lock");
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        wait_for_lock(&file, &self.folder, monitor)?;
        Ok(file)
    }

    /// A folder for unfinished files, removed with everything in it when dropped. There is one at a time: the caller
    /// holds the [`lock`](Self::lock), so an existing folder is left over from a run that was killed.
    pub(super) fn scratch(&self) -> Result<Scratch> {
        let scratch = Scratch { folder: self.folder.join("unfinished") };
        let _ = fs::remove_dir_all(&scratch.folder);
        fs::create_dir_all(&scratch.folder).map_err(Error::io("create", &scratch.folder))?;
        Ok(scratch)
    }
}

/// A temporary folder.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) folder: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Nothing in it is needed; if removing fails, it only costs disk space.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Polls instead of blocking, so that the user can stop it. On a file system without locks it returns at once:
/// downloaded files are checked anyway.
pub(super) fn wait_for_lock(file: &File, folder: &Path, monitor: &dyn Monitor) -> Result<()> {
    while let Err(TryLockError::WouldBlock) = file.try_lock() {
        pause(Duration::from_millis(100), folder, monitor)?;
    }
    Ok(())
}

/// Sleeps, unless the user asks to stop.
pub(super) fn pause(duration: Duration, kept: &Path, monitor: &dyn Monitor) -> Result<()> {
    const STEP: Duration = Duration::from_millis(50);
    let mut left = duration;
    loop {
        if monitor.cancelled() {
            return Err(Error::Cancelled { place: kept.display().to_string() });
        }
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(STEP));
        left = left.saturating_sub(STEP);
    }
}

/// Size and hash that a file must have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity<'a> {
    pub(super) bytes: u64,
    pub(super) sha256: &'a str,
}

impl Identity<'_> {
    /// Checks the size, then the hash. Hashing 100 MB takes a tenth of a second.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        let bytes = fs::metadata(path).map_err(Error::io("read", path))?.len();
        let hint = "The file is damaged, or it is another version";
        if bytes != self.bytes {
            return Err(Error::malformed(path, format!("{} bytes", self.bytes), bytes.to_string(), hint));
        }
        Location::from(path).check_sha256(self.sha256, hint)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Silent;

    #[test]
    fn a_file_is_known_by_size_and_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("abc");
        fs::write(&path, "abc").unwrap();
        let identity =
            Identity { bytes: 3, sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" };
        identity.check(&path).unwrap();
        fs::write(&path, "abd").unwrap();
        assert!(identity.check(&path).unwrap_err().to_string().contains("SHA-256 ba7816bf"));
        fs::write(&path, "abcd").unwrap();
        assert!(identity.check(&path).unwrap_err().to_string().contains("expected 3 bytes, found 4"));
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let cache = ModelCache::new(folder.path());
        let held = cache.lock(&Silent).unwrap();
        let waiting = thread::spawn(move || cache.lock(&Silent).is_ok());
        thread::sleep(Duration::from_millis(150));
        assert!(!waiting.is_finished());
        drop(held);
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn scratch_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let scratch = ModelCache::new(folder.path()).scratch().unwrap();
        fs::write(scratch.folder.join("half"), "x").unwrap();
        drop(scratch);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
