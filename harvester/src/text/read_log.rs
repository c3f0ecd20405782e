//! [`ReadLog`]: what reading each document told, in the harvest's order: entry `i` is that of the document at index `i`.
//! A resumed run goes on after it, and the table of documents is made of it. Entries that a power cut removed, or the
//! whole log if it is missing, are made again from the corpus.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::corpus::{DocumentHash, WhyLeftOut};
use crate::{Result, store::RecordLog};

/// The result of reading a document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ReadDocument {
    /// Why it is left out; `None` if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) left_out: Option<WhyLeftOut>,
    /// Number of its tokens, before any is cut off; `None` if it was not made into tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokens: Option<u64>,
    /// SHA-256 of its text; for a conversation, of what was said, one turn after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha256: Option<String>,
    /// The values of the kept fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) kept: Vec<Option<String>>,
    /// Its hash, by which a later document that repeats it is found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash: Option<DocumentHash>,
}

/// The open log.
#[derive(Debug)]
pub(crate) struct ReadLog {
    records: RecordLog,
    len: u64,
}

impl ReadLog {
    /// The log at `path` with its first `wanted` entries, or as many as there are; each is shown to `each`.
    pub(super) fn open(path: &Path, wanted: u64, mut each: impl FnMut(&ReadDocument)) -> Result<Self> {
        let records = match RecordLog::open(path)? {
            Some(records) => records,
            None => RecordLog::create(path)?,
        };
        let mut log = Self { records, len: 0 };
        while log.len < wanted {
            let Some(read) = log.next()? else { break };
            each(&read);
        }
        log.records.cut()?;
        Ok(log)
    }

    /// Opens the log to read it from its first entry.
    pub(crate) fn reader(path: &Path) -> Result<Option<Self>> {
        Ok(RecordLog::open(path)?.map(|records| Self { records, len: 0 }))
    }

    /// Number of entries read or written.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The next entry; `None` after the last whole one.
    pub(crate) fn next(&mut self) -> Result<Option<ReadDocument>> {
        let read = self.records.next(|bytes| serde_json::from_slice(bytes).ok())?;
        self.len += u64::from(read.is_some());
        Ok(read)
    }

    /// Appends an entry.
    pub(super) fn append(&mut self, read: &ReadDocument) -> Result<()> {
        let bytes = serde_json::to_vec(read).expect("numbers and text can be written as JSON");
        self.records.append(&bytes)?;
        self.len += 1;
        Ok(())
    }
}
