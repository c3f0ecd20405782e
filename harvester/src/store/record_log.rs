//! [`RecordLog`]: a file of records that are only appended.
//!
//! ```text
//! log    = record record ..
//! record = length u64, CRC-32 of the bytes u32, bytes              (little-endian)
//! ```
//!
//! A record torn by a kill, a full disk or a power cut is the last one; it is detected by its length or its checksum,
//! and cut off before the next is appended.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use flate2::Crc;

use crate::{Error, Result};

/// Bytes before the content of a record.
const FRAME: u64 = 12;

/// An open log. Reading and writing continue after the last record accepted or written.
#[derive(Debug)]
pub(crate) struct RecordLog {
    path: PathBuf,
    file: File,
    /// End of the accepted records, in bytes.
    end: u64,
}

impl RecordLog {
    /// An empty log at `path`; another one there is lost.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).open(path);
        Ok(Self { path: path.to_path_buf(), file: file.map_err(Error::io("create", path))?, end: 0 })
    }

    /// The log at `path`, positioned before its first record; `None` if there is none.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub(crate) fn open(path: &Path) -> Result<Option<Self>> {
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Ok(Some(Self { path: path.to_path_buf(), file, end: 0 })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("open", path)(error)),
        }
    }

    /// The next record, if `wanted` makes something of it; it is accepted then. `None` if there is no whole one.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn next<T>(&mut self, wanted: impl FnOnce(&[u8]) -> Option<T>) -> Result<Option<T>> {
        let Some(bytes) = self.read_record().map_err(Error::io("read", &self.path))? else { return Ok(None) };
        let made = wanted(&bytes);
        if made.is_some() {
            self.end += FRAME + bytes.len() as u64;
        }
        Ok(made)
    }

    fn read_record(&mut self) -> io::Result<Option<Vec<u8>>> {
        let left = self.file.metadata()?.len().saturating_sub(self.end);
        if left < FRAME {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(self.end))?;
        let (mut length, mut sum) = ([0; 8], [0; 4]);
        self.file.read_exact(&mut length)?;
        self.file.read_exact(&mut sum)?;
        let length = u64::from_le_bytes(length);
        if length > left - FRAME {
            return Ok(None);
        }
        let mut bytes = vec![0; length as usize];
        self.file.read_exact(&mut bytes)?;
        Ok((crc(&bytes) == u32::from_le_bytes(sum)).then_some(bytes))
    }

    /// Appends a record after those accepted.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        let mut record = (bytes.len() as u64).to_le_bytes().to_vec();
        record.extend_from_slice(&crc(bytes).to_le_bytes());
        record.extend_from_slice(bytes);
        let written = self.file.seek(SeekFrom::Start(self.end)).and_then(|_| self.file.write_all(&record));
        if written.is_err() {
            // Best effort: frees the space of the torn record on a full disk. It would be cut off later anyway.
            let _ = self.cut();
        }
        written.map_err(Error::io("write", &self.path))?;
        self.end += record.len() as u64;
        Ok(())
    }

    /// Cuts off everything after the accepted records.
    pub(crate) fn cut(&mut self) -> Result<()> {
        self.file.set_len(self.end).map_err(Error::io("write", &self.path))
    }

    /// Flushes the records to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io("flush to disk", &self.path))
    }

    /// Removes the file.
    pub(crate) fn remove(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(Error::io("remove", &self.path))
    }

    /// End of the accepted records, in bytes.
    #[cfg(test)]
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}
