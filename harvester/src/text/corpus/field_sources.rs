//! [`FieldSources`]: sources by the value of a field (`source_field`). A document without a value is of the source that
//! has the name of its file.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::document::kind_of;
use crate::human::grouped;

/// Most sources that the values of a field make. Every manifest and every latent has a number for each source.
const MOST_SOURCES: usize = 1000;

/// Longest value of the field, in bytes.
const MOST_BYTES: usize = 200;

/// A source that is a value of the field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedSource {
    /// The value; for documents without one, the name of their file.
    pub name: String,
    /// Number of its documents in the corpus.
    pub documents: u64,
}

/// The sources, and the one of each document.
#[derive(Debug, Clone, Default)]
pub(super) struct FieldSources {
    pub(super) sources: Vec<NamedSource>,
    /// By document number: an index into `sources`.
    pub(super) of_document: Vec<u32>,
    by_name: HashMap<String, u32>,
    /// Number of sources that are values.
    values: usize,
}

impl FieldSources {
    /// Adds the next document, with its value, or the name of its file. The error says what is wrong with the value.
    pub(super) fn push(&mut self, value: Option<&str>, file: &str) -> Result<(), String> {
        let name = value.unwrap_or(file);
        let source = match self.by_name.get(name) {
            Some(source) => *source,
            None => {
                self.values += usize::from(value.is_some());
                if self.values > MOST_SOURCES {
                    let shown: Vec<_> =
                        self.sources.iter().take(2).map(|source| format!("`{}`", source.name)).collect();
                    return Err(format!("more than {}: {}, ..", grouped(MOST_SOURCES as u64), shown.join(", ")));
                }
                let source = self.sources.len() as u32;
                self.sources.push(NamedSource { name: name.to_owned(), documents: 0 });
                self.by_name.insert(name.to_owned(), source);
                source
            }
        };
        self.sources[source as usize].documents += 1;
        self.of_document.push(source);
        Ok(())
    }

    /// True if a document has a value.
    pub(super) fn has_values(&self) -> bool {
        self.values > 0
    }

    /// The sources of documents that an earlier run found; `None` if they contradict each other.
    pub(super) fn saved(names: Vec<String>, of_document: Vec<u32>) -> Option<Self> {
        let mut sources: Vec<_> = names.into_iter().map(|name| NamedSource { name, documents: 0 }).collect();
        for source in &of_document {
            sources.get_mut(*source as usize)?.documents += 1;
        }
        Some(Self { sources, of_document, ..Self::default() })
    }
}

/// A value of the field as the name of a source; `None` if it is null or empty. The error says what was found instead
/// of a short text or a number.
pub(super) fn source_name(value: &Value) -> Result<Option<String>, String> {
    let name = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => return Err(kind_of(value).into()),
    };
    match name.len() {
        0 => Ok(None),
        1..=MOST_BYTES => Ok(Some(name)),
        bytes => Err(format!("a text of {} bytes", grouped(bytes as u64))),
    }
}

/// What a value should be, for messages.
pub(super) fn expected_value(field: &str) -> String {
    format!("in the field `{field}` (`source_field`) a short text or a number, which names the document's source")
}

/// What there should be of values, for messages.
pub(super) fn expected_values(field: &str) -> String {
    format!("at most {} values of the field `{field}` (`source_field`)", grouped(MOST_SOURCES as u64))
}

/// What to do about a field that makes no sources.
pub(super) fn hint(field: &str) -> String {
    format!(
        "Each value becomes a source to compare, so name a field with few; `keep_fields` {field} writes any value \
         beside its document"
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{fs, path::PathBuf};

    use serde_json::json;

    use super::*;
    use crate::{Corpus, CorpusOptions};

    fn options() -> CorpusOptions {
        CorpusOptions { source_field: Some("lang".into()), ..CorpusOptions::default() }
    }

    fn open(files: &[(&str, String)]) -> crate::Result<Corpus> {
        let folder = tempfile::tempdir().unwrap();
        let paths: Vec<PathBuf> = files.iter().map(|(name, _)| folder.path().join(name)).collect();
        files.iter().zip(&paths).for_each(|((_, text), path)| fs::write(path, text).unwrap());
        Corpus::open(&paths, &options())
    }

    fn line(text: &str, lang: &Value) -> String {
        format!("{}\n", json!({ "text": text, "lang": lang }))
    }

    #[test]
    fn values_are_sources_across_files_and_a_document_without_one_is_of_its_file() {
        let one = [line("a", &json!("en")), line("b", &json!("fr")), line("c", &json!("en"))].concat();
        let two = [line("d", &json!("fr")), line("e", &json!(7)), line("f", &Value::Null), line("a", &json!("de"))];
        let corpus = open(&[("one.jsonl", one), ("two.jsonl", two.concat()), ("prose.txt", "p".into())]).unwrap();
        let of = corpus.document_sources();
        let found = corpus.named_sources();
        let name = |document| of.of(document).map(|source| found[source].name.as_str());
        assert_eq!(
            (0..8).map(name).collect::<Vec<_>>(),
            [Some("en"), Some("fr"), Some("en"), Some("fr"), Some("7"), Some("two"), Some("prose"), None]
        );
        let counts: Vec<_> = found.iter().map(|source| (source.name.as_str(), source.documents)).collect();
        assert_eq!(counts, [("en", 2), ("fr", 2), ("7", 1), ("two", 1), ("prose", 1)]);
    }

    #[test]
    fn a_field_that_names_no_sources_is_refused_with_what_to_do() {
        let message = |text: String| open(&[("lines.jsonl", text)]).unwrap_err().to_string();
        let listed = message([line("a", &json!("en")), line("b", &json!(["en"]))].concat());
        assert!(listed.contains("lines.jsonl:2") && listed.contains("`lang`") && listed.contains("a list"), "{listed}");
        let long = message(line("a", &json!("x".repeat(201))));
        assert!(long.contains("a text of 201 bytes") && long.contains("`keep_fields` lang"), "{long}");
        let many: String = (0..1001).map(|i| line(&i.to_string(), &json!(format!("id {i}")))).collect();
        let many = message(many);
        assert!(many.contains("lines.jsonl:1001") && many.contains("at most 1,000"), "{many}");
        assert!(many.contains("more than 1,000: `id 0`, `id 1`") && many.contains("`keep_fields` lang"), "{many}");
        let absent = message("{\"text\": \"a\"}\n".into());
        assert!(
            absent.contains("`source_field` lang") && absent.contains("none, or only null and NaN, in"),
            "{absent}"
        );
    }
}
