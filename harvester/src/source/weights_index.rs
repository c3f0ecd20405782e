//! The index of a model whose weights are split over several safetensors files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde::Deserialize;

use super::names::is_file;
use crate::{Error, Result, store::python_json};

/// The weights of a model folder, if they are in one file.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// Name of the index.
pub(crate) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// The names of the weight files that the file `index` lists. They become paths, so they must stay inside the folder.
pub(crate) fn shards_of(index: &Path) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let malformed = |found: String| {
        Error::malformed(index, "an index of weight files", found, "Remove it, and download the model again")
    };
    let text = fs::read_to_string(index).map_err(Error::io("read", index))?;
    let parsed: Index = python_json(&text).map_err(|source| malformed(source.to_string()))?;
    let shards: BTreeSet<_> = parsed.weight_map.into_values().collect();
    match shards.iter().find(|name| !is_file(name)) {
        Some(name) => Err(malformed(format!("the file name `{name}`"))),
        None => Ok(shards),
    }
}
