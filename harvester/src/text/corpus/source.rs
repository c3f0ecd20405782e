//! [`CorpusSource`]: a file or folder that documents come from, as manifests list it.

use serde::{Deserialize, Serialize};

/// A named stretch of the corpus: a file, or a folder of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusSource {
    /// File name without its extension, or folder name; made longer where two sources would share it.
    pub name: String,
    /// Where it was read from, as it was given; of a dataset on the Hub, its address at one commit.
    pub path: String,
    /// Of a dataset on the Hub, the address as it was given. Where a run that starts again is given the same, it reads
    /// the commit in `path`, though the branch may have moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// SHA-256 of the file's bytes; for a folder, of the lines `relative path NUL file's SHA-256` in order. A parquet
    /// file of an object store counts with the SHA-256 of its size and tag.
    pub sha256: String,
    /// Size of the file or files, bytes; of packed text, of its plain content.
    pub bytes: u64,
    /// Number of the first document of this source.
    pub first_document: u64,
    /// How many documents it has, without dropped duplicates: they are numbered without a gap.
    pub documents: u64,
    /// Documents left out because their text had been seen before, in this source or an earlier one.
    pub duplicates: u64,
    /// Entries of a folder that were left out: files that are hidden or not text, `.json`, `.csv` and `.tsv` files,
    /// links to folders, links that lead nowhere.
    pub skipped_files: u64,
    /// Lines of JSONL files that were left out because they hold no document.
    #[serde(default)]
    pub malformed_lines: u64,
}
