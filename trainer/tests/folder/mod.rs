//! Reads the files of a folder, for tests that compare whole runs.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test that includes this file uses only a part of it")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

pub(crate) type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every file of a folder by relative path.
pub(crate) fn files(dir: &Path) -> Files {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// The same without checkpoints: an interrupted run may have others.
pub(crate) fn without_checkpoints(dir: &Path) -> Files {
    files(dir).into_iter().filter(|(path, _)| !path.starts_with("checkpoints")).collect()
}

/// Checks that both have the same names with the same bytes.
pub(crate) fn assert_same(found: &Files, expected: &Files, what: &str) {
    assert!(found.keys().eq(expected.keys()), "{what}: {:?}\n{:?}", found.keys(), expected.keys());
    let differ: Vec<_> =
        found.iter().filter(|(path, bytes)| expected[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(differ.is_empty(), "{what}: {differ:?} differ");
}
