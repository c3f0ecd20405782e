//! [`ModelIdentity`]: the model of an artifact, and a source that finds it again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Location,
    model::Family,
    store::{real_place, relative_path},
};

/// Identifies the model exactly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// A [`crate::ModelSource`] as text, which finds the model again.
    pub source: String,
    /// If `source` is a path: the path relative to the folder of the manifest, so that both can be moved together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<String>,
    /// The place that is tried next: the one that the manifest names, if `source` is the one beside the manifest.
    #[serde(skip)]
    pub recorded: Option<String>,
    /// Family of the model.
    pub family: Family,
    /// SHA-256 of the weights.
    pub sha256: String,
    /// SHA-256 of the tokenizer.
    pub tokenizer_sha256: String,
    /// Number of blocks.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Rows of the embedding.
    pub d_vocab: usize,
}

impl ModelIdentity {
    /// The same model, as referred to by a manifest in `folder`.
    #[must_use]
    pub fn seen_from(&self, folder: &Location) -> Self {
        let path = Path::new(&self.source);
        let local = folder.local().filter(|_| path.is_absolute());
        Self { relative: local.and_then(|folder| relative_place(folder, path)), recorded: None, ..self.clone() }
    }

    /// The same model at its place relative to `folder`, which holds the manifest, if there is something; if there is
    /// nothing at either place, both are tried, and named. Hashes are checked when it is loaded.
    #[must_use]
    pub fn located(mut self, folder: &Location) -> Self {
        let near = folder.local().zip(self.relative.as_ref()).map(|(folder, relative)| folder.join(relative));
        let old = Path::new(&self.source);
        let Some(near) = near.filter(|near| real_place(near) != real_place(old)) else { return self };
        let place = real_place(&near).display().to_string();
        if near.exists() {
            self.recorded = Some(std::mem::replace(&mut self.source, place));
        } else if !old.exists() {
            self.recorded = Some(place);
        }
        self
    }
}

/// The path relative to `folder`; a file that is a link keeps its name, as for [`real_place`].
fn relative_place(folder: &Path, path: &Path) -> Option<String> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if path.is_file() => {
            Some(format!("{}/{}", relative_path(folder, parent)?, name.to_string_lossy()))
        }
        _ => relative_path(folder, path),
    }
}

#[cfg(all(test, unix))]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn a_model_that_is_at_neither_place_is_looked_for_at_both() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("moved/sae")).unwrap();
        let identity = ModelIdentity {
            source: root.join("old/model").display().to_string(),
            relative: Some("../model".into()),
            recorded: None,
            family: Family::Llama,
            sha256: String::new(),
            tokenizer_sha256: String::new(),
            n_layers: 1,
            d_model: 1,
            d_vocab: 1,
        };
        let located = identity.located(&root.join("moved/sae").as_path().into());
        let message = crate::LanguageModel::find(&located, &crate::Silent).unwrap_err().to_string();
        for place in ["moved/model", "old/model"] {
            assert!(message.contains(&root.join(place).display().to_string()), "{message}");
        }
    }

    #[test]
    fn links_are_recorded_as_what_they_lead_to_and_files_keep_their_names() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        for folder in ["models/one", "blobs", "runs"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("blobs/0a1b"), "GGUF").unwrap();
        symlink(root.join("blobs/0a1b"), root.join("models/one/small.gguf")).unwrap();
        symlink(root.join("models/one"), root.join("current")).unwrap();
        for (given, recorded) in [("current", "models/one"), ("current/small.gguf", "models/one/small.gguf")] {
            let source = real_place(&root.join(given));
            assert_eq!(source, root.join(recorded));
            assert_eq!(relative_place(&root.join("runs"), &source), Some(format!("../{recorded}")));
        }
    }
}
