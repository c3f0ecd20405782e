//! [`RangeReader`]: a stream over something of which ranges can be read. Every reader has a place of its own, so several
//! threads may read one file.

use std::{
    io::{self, Read},
    sync::Arc,
};

use bytes::Bytes;

use super::Location;
use crate::Result;

/// A file of which ranges can be read.
pub(crate) trait ReadRange: std::fmt::Debug + Send + Sync {
    /// `length` bytes from byte `start` on.
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes>;
}

impl ReadRange for Location {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        Self::read_range(self, start, length)
    }
}

/// A file from some byte on, a window at a time.
pub(crate) struct RangeReader {
    ranges: Arc<dyn ReadRange>,
    next: u64,
    end: u64,
    /// Bytes asked for at once.
    window_bytes: u64,
    window: Bytes,
}

impl RangeReader {
    /// Bytes `start` to `end`.
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
