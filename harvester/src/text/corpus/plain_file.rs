//! [`PlainFile`]: a file on this machine that allows reading a document at any offset.

use std::{io::Read, path::PathBuf};

use super::{
    CorpusOptions, Document, Record,
    discover::{FileKind, FoundFile, Origin},
    json_line::record_of_line,
    spool::{Packed, Spooled, spool, spool_stream},
};
use crate::{Error, Location, Result};

/// A text or JSONL file, or an uncompressed copy of one.
#[derive(Debug, Clone)]
pub(super) struct PlainFile {
    /// Name for errors.
    pub(super) name: String,
    /// Path within its source.
    pub(super) within: String,
    pub(super) path: PathBuf,
    pub(super) kind: FileKind,
    /// SHA-256 of the original file, if this is a copy.
    pub(super) original_sha256: Option<String>,
}

/// Position of a document in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DocumentPlace {
    pub(super) file: u32,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Its line, counted from 1 as in editors; 0 if it is a whole file.
    pub(super) line: u64,
}

impl PlainFile {
    /// The given file itself, or a plain copy of it if the file cannot be read at any offset.
    pub(super) fn of(found: &FoundFile) -> Result<Self> {
        let copied = match &found.origin {
            Origin::Stdin => Some(spool_stream(std::io::stdin(), &found.name())?),
            Origin::At(location) if location.is_pipe() => Some(spool_stream(location.reader()?, &found.name())?),
            Origin::OnHub(_) => unreachable!("only tables are read from the Hub"),
            Origin::At(location) => {
                let packed = packed(location)?;
                (packed.is_some() || location.local().is_none()).then(|| spool(location, packed)).transpose()?
            }
        };
        let (name, within, kind) = (found.name(), found.within(), found.kind);
        Ok(match copied {
            Some(Spooled { path, sha256 }) => Self { name, within, path, kind, original_sha256: Some(sha256) },
            None => Self { path: PathBuf::from(&name), name, within, kind, original_sha256: None },
        })
    }

    /// Location of the document at `place`, for errors.
    pub(super) fn place_of(&self, place: DocumentPlace) -> String {
        if place.line == 0 { self.name.clone() } else { format!("{}:{}", self.name, place.line) }
    }

    /// The document at `place`.
    pub(super) fn record(&self, place: DocumentPlace, options: &CorpusOptions) -> Result<Record> {
        let bytes = Location::from(self.path.as_path()).read_range(place.offset, place.bytes)?;
        let record = match self.kind {
            FileKind::JsonLines => record_of_line(&bytes, options).map_err(|bad| bad.found),
            FileKind::Text | FileKind::Parquet => {
                let text = String::from_utf8(bytes.into()).map_err(|error| error.to_string());
                text.map(|text| Record { document: Document::Text(text), kept: vec![], source: None })
            }
        };
        record.map_err(|found| {
            let expected = format!("the document of {} bytes that was at byte {}", place.bytes, place.offset);
            let hint = "The file changed while it was read; start again";
            Error::malformed(&self.name, expected, found, hint)
        })
    }
}

/// The compression of the file, from its first bytes.
fn packed(location: &Location) -> Result<Option<Packed>> {
    let mut start = [0; 4];
    let mut reader = location.reader()?;
    let mut filled = 0;
    while filled < start.len() {
        match reader.read(&mut start[filled..]).map_err(Error::io("read", location.to_string()))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(Packed::of(&start[..filled]))
}
