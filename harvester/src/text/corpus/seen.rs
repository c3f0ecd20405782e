//! [`SeenDocuments`]: the documents of tables read so far, so that repeated ones are left out. Text and JSONL files are
//! cleared of duplicates when the corpus is opened; tables are too large for that.
//!
//! A resumed run must know which documents it has seen. A log holds 16 bytes for each index of the order that was
//! reached. Entries that a power cut removed, or the whole log if it is missing, are recomputed from the corpus.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::{Corpus, DocumentOrder, document::DocumentHash};
use crate::{Error, Result, text::Document};

/// Log entry of a document that is not compared with later ones.
const NOT_LOOKED_FOR: DocumentHash = [1; 16];

/// Bytes that a file system may leave at the end of a log that was growing when the power went out.
const LOST: DocumentHash = [0; 16];

/// The documents seen up to an index of the order.
#[derive(Debug)]
pub(crate) struct SeenDocuments {
    hashes: HashSet<DocumentHash>,
    log: Option<(PathBuf, File)>,
}

impl SeenDocuments {
    /// The documents at indices below `next`, from the log at `path` if it exists; `None` if duplicates are kept or
    /// there are no tables.
    pub(crate) fn before(
        next: u64,
        corpus: &Corpus,
        order: &DocumentOrder,
        path: Option<&Path>,
    ) -> Result<Option<Self>> {
        if corpus.blocks.is_empty() || !corpus.options.drop_duplicates {
            return Ok(None);
        }
        let (mut logged, log) = match path {
            Some(path) => open_log(path, next).map(|(logged, file)| (logged, Some((path.to_path_buf(), file))))?,
            None => (vec![], None),
        };
        let known = logged.len() as u64;
        let mut seen = Self { hashes: HashSet::new(), log };
        logged.retain(|hash| *hash != NOT_LOOKED_FOR);
        seen.hashes.extend(logged);
        for document in (known..next).map_while(|place| order.get(place)) {
            if corpus.is_streamed(document) {
                seen.is_new(&corpus.document(document)?)?;
            } else {
                seen.pass()?;
            }
        }
        Ok(Some(seen))
    }

    /// True if the document at the next index is new, or is empty.
    pub(crate) fn is_new(&mut self, document: &Document) -> Result<bool> {
        if document.is_empty() {
            return self.pass().map(|()| true);
        }
        let hash = document.hash();
        self.write(hash)?;
        Ok(self.hashes.insert(hash))
    }

    /// Records that the document at the next index is not compared.
    pub(crate) fn pass(&mut self) -> Result<()> {
        self.write(NOT_LOOKED_FOR)
    }

    fn write(&mut self, hash: DocumentHash) -> Result<()> {
        match &mut self.log {
            Some((path, file)) => file.write_all(&hash).map_err(Error::io("write", path)),
            None => Ok(()),
        }
    }
}

/// The first `places` entries of the log, or as many as there are, and the file to append to after them.
fn open_log(path: &Path, places: u64) -> Result<(Vec<DocumentHash>, File)> {
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).open(path).map_err(Error::io("open", path))?;
    let mut bytes = vec![];
    let entry = size_of::<DocumentHash>();
    (&mut file).take(places * entry as u64).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let (hashes, _) = bytes.as_chunks::<{ size_of::<DocumentHash>() }>();
    let hashes = &hashes[..hashes.iter().position(|hash| *hash == LOST).unwrap_or(hashes.len())];
    file.set_len(size_of_val(hashes) as u64).map_err(Error::io("write", path))?;
    Ok((hashes.to_vec(), file))
}
