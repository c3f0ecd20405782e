//! [`document_of_line`]: the document in a line of a JSONL file.

use serde_json::Value;

use super::{CorpusOptions, Document};

/// The document of a JSONL line, or what is there instead.
pub(super) fn document_of_line(line: &[u8], options: &CorpusOptions) -> Result<Document, String> {
    let field = options.field();
    // Some editors begin a file with a mark of its encoding.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(mut object)) => match (object.remove(field), &options.chat_field) {
            // As in a table: counted as empty.
            (Some(Value::Null), Some(_)) => Ok(Document::Chat(vec![])),
            (Some(Value::Null), None) => Ok(Document::Text(String::new())),
            (Some(value), Some(_)) => {
                Document::chat_of(value).map_err(|found| format!("in the field `{field}` {found}"))
            }
            (Some(Value::String(text)), None) => Ok(Document::Text(text)),
            (Some(_), None) => Err(format!("a field `{field}` that is no string")),
            (None, _) => {
                let fields: Vec<_> = object.keys().map(String::as_str).collect();
                Err(format!("an object with the fields [{}]", fields.join(", ")))
            }
        },
        Ok(_) => Err("JSON that is no object".into()),
        Err(error) => Err(format!("{error}")),
    }
}
