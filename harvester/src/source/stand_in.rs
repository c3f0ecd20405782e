//! [`stand_in`]: what people have in place of a large file that they believe they have downloaded.

use std::{fs::File, io::Read, path::Path};

/// The known content that a file has instead of what its name promises, and the next step.
pub(crate) fn stand_in(path: &Path) -> Option<(&'static str, &'static str)> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(64).read_to_end(&mut start).ok()?;
    let text = start.trim_ascii_start().to_ascii_lowercase();
    if text.starts_with(b"version https://git-lfs") {
        return Some(("a Git LFS pointer", "Get the file that it stands for with `git lfs pull`"));
    }
    if text.starts_with(b"<!doctype html") || text.starts_with(b"<html") {
        return Some(("a web page", "Download the file itself: its address on the Hub has `resolve`, not `blob`"));
    }
    None
}
