//! [`ContextOptions`]: options for turning documents into contexts. `contexts.rs` implements them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Packing of documents into contexts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// Documents follow one another without a gap: no position is wasted, and a token may see the end of an earlier
    /// document.
    #[default]
    Concatenate,
    /// Each document starts its own context, which is as long as the document.
    Document,
}

/// Treatment of documents longer than a context, with [`Packing::Document`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LongDocuments {
    /// The rest fills the next context, and so on.
    #[default]
    Split,
    /// The rest is dropped and counted.
    Truncate,
}

/// Options of packing, with the token ids taken from the tokenizer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ContextOptions {
    /// Most tokens per context.
    pub ctx_len: usize,
    /// Token after every document.
    pub separator: Option<u32>,
    /// Token at position 0 of every context.
    pub bos: Option<u32>,
    /// Packing of documents into contexts.
    pub packing: Packing,
    /// Treatment of documents longer than a context, with [`Packing::Document`].
    pub long_documents: LongDocuments,
    /// Most tokens used of one document; `None`: all of them.
    pub document_tokens: Option<usize>,
    /// Documents with fewer tokens are left out.
    pub min_document_tokens: usize,
}

/// Command-line names, spelled as in serde.
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
