//! [`WhyLeftOut`]: why a document of a corpus is in no context.

use serde::{Deserialize, Serialize};

/// Why a document is in no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum WhyLeftOut {
    /// It has no token.
    Empty,
    /// It has fewer than `min_document_tokens` tokens.
    Short,
    /// Its text was seen before.
    Repeated,
    /// The chat template refuses it, or a turn of it has no content.
    Refused,
    /// Its line holds no document.
    Malformed,
    /// The corpus ended before its tokens filled a context.
    Tail,
}

impl WhyLeftOut {
    /// The word in the table of documents.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "empty",
            Self::Short => "short",
            Self::Repeated => "repeated",
            Self::Refused => "refused",
            Self::Malformed => "malformed",
            Self::Tail => "tail",
        }
    }
}
