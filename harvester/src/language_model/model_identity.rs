//! [`ModelIdentity`]: which model an artifact is of, and where to find it again.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    Location,
    model::Family,
    store::{real_path, relative_path},
};

/// Which model, to the bit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelIdentity {
    /// Where to find it again: a [`crate::ModelSource`] as text.
    pub source: String,
    /// Where `source` is a path: the path from the folder that holds the manifest, so that both can be moved together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<String>,
    /// Its family.
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
    /// The same model, as a manifest in `folder` refers to it.
    #[must_use]
    pub fn seen_from(&self, folder: &Location) -> Self {
        let path = Path::new(&self.source);
        let local = folder.local().filter(|_| path.is_absolute());
        Self { relative: local.and_then(|folder| relative_path(folder, path)), ..self.clone() }
    }

    /// The same model where it is now, as the manifest in `folder` says. Its hash is compared when it is loaded.
    #[must_use]
    pub fn located(mut self, folder: &Location) -> Self {
        let near = folder.local().zip(self.relative.as_ref()).map(|(folder, relative)| folder.join(relative));
        if let Some(near) = near.filter(|near| near.exists() && real_path(near) != real_path(Path::new(&self.source))) {
            self.source = real_path(&near).display().to_string();
        }
        self
    }
}
