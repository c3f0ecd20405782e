//! [`ContextOptions`]: how documents become contexts, as it is asked for. What it does is in `contexts.rs`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How documents fill contexts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// One after the other without a gap: no position is wasted, and a token may see the end of an earlier document.
    #[default]
    Concatenate,
    /// Each begins a context of its own, which is as long as the document.
    Document,
}

/// What happens to the rest of a document that is longer than a context, where each has a context of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LongDocuments {
    /// It is the next context, and so on.
    #[default]
    Split,
    /// It is dropped, and counted.
    Truncate,
}

/// How documents are packed. Token ids, resolved from the tokenizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ContextOptions {
    /// Tokens a context at most.
    pub ctx_len: usize,
    /// Follows every document.
    pub separator: Option<u32>,
    /// At position 0 of every context.
    pub bos: Option<u32>,
    /// How documents fill contexts.
    pub packing: Packing,
    /// What happens to long ones where each has a context of its own.
    pub long_documents: LongDocuments,
    /// Tokens used of a document at most; the whole document when absent.
    pub document_tokens: Option<usize>,
    /// Documents of fewer tokens are left out.
    pub min_document_tokens: usize,
}

/// Names on the command line, as serde spells them.
macro_rules! named {
    ($kind:ident, $what:literal, $($name:literal => $variant:ident),+) => {
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $name),+ })
            }
        }

        impl FromStr for $kind {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(Error::invalid($what, [$($name),+].join(" or "), format!("`{text}`"))),
                }
            }
        }
    };
}

named!(Packing, "packing", "concatenate" => Concatenate, "document" => Document);
named!(LongDocuments, "long documents", "split" => Split, "truncate" => Truncate);
