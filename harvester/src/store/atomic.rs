//! [`write_atomically`]: a file is always either the old one or the new one, never half of either. Every artifact of
//! every stage is published this way: written beside its final path, flushed to the disk, renamed, and the folder's
//! entry flushed too. A power cut between any two of these steps leaves no file that looks whole and is not.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::hash::hex;
use crate::{Error, Result};

/// Replaces the file at `path` with `bytes`.
///
/// # Errors
/// If a file operation fails; `path` is then unchanged and no temporary file is left.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io("write", path))?;
    file.publish()?;
    Ok(())
}

/// Name of a file until it is published: its final name with `.tmp` appended.
pub(crate) fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().map_or_else(OsString::new, OsString::from);
    name.push(".tmp");
    path.with_file_name(name)
}

/// A file being written under its temporary name. Hashes the bytes written to it; removes itself unless published.
#[derive(Debug)]
pub(crate) struct AtomicFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<File>,
    hasher: Sha256,
    bytes: u64,
}

/// A published file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// Length of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of its content, in hexadecimal.
    pub(crate) sha256: String,
}

impl AtomicFile {
    /// Starts a new file for `path` under its temporary name.
    ///
    /// # Errors
    /// If the temporary file cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let temporary = temporary_path(path);
        let file = File::create(&temporary).map_err(Error::io("create", &temporary))?;
        Ok(Self { path: path.to_path_buf(), temporary, file: Some(file), hasher: Sha256::new(), bytes: 0 })
    }

    /// Makes the file appear at its path, durably. The order matters: content, then name, then the folder's entry.
    ///
    /// # Errors
    /// If a file operation fails; the path then has its old content.
    pub(crate) fn publish(mut self) -> Result<Published> {
        if let Some(file) = &self.file {
            file.sync_all().map_err(Error::io("flush to disk", &self.temporary))?;
        }
        fs::rename(&self.temporary, &self.path).map_err(Error::io("rename to", &self.path))?;
        self.file = None;
        sync_folder_of(&self.path)?;
        Ok(Published { bytes: self.bytes, sha256: hex(&self.hasher.finalize_reset()) })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(file) = &mut self.file else { return Err(io::Error::other("the file is already published")) };
        let written = file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Best effort: the next run removes leftovers too.
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Makes a rename survive a power cut. Only POSIX systems allow flushing a folder.
#[cfg(unix)]
pub(crate) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|file| file.sync_all()).map_err(Error::io("flush to disk", folder))
}

#[cfg(not(unix))]
pub(crate) fn sync_folder_of(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::sha256_file;

    #[test]
    fn a_file_is_replaced_whole_and_leaves_no_temporary() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manifest.json");
        write_atomically(&path, b"first").unwrap();
        write_atomically(&path, b"abc").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        // FIPS 180-2, appendix B.1
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256_file(&path).unwrap(), expected);
    }

    #[test]
    fn a_file_given_up_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part-00000.parquet");
        write_atomically(&path, b"old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half of the new").unwrap();
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_hash_of_what_was_written_is_that_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"some ").unwrap();
        file.write_all(b"bytes").unwrap();
        let published = file.publish().unwrap();
        assert_eq!(published, Published { bytes: 10, sha256: sha256_file(&path).unwrap() });
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let error = write_atomically(Path::new("/nonexistent/manifest.json"), b"x").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/manifest.json"), "{error}");
    }
}
