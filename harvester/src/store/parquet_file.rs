//! [`ParquetFile`]: parquet's access to a file at any kind of location. Only the requested ranges are read.

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    errors::{ParquetError, Result as ParquetResult},
    file::reader::{ChunkReader, Length},
};

use super::location::{RangeReader, ReadRange};

/// Bytes read at once when parquet does not say how many it needs, to read a header.
const WINDOW: u64 = 64 << 10;

/// A parquet file, read by range. Each range is a separate read, so readers on several threads share no position.
#[derive(Debug, Clone)]
pub(crate) struct ParquetFile {
    ranges: Arc<dyn ReadRange>,
    bytes: u64,
}

impl ParquetFile {
    /// A file of `bytes` bytes.
    pub(crate) fn new(ranges: impl ReadRange + 'static, bytes: u64) -> Self {
        Self { ranges: Arc::new(ranges), bytes }
    }
}

impl Length for ParquetFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for ParquetFile {
    type T = RangeReader;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(RangeReader::new(Arc::clone(&self.ranges), start, self.bytes, WINDOW))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // The footer gives the position of a column, and anyone may have written the footer.
        if start.checked_add(length as u64).is_none_or(|end| end > self.bytes) {
            let found = format!("{length} bytes from byte {start} on, of a file of {} bytes", self.bytes);
            return Err(ParquetError::EOF(found));
        }
        self.ranges.read_range(start, length as u64).map_err(|error| ParquetError::External(error.into()))
    }
}
