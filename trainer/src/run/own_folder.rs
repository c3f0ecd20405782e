//! [`refuse_foreign`]: whether a folder is ours to write to: new, or what an interrupted beginning of ours left. It
//! stands apart because runs and sweeps both ask, before they write the file that says that the folder is theirs.

use std::path::Path;

use crate::{Error, Result};

/// Refuses a folder that holds anything but the names `ours`: an SAE of another tool, or anything else of the user's.
/// `command` would have written `missing` into a folder of its own.
pub(crate) fn refuse_foreign(out: &Path, ours: &[String], command: &str, missing: &str) -> Result<()> {
    let entries = std::fs::read_dir(out).map_err(Error::io("list", out))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    match names.into_iter().find(|name| !ours.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let expected = format!("an empty folder, or one that {command} wrote");
            let found = format!("a folder without {missing} that holds `{name}`");
            Err(Error::malformed(out, expected, found, "Choose another --out"))
        }
    }
}
