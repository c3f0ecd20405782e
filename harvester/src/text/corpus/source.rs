//! [`CorpusSource`]: a file or folder of documents, as listed in manifests.

use serde::{Deserialize, Serialize};

/// The source of a document, as an index into `sources`.
pub(crate) fn source_of(sources: &[CorpusSource], document: u64) -> Option<usize> {
    // Sources are numbered in order, so the last one that starts at or before the document has it, if any has it.
    let found = sources.partition_point(|source| source.first_document <= document).checked_sub(1)?;
    let source = &sources[found];
    (document - source.first_document < source.documents).then_some(found)
}

/// A named range of documents of the corpus: those of one file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusSource {
    /// File name without its extension, or folder name; longer if two sources would share it.
    pub name: String,
    /// Path as given by the user; for a dataset on the Hub, its address at one commit.
    pub path: String,
    /// For a dataset on the Hub: the address as given by the user. A resumed run with the same address reads the commit
    /// in `path`, even if the branch has moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// SHA-256 of the file's bytes; for a folder, of the lines `relative path NUL file's SHA-256` in order. A parquet
    /// file in an object store counts with the SHA-256 of its size and tag.
    pub sha256: String,
    /// Size of the file or files in bytes; for compressed text, of its plain content.
    pub bytes: u64,
    /// Number of the first document of this source.
    pub first_document: u64,
    /// Number of documents, without dropped duplicates. Documents are numbered without gaps.
    pub documents: u64,
    /// Documents left out because their text was seen before, in this source or an earlier one.
    pub duplicates: u64,
    /// Entries of a folder that were left out: files that are hidden or not text, `.json`, `.csv` and `.tsv` files,
    /// links to folders, broken links.
    pub skipped_files: u64,
    /// Lines of JSONL files that were left out because they hold no document.
    #[serde(default)]
    pub malformed_lines: u64,
}
