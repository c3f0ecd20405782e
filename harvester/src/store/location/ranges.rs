//! [`ReadRange`]: anything of which ranges can be read: a file at any kind of location, or a [`Stretch`] of one in
//! memory. [`RangeReader`] is a stream over it. Every reader has its own position, so several threads may read one
//! file.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;
use parquet::errors::ParquetError;

use super::Location;
use crate::{Error, Result};

/// A file of which ranges can be read.
pub(crate) trait ReadRange: std::fmt::Debug + Send + Sync {
    /// Reads `length` bytes from byte `start` on.
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes>;
}

impl ReadRange for Location {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        Self::read_range(self, start, length)
    }
}

/// Bytes of a file in memory, at their offsets in the file: a range that a reader will need, fetched in one request.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) start: u64,
    pub(crate) bytes: Bytes,
}

impl ReadRange for Stretch {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        let skipped = start.checked_sub(self.start).and_then(|skipped| usize::try_from(skipped).ok());
        let range = skipped.zip(usize::try_from(length).ok());
        let range = range.and_then(|(skipped, length)| Some(skipped..skipped.checked_add(length)?));
        let range = range.filter(|range| range.end <= self.bytes.len()).ok_or_else(|| {
            let found = format!("{length} bytes from byte {start} on are not in this column");
            Error::parquet("read", "a column")(ParquetError::EOF(found))
        })?;
        Ok(self.bytes.slice(range))
    }
}

/// A file from some byte on, read one window at a time.
pub(crate) struct RangeReader {
    ranges: Arc<dyn ReadRange>,
    next: u64,
    end: u64,
    /// Bytes per request.
    window_bytes: u64,
    window: Bytes,
}

impl RangeReader {
    /// Reads bytes `start` to `end`.
    pub(crate) fn new(ranges: Arc<dyn ReadRange>, start: u64, end: u64, window_bytes: u64) -> Self {
        Self { ranges, next: start, end, window_bytes, window: Bytes::new() }
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.window.is_empty() && self.next < self.end {
            let length = self.window_bytes.min(self.end - self.next);
            self.window = self.ranges.read_range(self.next, length).map_err(io::Error::other)?;
            self.next += length;
        }
        let n = buffer.len().min(self.window.len());
        buffer[..n].copy_from_slice(&self.window.split_to(n));
        Ok(n)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_answers_under_the_offsets_of_its_file_and_for_nothing_outside() {
        let stretch = Stretch { start: 100, bytes: Bytes::from_static(b"0123456789") };
        assert_eq!(stretch.read_range(103, 4).unwrap(), &b"3456"[..]);
        assert_eq!(stretch.read_range(110, 0).unwrap(), &b""[..]);
        for (start, length) in [(99, 2), (108, 3), (111, 0), (0, 1), (105, u64::MAX), (u64::MAX, 1)] {
            let message = stretch.read_range(start, length).unwrap_err().to_string();
            assert!(message.contains("a column"), "{message}");
        }
        let mut text = String::new();
        RangeReader::new(Arc::new(stretch), 102, 109, 3).read_to_string(&mut text).unwrap();
        assert_eq!(text, "2345678");
    }
}
