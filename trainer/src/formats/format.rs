//! [`SaeFormat`]: the formats of SAEs on disk, by name, and the files by which each is recognized.

use std::{fmt, str::FromStr};

use crate::{Error, Result};

/// Any file name with the extension of OpenAI's SAEs.
pub(super) const ANY_PT: &str = "*.pt";

/// A format of SAEs on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaeFormat {
    /// `saelens`: SAELens 6, also used by refract; older folders can be read too.
    SaeLens,
    /// `sparsify`: EleutherAI's sparsify.
    Sparsify,
    /// `dictionary-learning`: the dictionary_learning package.
    DictionaryLearning,
    /// `gemma-scope`: Gemma Scope, for Gemma 2.
    GemmaScope,
    /// `gemma-scope-2`: Gemma Scope 2, for Gemma 3.
    GemmaScope2,
    /// `openai`: OpenAI's sparse_autoencoder.
    OpenAi,
    /// `llamascopium`: OpenMOSS' Language-Model-SAEs.
    Llamascopium,
    /// `llama-scope`: the folders of Llama Scope, an older format of the same tool; read only.
    LlamaScope,
}

impl SaeFormat {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::SaeLens,
        Self::Sparsify,
        Self::DictionaryLearning,
        Self::GemmaScope,
        Self::GemmaScope2,
        Self::OpenAi,
        Self::Llamascopium,
        Self::LlamaScope,
    ];

    /// The formats that are written as well as read, by name.
    pub fn written() -> String {
        let written = Self::ALL.into_iter().filter(|format| *format != Self::LlamaScope);
        written.map(Self::name).collect::<Vec<_>>().join(", ")
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SaeLens => "saelens",
            Self::Sparsify => "sparsify",
            Self::DictionaryLearning => "dictionary-learning",
            Self::GemmaScope => "gemma-scope",
            Self::GemmaScope2 => "gemma-scope-2",
            Self::OpenAi => "openai",
            Self::Llamascopium => "llamascopium",
            Self::LlamaScope => "llama-scope",
        }
    }

    /// The files of an SAE, its weights last. All of them must exist.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::SaeLens => &["cfg.json", "sae_weights.safetensors"],
            Self::Sparsify => &["cfg.json", "sae.safetensors"],
            Self::DictionaryLearning => &["config.json", "ae.pt"],
            Self::GemmaScope => &["params.npz"],
            Self::GemmaScope2 => &["config.json", "params.safetensors"],
            Self::OpenAi => &[ANY_PT],
            Self::Llamascopium => &["config.json", "sae_weights.safetensors"],
            Self::LlamaScope => &["hyperparams.json", "checkpoints/final.safetensors"],
        }
    }

    pub(super) fn weights_file(self) -> &'static str {
        self.files().last().expect("every format has files")
    }
}

impl fmt::Display for SaeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for SaeFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|format| format.name() == text);
        found.ok_or_else(|| Error::invalid("format", Self::written(), format!("`{text}`")))
    }
}
