//! [`Context`]: the tokens of one model input; [`ContextCursor`]: the position in the text at which the next one starts;
//! [`LeftOut`]: counts of what is in no context.

use serde::{Deserialize, Serialize};

use super::{corpus::WhyLeftOut, tokenizer::Role};
use crate::human;

/// One context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Number of the context, from 0.
    pub index: u64,
    /// Token ids: `ctx_len` of them, or fewer if each document has its own contexts.
    pub tokens: Vec<u32>,
    /// The document of each token, as many as `tokens`. BOS belongs to the document of the token after it, a separator
    /// to that of the token before it.
    pub documents: Vec<u64>,
    /// Who said each token, as many as `tokens`; `None` for one of a plain text. Empty if the corpus has no
    /// conversations. BOS and separators belong to the template.
    pub roles: Vec<Option<Role>>,
    /// Position at which the next context starts.
    pub next: ContextCursor,
}

/// A position in the stream of tokens. Everything before it is in finished contexts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextCursor {
    /// Finished contexts.
    pub contexts: u64,
    /// Documents fully used, in the harvest's order.
    pub documents: u64,
    /// Used tokens of the next document, including its separator.
    pub tokens: u64,
    /// Everything left out of the used documents, and of the next one once one of its tokens is used.
    #[serde(default, skip_serializing_if = "LeftOut::is_nothing")]
    pub(crate) left_out: LeftOut,
}

/// Counts of what no context holds, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct LeftOut {
    /// Documents without a token.
    pub(crate) empty_documents: u64,
    /// Documents of fewer than `min_document_tokens` tokens.
    pub(crate) short_documents: u64,
    /// Rows of a parquet file that repeat an earlier row.
    pub(crate) repeated_documents: u64,
    /// Conversations that the model's chat template refuses, or cannot write as they are.
    pub(crate) refused_documents: u64,
    /// Tokens after the first `document_tokens`, or after the document's only context.
    pub(crate) truncated_tokens: u64,
}

impl LeftOut {
    /// True if nothing was left out.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// The reasons why text was left out, with counts.
    pub(crate) fn reasons(&self) -> impl Iterator<Item = String> {
        let reasons = [
            (self.empty_documents, "empty document", ""),
            (self.short_documents, "document", " shorter than `min_document_tokens`"),
            (self.repeated_documents, "repeated document", ""),
            (self.refused_documents, "conversation", " that the chat template refuses"),
            (self.truncated_tokens, "token", " of long documents"),
        ];
        let some = reasons.into_iter().filter(|(n, ..)| *n > 0);
        some.map(|(n, what, which)| format!("{}{which}", human::counted(n, what)))
    }

    /// Number of whole documents left out.
    pub(crate) fn documents(&self) -> u64 {
        self.empty_documents + self.short_documents + self.repeated_documents + self.refused_documents
    }

    /// Counts a document.
    pub(super) fn count(&mut self, why: WhyLeftOut) {
        match why {
            WhyLeftOut::Empty => self.empty_documents += 1,
            WhyLeftOut::Short => self.short_documents += 1,
            WhyLeftOut::Repeated => self.repeated_documents += 1,
            WhyLeftOut::Refused => self.refused_documents += 1,
            // These are not counted here: they are no documents of the order, or were read whole.
            WhyLeftOut::Malformed | WhyLeftOut::Tail => {}
        }
    }

    /// Sum of the two.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        Self {
            empty_documents: self.empty_documents + other.empty_documents,
            short_documents: self.short_documents + other.short_documents,
            repeated_documents: self.repeated_documents + other.repeated_documents,
            refused_documents: self.refused_documents + other.refused_documents,
            truncated_tokens: self.truncated_tokens + other.truncated_tokens,
        }
    }
}
