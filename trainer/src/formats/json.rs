//! Configs in JSON, read with the file's name in every message and written whole.

use std::{fs, path::Path};

use harvester::write_atomically;
use serde::{Serialize, de::DeserializeOwned};

use crate::{Error, Result};

/// Reads `path` as `what`, such as "the cfg.json of an SAE"; `hint` is the next step where it is none.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, what: &str, hint: &str) -> Result<T> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|error| Error::malformed(path, what, error.to_string(), hint))
}

pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::io("write", path)(error.into()))?;
    write_atomically(path, &text)?;
    Ok(())
}

/// Refuses sizes of 0, before rows of that length are cut.
pub(crate) fn refuse_zero(path: &Path, fields: &str, [a, b]: [usize; 2]) -> Result<()> {
    if a == 0 || b == 0 { refuse(path, fields, "of 1 or more", format!("{a} and {b}")) } else { Ok(()) }
}

/// An error about a field of `path` whose value names something that cannot be computed here.
pub(crate) fn refuse<T>(path: &Path, field: &str, expected: impl AsRef<str>, found: impl AsRef<str>) -> Result<T> {
    let hint = "refract cannot compute what this SAE computes; convert it with its own tool first";
    Err(Error::malformed(path, format!("{field} {}", expected.as_ref()), format!("`{}`", found.as_ref()), hint))
}
