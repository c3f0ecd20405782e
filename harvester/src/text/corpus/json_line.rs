//! [`document_of_line`]: the document in a line of a JSONL file.

use serde_json::Value;

use super::{CorpusOptions, Document};

/// Parses the document of a JSONL line. The error says what was found instead.
pub(super) fn document_of_line(line: &[u8], options: &CorpusOptions) -> Result<Document, String> {
    let field = options.field();
    // Some editors put a byte order mark at the start of a file.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(mut object)) => match (object.remove(field), &options.chat_field) {
            // Counts as an empty document, as in a table.
            (Some(Value::Null), Some(_)) => Ok(Document::Chat(vec![])),
            (Some(Value::Null), None) => Ok(Document::Text(String::new())),
            (Some(value), Some(_)) => {
                Document::chat_of(value).map_err(|found| format!("in the field `{field}` {found}"))
            }
            (Some(Value::String(text)), None) => Ok(Document::Text(text)),
            (Some(_), None) => Err(format!("a field `{field}` that is not a string")),
            (None, _) => {
                let fields: Vec<_> = object.keys().map(String::as_str).collect();
                Err(format!("an object with the fields [{}]", fields.join(", ")))
            }
        },
        Ok(_) => Err("JSON that is not an object".into()),
        Err(error) => Err(format!("{error}")),
    }
}
