//! [`record_of_line`]: the document in a line of a JSONL file, with the fields kept beside it.

use serde_json::{Map, Value};

use super::{CorpusOptions, Document, Record, field_sources::source_name};
use crate::store::python_json_or_null;

/// The byte-order mark (BOM) of UTF-8, which is not part of the text.
pub(super) const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a line holds no document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    /// The thing that was found instead.
    pub(super) found: String,
    /// A field that holds a conversation, if a text was looked for.
    pub(super) conversation: Option<String>,
    /// The path of a text inside an object, if the field is not there.
    pub(super) inside: Option<String>,
    /// True if the document is fine, but not its value of `source_field`.
    pub(super) is_of_source: bool,
}

impl From<String> for BadLine {
    fn from(found: String) -> Self {
        Self { found, conversation: None, inside: None, is_of_source: false }
    }
}

/// Parses a JSONL line.
pub(super) fn record_of_line(line: &[u8], options: &CorpusOptions) -> Result<Record, BadLine> {
    let line = line.strip_prefix(UTF8_BOM).unwrap_or(line).trim_ascii_end();
    match parse(line).map_err(|error| not_json(&error))? {
        Value::Object(object) => {
            let kept = options.keep_fields.iter().map(|field| kept_text(value_at(&object, field)?)).collect();
            let source = options.source_field.as_ref().and_then(|field| value_at(&object, field));
            let source = source.map_or(Ok(None), source_name);
            let document = document_of(&object, options)?;
            let source = source.map_err(|found| BadLine { is_of_source: true, ..BadLine::from(found) })?;
            Ok(Record { document, kept, source })
        }
        Value::Array(_) => Err(BadLine::from("a JSON list: each line must hold one object".to_owned())),
        _ => Err(BadLine::from("JSON that is not an object".to_owned())),
    }
}

/// Python writes NaN and the infinities, which are no JSON.
fn parse(line: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(line).or_else(|error| {
        let of_python = std::str::from_utf8(line).ok().and_then(|line| python_json_or_null(line).ok());
        of_python.ok_or(error)
    })
}

/// The parser counts lines from the one it was given, which is not the file's.
fn not_json(error: &serde_json::Error) -> BadLine {
    let said = error.to_string();
    let said = said.split(" at line ").next().unwrap_or(&said);
    BadLine::from(format!("what is not JSON ({said}, at byte {} of the line)", error.column()))
}

/// The value at a path: the field of that name, or, with dots in it, a field inside objects.
pub(super) fn value_at<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    let inside = || {
        let dots = path.match_indices('.').map(|(at, _)| at);
        dots.filter_map(|at| value_at(object.get(&path[..at])?.as_object()?, &path[at + 1..])).next()
    };
    object.get(path).or_else(inside)
}

/// The path of a string inside the objects of `object`, preferably one with the name `wanted`.
fn path_inside(object: &Map<String, Value>, wanted: &str) -> Option<String> {
    fn add(object: &Map<String, Value>, before: &str, paths: &mut Vec<String>) {
        for (name, value) in object {
            match value {
                Value::String(_) if !before.is_empty() => paths.push(format!("{before}{name}")),
                Value::Object(inner) => add(inner, &format!("{before}{name}."), paths),
                _ => {}
            }
        }
    }
    let mut paths = vec![];
    add(object, "", &mut paths);
    let last = format!(".{}", wanted.rsplit('.').next().unwrap_or_default());
    paths.iter().find(|path| path.ends_with(&last)).or(paths.first()).cloned()
}

fn document_of(object: &Map<String, Value>, options: &CorpusOptions) -> Result<Document, BadLine> {
    let field = options.present(|field| value_at(object, field).is_some());
    match (value_at(object, field).cloned(), &options.chat_field) {
        // Counts as an empty document, as in a table.
        (Some(Value::Null), Some(_)) => Ok(Document::Chat(vec![])),
        (Some(Value::Null), None) => Ok(Document::Text(String::new())),
        (Some(value), Some(_)) => {
            Document::chat_of(value).map_err(|found| BadLine::from(format!("in the field `{field}` {found}")))
        }
        (Some(Value::String(text)), None) => Ok(Document::Text(text)),
        (Some(value), None) => {
            let conversation = is_conversation(&value).then(|| field.to_owned());
            Err(BadLine { conversation, ..BadLine::from(format!("a field `{field}` that is not a string")) })
        }
        (None, _) => {
            let fields: Vec<_> = object.keys().map(String::as_str).collect();
            let conversation = object.iter().find(|(_, value)| is_conversation(value)).map(|(field, _)| field.clone());
            let conversation = conversation.filter(|_| options.chat_field.is_none());
            let inside = path_inside(object, field).filter(|_| options.chat_field.is_none());
            let found = format!("an object with the fields [{}]", fields.join(", "));
            Err(BadLine { conversation, inside, ..BadLine::from(found) })
        }
    }
}

/// True for a list of turns.
fn is_conversation(value: &Value) -> bool {
    let is_turn = |turn: &Value| turn.get("role").or(turn.get("from")).is_some_and(Value::is_string);
    value.as_array().is_some_and(|turns| !turns.is_empty() && turns.iter().all(is_turn))
}

/// A kept value: a string as it is, anything else as JSON; null is no value.
pub(super) fn kept_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn text(line: &str, options: &CorpusOptions) -> Result<String, BadLine> {
        record_of_line(line.as_bytes(), options).map(|record| match record.document {
            Document::Text(text) => text,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn numbers_that_only_python_writes_are_null() {
        let keep = CorpusOptions { keep_fields: vec!["x".into()], ..CorpusOptions::default() };
        let line = r#"{"text": "NaN \" -Infinity", "x": NaN, "y": [-Infinity, Infinity], "z": 1}"#;
        let record = record_of_line(line.as_bytes(), &keep).unwrap();
        assert_eq!(
            record,
            Record { document: Document::Text("NaN \" -Infinity".into()), kept: vec![None], source: None }
        );
        assert_eq!(text(r#"{"text": NaN}"#, &keep).unwrap(), "");
        assert!(text(r#"{"text": nan}"#, &keep).is_err());
    }

    #[test]
    fn what_is_wrong_with_a_line_is_said_in_words() {
        let options = CorpusOptions::default();
        let found = |line| text(line, &options).unwrap_err();
        assert_eq!(found("not json").found, "what is not JSON (expected ident, at byte 2 of the line)");
        assert!(found("{\"text\": \"cut").found.starts_with("what is not JSON (EOF while parsing a string"));
        let chat = found(r#"{"id": 1, "messages": [{"role": "user", "content": "hi"}]}"#);
        assert_eq!(chat.conversation.as_deref(), Some("messages"));
        assert!(chat.found.contains("[id, messages]"), "{chat:?}");
        let text = found(r#"{"text": [{"from": "human", "value": "hi"}]}"#);
        assert_eq!(text.conversation.as_deref(), Some("text"));
        assert_eq!(found(r#"{"texts": ["a"]}"#).conversation, None);
    }

    #[test]
    fn a_path_with_dots_is_a_field_inside_objects() {
        let of = |field: &str| CorpusOptions {
            text_field: field.into(),
            keep_fields: vec!["meta.id".into()],
            source_field: Some("meta.more.lang".into()),
            ..CorpusOptions::default()
        };
        let line = r#"{"meta": {"text": "a", "id": 7, "more": {"lang": "en"}, "b.c": "d"}, "meta.x": "whole"}"#;
        let record = record_of_line(line.as_bytes(), &of("meta.text")).unwrap();
        assert_eq!(record.document, Document::Text("a".into()));
        assert_eq!((record.kept, record.source), (vec![Some("7".into())], Some("en".into())));
        assert_eq!(text(line, &of("meta.x")).unwrap(), "whole", "a name with a dot in it");
        assert_eq!(text(line, &of("meta.b.c")).unwrap(), "d");
        assert_eq!(text(line, &of("text")).unwrap_err().inside.as_deref(), Some("meta.text"));
        assert_eq!(text(line, &of("meta.body")).unwrap_err().inside.as_deref(), Some("meta.text"));
        assert!(text(line, &of("meta.more")).unwrap_err().found.contains("that is not a string"));
    }

    #[test]
    fn files_may_name_their_texts_differently() {
        let options = CorpusOptions { text_field: "text,content".into(), ..CorpusOptions::default() };
        assert_eq!(text(r#"{"content": "a", "x": 1}"#, &options).unwrap(), "a");
        assert_eq!(text(r#"{"content": "a", "text": "b"}"#, &options).unwrap(), "b");
        assert!(text(r#"{"body": "a"}"#, &options).is_err());
    }
}
