//! [`PartFile`]: parquet's access to a part, wherever it is. Only the ranges asked for are read.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use crate::location::{RangeReader, ReadRange};

/// Bytes that are fetched at once where parquet does not say how many it will need: it wants a header.
const WINDOW: u64 = 64 << 10;

/// A part, read by range. Each range is a read of its own: readers on several threads share no place in a file.
#[derive(Debug, Clone)]
pub(crate) struct PartFile {
    ranges: Arc<dyn ReadRange>,
    bytes: u64,
}

impl PartFile {
    /// A file of `bytes` bytes.
    pub(crate) fn new(ranges: impl ReadRange + 'static, bytes: u64) -> Self {
        Self { ranges: Arc::new(ranges), bytes }
    }
}

impl Length for PartFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for PartFile {
    type T = RangeReader;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(RangeReader::new(Arc::clone(&self.ranges), start, self.bytes, WINDOW))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // Where a column lies is what the footer says, and the footer may be anybody's.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            let found = format!("{length} bytes from byte {start} on, of a file of {} bytes", self.bytes);
            return Err(ParquetError::EOF(found));
        }
        self.ranges.read_range(start, length as u64).map_err(|error| ParquetError::External(error.into()))
    }
}

/// A stretch of a file in memory, under the offsets that it has in the file.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) start: u64,
    pub(super) bytes: Bytes,
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
