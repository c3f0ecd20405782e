//! Names of the files of one part, finished and unfinished.

use std::path::Path;

/// Name of part `number`.
pub(crate) fn part_file(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// Name of the journal of part `number`.
pub(super) fn journal_file(number: usize) -> String {
    format!("part-{number:05}.journal")
}

/// True if `path` is the journal of part `number`.
pub(super) fn is_journal_of(path: &Path, number: usize) -> bool {
    path.file_name().is_some_and(|name| name == journal_file(number).as_str())
}
