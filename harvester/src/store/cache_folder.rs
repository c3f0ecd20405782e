//! [`cache_folder`]: the folder on this machine in which refract keeps models, copies of corpora and unfinished
//! uploads.

use std::{env, path::PathBuf};

use crate::{Error, Result};

/// Folder for files that refract keeps between runs: `$REFRACT_CACHE`, else `$XDG_CACHE_HOME/refract`, else
/// `~/.cache/refract`.
///
/// # Errors
/// None of the three variables is set.
pub(crate) fn cache_folder() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("REFRACT_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|cache| cache.join("refract")))
        .or_else(|| set("HOME").map(|home| home.join(".cache").join("refract")))
        .ok_or_else(|| Error::invalid("REFRACT_CACHE", "a folder to keep models in", "neither REFRACT_CACHE nor HOME"))
}
