//! [`Journal`]: the finished batches of an unfinished part, on disk. A parquet file can be read only once its last byte
//! is written, so without a journal a killed run would lose everything since the part began. With it, only the batch
//! being computed is lost.
//!
//! ```text
//! journal = record(header) record(batch) record(batch) ..
//! ```
//!
//! A record is flushed to the disk unless the last flush was just before. So a power cut may cost another
//! [`SYNC_EVERY`] of work, and a run of tiny batches does not wait for the disk each time.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{schema::ShardSchema, stored_batch::StoredBatch};
use crate::{
    ContextCursor, Result,
    store::{RecordLog, sync_folder_of},
};

/// Shortest time between two flushes.
const SYNC_EVERY: Duration = Duration::from_millis(200);

/// Identifies the batches of a journal: a journal with another header cannot be used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct JournalHeader {
    /// Layout of the file.
    pub(super) version: u32,
    /// SHA-256 of everything that affects the values.
    pub(super) run: String,
    /// Number of the part.
    pub(super) part: usize,
    /// Position at which the part starts.
    pub(super) start: ContextCursor,
}

/// An open journal. Reading and writing continue after the last batch read or written.
#[derive(Debug)]
pub(super) struct Journal {
    records: RecordLog,
    synced: Instant,
}

impl Journal {
    /// Starts a new journal at `path`.
    pub(super) fn create(path: &Path, header: &JournalHeader) -> Result<Self> {
        let mut journal = Self { records: RecordLog::create(path)?, synced: Instant::now() };
        journal.records.append(&bytes_of(header))?;
        journal.sync()?;
        sync_folder_of(path)?;
        Ok(journal)
    }

    /// The journal at `path`, positioned before its first batch; `None` if there is none, or its header differs.
    pub(super) fn open(path: &Path, header: &JournalHeader) -> Result<Option<Self>> {
        let Some(mut records) = RecordLog::open(path)? else { return Ok(None) };
        let is_ours = records.next(|found| (*found == bytes_of(header)).then_some(()))?.is_some();
        Ok(is_ours.then(|| Self { records, synced: Instant::now() }))
    }

    /// True if the file at `path` is a journal with at least one batch, whatever its header.
    pub(crate) fn has_batches(path: &Path) -> bool {
        let Ok(Some(mut records)) = RecordLog::open(path) else { return false };
        let mut is_there = || matches!(records.next(|_| Some(())), Ok(Some(())));
        is_there() && is_there()
    }

    /// Tokens of the whole batches in the file at `path`, which is not changed, whatever its header.
    pub(super) fn tokens(path: &Path, schema: &ShardSchema) -> u64 {
        let Ok(Some(mut records)) = RecordLog::open(path) else { return 0 };
        let widths: Vec<_> = schema.hook_points.iter().map(|(_, width)| *width).collect();
        if !matches!(records.next(|_| Some(())), Ok(Some(()))) {
            return 0;
        }
        let mut next = || records.next(|bytes| StoredBatch::from_bytes(bytes, &widths, schema.dtype)).ok().flatten();
        let batches = std::iter::from_fn(&mut next);
        batches.map(|batch| batch.contexts.iter().map(|context| context.tokens.len() as u64).sum::<u64>()).sum()
    }

    /// The next batch, if `wanted` accepts it. At the first `None` the journal ends, and writing continues from there.
    pub(super) fn next(
        &mut self,
        schema: &ShardSchema,
        wanted: impl Fn(&StoredBatch) -> bool,
    ) -> Result<Option<StoredBatch>> {
        let widths: Vec<_> = schema.hook_points.iter().map(|(_, width)| *width).collect();
        let batch = self.records.next(|bytes| StoredBatch::from_bytes(bytes, &widths, schema.dtype).filter(wanted))?;
        if batch.is_none() {
            self.records.cut()?;
        }
        Ok(batch)
    }

    /// Appends a batch.
    pub(super) fn append(&mut self, batch: &StoredBatch) -> Result<()> {
        self.records.append(&batch.to_bytes())?;
        if self.synced.elapsed() >= SYNC_EVERY { self.sync() } else { Ok(()) }
    }

    /// Removes the file, once its part is published.
    pub(super) fn remove(self) -> Result<()> {
        self.records.remove()
    }

    fn sync(&mut self) -> Result<()> {
        self.synced = Instant::now();
        self.records.sync()
    }
}

fn bytes_of(header: &JournalHeader) -> Vec<u8> {
    serde_json::to_vec(header).expect("numbers and text can be written as JSON")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;
    use crate::{
        StorageDtype,
        activations::testing::{contexts, manifest},
    };

    fn header() -> JournalHeader {
        JournalHeader { version: 1, run: "aa".into(), part: 3, start: ContextCursor::default() }
    }

    fn batches(n: u64) -> (ShardSchema, Vec<StoredBatch>) {
        let schema = ShardSchema::of(&manifest(3, 4, 8, StorageDtype::F16));
        let batch = |index| {
            let (contexts, values) = contexts(3, 4, index..index + 1);
            StoredBatch::round(&schema.hook_points, schema.dtype, &contexts, &values).unwrap()
        };
        let batches = (0..n).map(batch).collect();
        (schema, batches)
    }

    fn all(journal: &mut Journal, schema: &ShardSchema) -> Vec<StoredBatch> {
        std::iter::from_fn(|| journal.next(schema, |_| true).unwrap()).collect()
    }

    #[test]
    fn a_journal_cut_at_any_byte_gives_back_its_whole_batches_and_is_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (schema, batches) = batches(3);
        let mut journal = Journal::create(&path, &header()).unwrap();
        let mut ends = vec![journal.records.end()];
        for batch in &batches[..2] {
            journal.append(batch).unwrap();
            ends.push(journal.records.end());
        }
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, ends[2]);
        for cut in ends[0]..=ends[2] {
            fs::write(&path, &bytes[..cut as usize]).unwrap();
            let mut journal = Journal::open(&path, &header()).unwrap().unwrap();
            let whole = ends.iter().filter(|end| **end <= cut).count() - 1;
            assert_eq!(all(&mut journal, &schema), batches[..whole], "cut at byte {cut}");
            journal.append(&batches[2]).unwrap();
            let mut again = Journal::open(&path, &header()).unwrap().unwrap();
            assert_eq!(all(&mut again, &schema), [&batches[..whole], &batches[2..]].concat(), "cut at byte {cut}");
        }
        for cut in 0..ends[0] {
            fs::write(&path, &bytes[..cut as usize]).unwrap();
            assert!(Journal::open(&path, &header()).unwrap().is_none());
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let (schema, batches) = batches(2);
        let mut journal = Journal::create(&path, &header()).unwrap();
        let start = journal.records.end();
        batches.iter().for_each(|batch| journal.append(batch).unwrap());
        let bytes = fs::read(&path).unwrap();
        for place in start as usize..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1 << (place % 8);
            fs::write(&path, damaged).unwrap();
            let read = all(&mut Journal::open(&path, &header()).unwrap().unwrap(), &schema);
            assert!(read.len() < 2 && read == batches[..read.len()], "bit {} of byte {place}", place % 8);
        }
    }

    #[test]
    fn a_journal_of_another_run_or_part_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        Journal::create(&path, &header()).unwrap();
        assert!(!Journal::has_batches(&path));
        let other = JournalHeader { part: 4, ..header() };
        assert!(Journal::open(&path, &other).unwrap().is_none());
        assert!(Journal::open(&path, &header()).unwrap().is_some());
        let mut journal = Journal::create(&path, &other).unwrap();
        journal.append(&batches(1).1[0]).unwrap();
        assert!(Journal::has_batches(&path));
    }
}
