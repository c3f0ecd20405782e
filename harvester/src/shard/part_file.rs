//! [`PartFile`]: parquet's access to a part, wherever it is. Of a file in an object store only the ranges asked for are
//! fetched.

use std::{
    fs::File,
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use crate::{Error, Location, Result};

/// Bytes that are fetched at once where parquet does not say how many it will need: it wants a header.
const WINDOW: u64 = 64 << 10;

/// A part, opened for reading.
#[derive(Debug, Clone)]
pub(crate) enum PartFile {
    /// On this machine.
    Local(Arc<File>),
    /// Elsewhere, by range.
    Remote { ranges: Arc<dyn ReadRange>, bytes: u64 },
}

/// A file that is elsewhere.
pub(crate) trait ReadRange: std::fmt::Debug + Send + Sync {
    /// `length` bytes from byte `start` on.
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes>;
}

impl ReadRange for Location {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        Self::read_range(self, start, length)
    }
}

impl PartFile {
    /// Opens the file at `location`, which has `bytes` bytes.
    pub(crate) fn open(location: &Location, bytes: u64) -> Result<Self> {
        match location.local() {
            Some(path) => Ok(Self::Local(Arc::new(File::open(path).map_err(Error::io("open", path))?))),
            None => Ok(Self::Remote { ranges: Arc::new(location.clone()), bytes }),
        }
    }
}

impl Length for PartFile {
    fn len(&self) -> u64 {
        match self {
            Self::Local(file) => Length::len(&**file),
            Self::Remote { bytes, .. } => *bytes,
        }
    }
}

impl ChunkReader for PartFile {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        match self {
            Self::Local(file) => Ok(Box::new(ChunkReader::get_read(&**file, start)?)),
            Self::Remote { ranges, bytes } => {
                Ok(Box::new(Windows { ranges: Arc::clone(ranges), start, end: *bytes, window: Bytes::new() }))
            }
        }
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        match self {
            Self::Local(file) => ChunkReader::get_bytes(&**file, start, length),
            Self::Remote { ranges, .. } => {
                ranges.read_range(start, length as u64).map_err(|error| ParquetError::External(error.into()))
            }
        }
    }
}

/// A remote file from some byte on, a window at a time.
struct Windows {
    ranges: Arc<dyn ReadRange>,
    start: u64,
    end: u64,
    window: Bytes,
}

impl Read for Windows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.window.is_empty() && self.start < self.end {
            let length = WINDOW.min(self.end - self.start);
            self.window = self.ranges.read_range(self.start, length).map_err(io::Error::other)?;
            self.start += length;
        }
        let n = buffer.len().min(self.window.len());
        buffer[..n].copy_from_slice(&self.window.split_to(n));
        Ok(n)
    }
}

/// A stretch of a file in memory, under the offsets that it has in the file.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

impl Length for Stretch {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl Stretch {
    fn from(&self, start: u64) -> ParquetResult<Bytes> {
        let skipped = start.checked_sub(self.start).filter(|skipped| *skipped <= self.bytes.len() as u64);
        let skipped = skipped.ok_or_else(|| ParquetError::EOF(format!("byte {start} is not in this column")))?;
        Ok(self.bytes.slice(skipped as usize..))
    }
}

impl ChunkReader for Stretch {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(bytes::Buf::reader(self.from(start)?))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let rest = self.from(start)?;
        if length > rest.len() {
            return Err(ParquetError::EOF(format!("{length} bytes from byte {start} on are not in this column")));
        }
        Ok(rest.slice(..length))
    }
}
