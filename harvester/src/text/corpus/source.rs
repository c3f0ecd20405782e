//! [`CorpusSource`]: a file or folder of documents, as listed in manifests; [`DocumentSources`]: the source of each document.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The source of each document, as an index into the list of sources.
#[derive(Debug, Clone)]
pub(crate) enum DocumentSources {
    /// Each source is a range of documents, in order.
    Ranges(Vec<Range<u64>>),
    /// By document number; `u32::MAX` if it is not known.
    Listed(Vec<u32>),
}

impl DocumentSources {
    /// The ranges of files and folders.
    pub(crate) fn of_files(sources: &[CorpusSource]) -> Self {
        let range = |source: &CorpusSource| source.first_document..source.first_document + source.documents;
        Self::Ranges(sources.iter().map(range).collect())
    }

    /// The source of a document.
    pub(crate) fn of(&self, document: u64) -> Option<usize> {
        match self {
            Self::Ranges(ranges) => {
                // The last source that starts at or before the document has it, if any has it.
                let found = ranges.partition_point(|range| range.start <= document).checked_sub(1)?;
                ranges[found].contains(&document).then_some(found)
            }
            Self::Listed(of_document) => {
                let source = of_document.get(usize::try_from(document).ok()?)?;
                (*source != u32::MAX).then_some(*source as usize)
            }
        }
    }
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
