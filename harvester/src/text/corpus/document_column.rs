//! The column of a parquet file that holds documents: finds it and reads its values as documents.

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeStringArray, StructArray},
    compute::cast,
    datatypes::{DataType, Fields},
};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;

use super::{
    CorpusOptions, Document,
    document::{NOT_A_TURN, role_of},
};
use crate::{Error, Result};

/// Index of the column that holds the documents.
pub(super) fn column_of(metadata: &ArrowReaderMetadata, options: &CorpusOptions, name: &str) -> Result<usize> {
    let fields = metadata.schema().fields();
    let wanted = options.field();
    let usable = if options.chat_field.is_some() { is_chat } else { is_text };
    match fields.iter().position(|field| field.name() == wanted) {
        Some(at) if usable(fields[at].data_type()) => Ok(at),
        Some(at) => {
            let found = format!("`{wanted}` of type {}", fields[at].data_type());
            Err(Error::malformed(name, expected_column(options), found, "Name another column"))
        }
        None => {
            let names: Vec<_> =
                fields.iter().map(|field| format!("{} ({})", field.name(), field.data_type())).collect();
            let found = format!("the columns {}", names.join(", "));
            Err(Error::malformed(name, expected_column(options), found, hint(fields, options)))
        }
    }
}

/// A hint that names the flag for an existing column: one of the requested kind, else of the other kind.
fn hint(fields: &Fields, options: &CorpusOptions) -> String {
    let named = |usable: fn(&DataType) -> bool| fields.iter().find(|field| usable(field.data_type()));
    match (options.chat_field.is_some(), named(is_text), named(is_chat)) {
        (false, None, Some(chat)) => format!("Name conversations with `chat_field` {}", chat.name()),
        (true, Some(text), None) => format!("Name a column of text with `text_field` {}", text.name()),
        (false, ..) => "Name it with `text_field`".into(),
        (true, ..) => "Name it with `chat_field`".into(),
    }
}

/// The expected column, for messages.
pub(super) fn expected_column(options: &CorpusOptions) -> String {
    match &options.chat_field {
        Some(field) => format!("a column `{field}` of lists of turns, each with role and content or from and value"),
        None => format!("a column `{}` of text", options.text_field),
    }
}

fn is_chat(kind: &DataType) -> bool {
    match kind {
        DataType::List(item) | DataType::LargeList(item) => matches!(item.data_type(), DataType::Struct(_)),
        _ => false,
    }
}

fn is_text(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Casts a column of text to one type. A cast turns bytes that are not UTF-8 into null, so a new null is an error.
fn as_text(column: &ArrayRef) -> std::result::Result<LargeStringArray, String> {
    let text = cast(column, &DataType::LargeUtf8).map_err(|error| error.to_string())?;
    if text.null_count() > column.null_count() {
        return Err("bytes that are not UTF-8".into());
    }
    Ok(text.as_string::<i64>().clone())
}

/// The documents of a text column. A row without a value is an empty document.
pub(super) fn texts(column: &ArrayRef) -> std::result::Result<Vec<Document>, String> {
    Ok(as_text(column)?.iter().map(|text| Document::Text(text.unwrap_or_default().to_string())).collect())
}

/// The documents of a column of lists of turns.
pub(super) fn chats(column: &ArrayRef) -> std::result::Result<Vec<Document>, String> {
    let wide = match column.data_type() {
        DataType::List(item) => {
            cast(column, &DataType::LargeList(Arc::clone(item))).map_err(|error| error.to_string())?
        }
        _ => Arc::clone(column),
    };
    let lists = wide.as_list::<i64>();
    let turns = lists.values().as_struct();
    let (roles, contents, are_ours) = turn_columns(turns)?;
    let turn = |at: usize| {
        let role = roles.value(at).to_string();
        let content = contents.is_valid(at).then(|| contents.value(at).to_string());
        let is_one = turns.is_valid(at) && roles.is_valid(at);
        is_one.then_some((if are_ours { role } else { role_of(role) }, content))
    };
    let ends = lists.value_offsets();
    let conversation = |row: usize| {
        let turns = if lists.is_valid(row) { ends[row] as usize..ends[row + 1] as usize } else { 0..0 };
        let turns: Option<Vec<_>> = turns.map(turn).collect();
        turns.map(Document::chat_of_turns).ok_or_else(|| format!("in row {row} of these {NOT_A_TURN}"))
    };
    (0..lists.len()).map(conversation).collect()
}

/// Speaker and content of each turn, and whether the roles have the names that templates use.
fn turn_columns(turns: &StructArray) -> std::result::Result<(LargeStringArray, LargeStringArray, bool), String> {
    for (role, content, ours) in [("role", "content", true), ("from", "value", false)] {
        if let (Some(roles), Some(contents)) = (turns.column_by_name(role), turns.column_by_name(content)) {
            return Ok((as_text(roles)?, as_text(contents)?, ours));
        }
    }
    Err(format!("turns with the fields [{}]", turns.column_names().join(", ")))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::{
        array::{ListArray, StringArray},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;
    use crate::text::corpus::json_line::document_of_line;

    /// Conversations of one turn each.
    fn column(turns: &[(Option<&str>, Option<&str>)]) -> ArrayRef {
        let (roles, contents): (Vec<_>, Vec<_>) = turns.iter().copied().unzip();
        let fields = Fields::from(["role", "content"].map(|name| Field::new(name, DataType::Utf8, true)).to_vec());
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(roles)), Arc::new(StringArray::from(contents))];
        let structs = StructArray::new(fields.clone(), columns, None);
        let item = Arc::new(Field::new("item", DataType::Struct(fields), true));
        let ends = OffsetBuffer::from_lengths(turns.iter().map(|_| 1));
        Arc::new(ListArray::new(item, ends, Arc::new(structs), None))
    }

    #[test]
    fn a_turn_is_read_as_that_of_a_line_is() {
        let options = CorpusOptions { chat_field: Some("turns".into()), ..CorpusOptions::default() };
        let in_a_line = |role: Option<&str>, content: Option<&str>| {
            let line = serde_json::json!({ "turns": [{ "role": role, "content": content }] }).to_string();
            document_of_line(line.as_bytes(), &options)
        };
        let found = chats(&column(&[(Some("user"), Some("hi")), (None, Some("hi"))])).unwrap_err();
        assert!(found.contains("in row 1") && found.contains(NOT_A_TURN), "{found}");
        assert!(in_a_line(None, Some("hi")).unwrap_err().contains(NOT_A_TURN));
        let turns = [(Some("user"), Some("hi")), (Some("user"), Some("")), (Some("assistant"), None)];
        let documents = chats(&column(&turns)).unwrap();
        assert!(matches!(documents[..], [Document::Chat(_), Document::Chat(_), Document::IncompleteChat(_)]));
        assert_eq!(documents, turns.map(|(role, content)| in_a_line(role, content).unwrap()));
    }
}
