//! [`CorpusOptions`]: which part of a file is a document, and which documents count. Part of a harvest's identity.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Options for reading the files of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CorpusOptions {
    /// The field of a JSONL line, or the column of a parquet file, that holds the document. Several names are separated
    /// by commas: the first that a line or file has counts.
    pub text_field: String,
    /// The field or column that holds a conversation, which the model's chat template formats; `None`: use
    /// `text_field`.
    pub chat_field: Option<String>,
    /// Fields of a JSONL line, or columns of a parquet file, whose values are written into the table of documents.
    pub keep_fields: Vec<String>,
    /// A field of a JSONL line, or a column of a parquet file: each of its values becomes a source; `None`: sources are
    /// files and folders.
    pub source_field: Option<String>,
    /// Leaves out a document whose text was seen before. Rows of parquet files are compared while they are harvested.
    pub drop_duplicates: bool,
    /// Leaves out and counts JSONL lines that hold no document; if false (default), such a line is an error.
    pub skip_malformed: bool,
    /// Most bytes of a document; a longer one is an error, because documents are tokenized in memory.
    pub max_document_bytes: u64,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self {
            text_field: "text".into(),
            chat_field: None,
            keep_fields: vec![],
            source_field: None,
            drop_duplicates: true,
            skip_malformed: false,
            max_document_bytes: 16 << 20,
        }
    }
}

impl CorpusOptions {
    /// The field or column that holds the document.
    pub(super) fn field(&self) -> &str {
        self.chat_field.as_ref().unwrap_or(&self.text_field)
    }

    /// The first of the named fields or columns that `has` finds, else the first.
    pub(super) fn present(&self, has: impl Fn(&str) -> bool) -> &str {
        if let Some(field) = &self.chat_field {
            return field;
        }
        let mut names = self.text_field.split(',');
        let first = names.next().unwrap_or_default();
        if has(first) { first } else { names.find(|name| has(name)).unwrap_or(first) }
    }

    /// Refuses a document that is too long to be held in memory.
    pub(super) fn check_size(&self, name: &str, bytes: u64) -> Result<()> {
        if bytes <= self.max_document_bytes {
            return Ok(());
        }
        let (most, mib) = (self.max_document_bytes >> 20, bytes >> 20);
        let hint = "Cut it into several documents, or allow it with `max_document_bytes`";
        Err(Error::malformed(name, format!("a document of {most} MiB or less"), format!("{mib} MiB or more"), hint))
    }
}
