//! [`Location`]: a file or folder, on this machine or in an object store. Corpora are read through it, and datasets are
//! read and published through it, so that only this file knows whether a path is a URL.
//!
//! Reads are by range and blocking. Writes are whole: a reader never finds half of a file, on this machine because
//! files are renamed, and in a store because an object appears when its upload ends.

#[cfg(feature = "cloud")]
mod object;
#[cfg(not(feature = "cloud"))]
#[path = "location/no_object.rs"]
mod object;
mod ranges;

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::UNIX_EPOCH,
};

use bytes::Bytes;

use self::object::Object;
pub(crate) use self::ranges::{RangeReader, ReadRange, Stretch};
use super::{
    atomic::write_atomically,
    hash::{expect_sha256, sha256_reader},
};
use crate::{Error, Result};

/// Address of a file or folder.
#[derive(Debug, Clone)]
pub struct Location(Place);

#[derive(Debug, Clone)]
enum Place {
    /// On this machine.
    Local(PathBuf),
    /// In an object store, named by its URL.
    Remote(Object),
}

/// A file or folder directly in a folder.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Its address.
    pub(crate) location: Location,
    /// Name of the entry.
    pub(crate) name: String,
    /// True for a folder; in an object store, a name with objects below it.
    pub(crate) is_folder: bool,
}

impl Location {
    /// The supported URL schemes.
    pub(crate) const SCHEMES: &str = "s3://, gs://, az:// and file://";

    /// Parses a path or URL from the command line.
    ///
    /// # Errors
    /// As for [`Location::from_str`].
    pub fn named(path: &Path) -> Result<Self> {
        path.to_str().map_or_else(|| Ok(path.into()), str::parse)
    }

    /// A folder in a store that lives as long as this process.
    #[cfg(all(test, feature = "cloud"))]
    pub(crate) fn in_memory() -> Self {
        Self(Place::Remote(Object::in_memory("memory://bucket/runs/activations")))
    }

    /// A file or folder below this one; `name` may have several parts, joined by `/`.
    pub fn join(&self, name: &str) -> Self {
        match &self.0 {
            Place::Local(path) => Self(Place::Local(path.join(name))),
            Place::Remote(remote) => Self(Place::Remote(remote.join(name))),
        }
    }

    /// The folder that this is in; `None` at the root.
    pub(crate) fn parent(&self) -> Option<Self> {
        match &self.0 {
            Place::Local(path) => path.parent().map(Self::from),
            Place::Remote(remote) => remote.parent().map(|parent| Self(Place::Remote(parent))),
        }
    }

    /// The path on this machine; `None` in an object store.
    pub(crate) fn local(&self) -> Option<&Path> {
        match &self.0 {
            Place::Local(path) => Some(path),
            Place::Remote(_) => None,
        }
    }

    /// The last part of the path; empty at the root.
    pub fn file_name(&self) -> String {
        match &self.0 {
            Place::Local(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Place::Remote(remote) => remote.name(),
        }
    }

    /// Size of the file in bytes; `None` if there is no such file.
    ///
    /// # Errors
    /// If the system or the store gives no answer.
    pub(crate) fn bytes(&self) -> Result<Option<u64>> {
        match &self.0 {
            Place::Local(path) => match fs::metadata(path) {
                Ok(metadata) => Ok(metadata.is_file().then_some(metadata.len())),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    Ok(None)
                }
                Err(error) => Err(Error::io("read", path)(error)),
            },
            Place::Remote(remote) => remote.bytes(),
        }
    }

    /// A value that changes when the file does: its size and modification time, or a store's tag.
    ///
    /// # Errors
    /// If it does not exist.
    pub(crate) fn stamp(&self) -> Result<String> {
        match &self.0 {
            Place::Local(path) => {
                let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
                let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                Ok(format!("{} bytes, {} ns", metadata.len(), changed.map_or(0, |changed| changed.as_nanos())))
            }
            Place::Remote(remote) => remote.stamp(),
        }
    }

    /// Reads the whole file; `None` if there is no such file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read_if_there(&self) -> Result<Option<Bytes>> {
        self.bytes()?.map(|_| self.read()).transpose()
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub(crate) fn read(&self) -> Result<Bytes> {
        match &self.0 {
            Place::Local(path) => Ok(fs::read(path).map_err(Error::io("read", path))?.into()),
            Place::Remote(remote) => remote.read(),
        }
    }

    /// Reads `len` bytes of the file from byte `offset` on.
    ///
    /// # Errors
    /// If the file ends earlier, or cannot be read.
    pub(crate) fn read_range(&self, offset: u64, len: u64) -> Result<Bytes> {
        match &self.0 {
            Place::Local(path) => {
                let mut file = File::open(path).map_err(Error::io("open", path))?;
                file.seek(SeekFrom::Start(offset)).map_err(Error::io("read", path))?;
                let mut bytes = vec![0; len as usize];
                file.read_exact(&mut bytes).map_err(Error::io("read", path))?;
                Ok(bytes.into())
            }
            Place::Remote(remote) => remote.read_range(offset, len),
        }
    }

    /// The file as a stream, from its first byte. Memory does not grow with the file.
    ///
    /// # Errors
    /// If it does not exist or cannot be opened.
    pub(crate) fn reader(&self) -> Result<Box<dyn Read + Send>> {
        match &self.0 {
            Place::Local(path) => Ok(Box::new(File::open(path).map_err(Error::io("open", path))?)),
            Place::Remote(remote) => {
                let bytes = remote.bytes()?.ok_or_else(|| remote.not_found())?;
                Ok(Box::new(RangeReader::new(Arc::new(self.clone()), 0, bytes, WINDOW)))
            }
        }
    }

    /// SHA-256 of the file, in lower-case hexadecimal. Reads it in pieces.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub(crate) fn sha256(&self) -> Result<String> {
        sha256_reader(self.reader()?).map_err(Error::io("read", self.to_string()))
    }

    /// Checks that the file is the one whose SHA-256 was recorded.
    ///
    /// # Errors
    /// If there is none or another one; `hint` then says what to do. If it cannot be read.
    pub fn check_sha256(&self, recorded: &str, hint: &str) -> Result<()> {
        let found = self.bytes()?.map(|_| self.sha256()).transpose()?;
        expect_sha256(self.to_string(), recorded, found.as_deref(), hint)
    }

    /// The names of the entries directly in this folder, sorted; none if there is no such folder.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn names(&self) -> Result<Vec<String>> {
        Ok(self.list()?.into_iter().map(|entry| entry.name).collect())
    }

    /// The entries directly in this folder, sorted by name; none if there is no such folder. An object store has no empty
    /// folders, so this is the same there.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub(crate) fn list(&self) -> Result<Vec<Entry>> {
        match &self.0 {
            Place::Local(path) => list_local(path),
            Place::Remote(remote) => {
                let entry = |(object, is_folder): (Object, bool)| Entry {
                    name: object.name(),
                    location: Self(Place::Remote(object)),
                    is_folder,
                };
                Ok(remote.list()?.into_iter().map(entry).collect())
            }
        }
    }

    /// True for a pipe or another local file that can be read only once and from its start.
    pub(crate) fn is_pipe(&self) -> bool {
        let metadata = self.local().and_then(|path| fs::metadata(path).ok());
        metadata.is_some_and(|metadata| !metadata.is_file() && !metadata.is_dir())
    }

    /// True for a folder: on this machine an existing one, in a store a name with objects below it.
    ///
    /// # Errors
    /// If the system or the store gives no answer.
    pub(crate) fn is_folder(&self) -> Result<bool> {
        match &self.0 {
            Place::Local(path) => Ok(path.is_dir()),
            Place::Remote(remote) => Ok(remote.bytes()?.is_none() && !remote.list()?.is_empty()),
        }
    }

    /// Replaces the file with `bytes`, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written; the old content is then still there.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<()> {
        match &self.0 {
            Place::Local(path) => write_atomically(path, bytes),
            Place::Remote(remote) => remote.write(Bytes::copy_from_slice(bytes)),
        }
    }

    /// Publishes a finished local file here, whole or not at all. On the same disk it is moved.
    ///
    /// # Errors
    /// If it cannot be read or written; the local file is then still there.
    pub(crate) fn upload(&self, file: &Path) -> Result<()> {
        match &self.0 {
            Place::Local(path) => fs::rename(file, path).map_err(Error::io("rename to", path)),
            Place::Remote(remote) => remote.upload(file),
        }
    }

    /// Removes the file; a missing file is not an error.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(crate) fn remove(&self) -> Result<()> {
        match &self.0 {
            Place::Local(path) => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
                _ => Ok(()),
            },
            Place::Remote(remote) => remote.remove(),
        }
    }
}

fn list_local(path: &Path) -> Result<Vec<Entry>> {
    let entries = match fs::read_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(vec![]);
        }
        entries => entries.map_err(Error::io("list", path))?,
    };
    let entry = |entry: io::Result<fs::DirEntry>| {
        let entry = entry?;
        let metadata = metadata_of(&entry.path())?;
        Ok(Entry {
            location: entry.path().into(),
            name: entry.file_name().to_string_lossy().into_owned(),
            is_folder: metadata.is_dir(),
        })
    };
    let mut entries = entries.map(entry).collect::<io::Result<Vec<_>>>().map_err(Error::io("list", path))?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Metadata of a link's target. For a broken link, its own metadata, which is neither a file's nor a folder's.
fn metadata_of(path: &Path) -> io::Result<fs::Metadata> {
    fs::metadata(path).or_else(|error| match fs::symlink_metadata(path) {
        Ok(own) if own.is_symlink() => Ok(own),
        _ => Err(error),
    })
}

impl From<PathBuf> for Location {
    fn from(path: PathBuf) -> Self {
        Self(Place::Local(path))
    }
}

impl From<&PathBuf> for Location {
    fn from(path: &PathBuf) -> Self {
        Self(Place::Local(path.clone()))
    }
}

impl From<&Location> for Location {
    fn from(location: &Location) -> Self {
        location.clone()
    }
}

impl From<&Path> for Location {
    fn from(path: &Path) -> Self {
        Self(Place::Local(path.to_path_buf()))
    }
}

impl FromStr for Location {
    type Err = Error;

    /// A path, or a URL with one of `Location::SCHEMES`. Credentials and endpoints of a store come from the variables
    /// that its own tools read (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `GOOGLE_APPLICATION_CREDENTIALS`,
    /// `AZURE_STORAGE_ACCOUNT_NAME` ..).
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once("://") {
            None => Ok(Path::new(text).into()),
            Some(("file", path)) => Ok(Path::new(path).into()),
            Some(_) => Ok(Self(Place::Remote(Object::open(text)?))),
        }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Local(path) => path.display().fmt(f),
            Place::Remote(remote) => f.write_str(&remote.url()),
        }
    }
}

/// Bytes per request when a remote file is streamed.
const WINDOW: u64 = 4 << 20;

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// The same steps on this machine and in a store: write whole, read by range, list, replace, remove.
    fn lives(folder: &Location) {
        let file = folder.join("a.bin");
        assert_eq!(file.bytes().unwrap(), None);
        file.write(b"0123456789").unwrap();
        assert_eq!(file.bytes().unwrap(), Some(10));
        assert_eq!(file.read_range(3, 4).unwrap(), &b"3456"[..]);
        assert!(file.read_range(8, 4).is_err(), "a range beyond the end is an error, not cut short");
        let mut text = String::new();
        file.reader().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "0123456789");
        let before = file.stamp().unwrap();
        let names: Vec<_> = folder.list().unwrap().into_iter().map(|entry| (entry.name, entry.is_folder)).collect();
        assert_eq!(names, [("a.bin".into(), false)]);
        let local = tempfile::NamedTempFile::new().unwrap();
        fs::write(local.path(), b"new").unwrap();
        file.upload(local.path()).unwrap();
        assert_eq!(file.read().unwrap(), &b"new"[..]);
        assert_ne!(file.stamp().unwrap(), before);
        assert!(folder.is_folder().unwrap() && !file.is_folder().unwrap());
        file.remove().unwrap();
        file.remove().unwrap();
        assert_eq!(file.bytes().unwrap(), None);
        assert!(file.read().unwrap_err().to_string().contains("a.bin"));
    }

    #[test]
    fn a_folder_on_this_machine() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}", folder.path().display());
        lives(&url.parse().unwrap());
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn a_folder_in_a_store() {
        lives(&Location::in_memory());
    }

    #[cfg(feature = "cloud")]
    #[test]
    fn names_survive_a_round_trip_and_unknown_schemes_are_refused() {
        for text in ["runs/a", "/runs/a", "s3://bucket/runs/a", "gs://bucket/a", "az://container/a"] {
            // az:// needs an account name; any will do.
            let location = match text.parse::<Location>() {
                Ok(location) => location,
                Err(error) => {
                    assert!(text.starts_with("az") && error.to_string().contains("az://container/a"), "{error}");
                    continue;
                }
            };
            assert_eq!(location.to_string(), text);
            assert_eq!(location.join("b/c").to_string(), format!("{text}/b/c"));
            assert_eq!(location.join("b/c").file_name(), "c");
        }
        let message = "ftp://host/a".parse::<Location>().unwrap_err().to_string();
        assert!(message.contains("s3://") && message.contains("ftp://host/a"), "{message}");
    }
}
