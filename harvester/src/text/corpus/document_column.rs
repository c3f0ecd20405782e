//! The column of a parquet file that holds documents: finds it and reads its values as documents, with those of the
//! columns kept beside them.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, FieldRef, Fields},
    util::display::array_value_to_string,
};
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use serde_json::Value;

use super::{CorpusOptions, Document, Record, json_line::kept_text};
use crate::Error;

/// The path of the column that holds the documents.
pub(super) fn column_of<'a>(
    metadata: &ArrowReaderMetadata,
    options: &'a CorpusOptions,
    name: &str,
) -> crate::Result<&'a str> {
    let fields = metadata.schema().fields();
    let wanted = options.present(|path| field_at(fields, path).is_some());
    let usable = if options.chat_field.is_some() { is_chat } else { is_text };
    match field_at(fields, wanted) {
        Some((_, kind)) if usable(kind) => Ok(wanted),
        Some((_, kind)) => {
            let found = format!("`{wanted}` of type {kind}");
            let texts = matches!(kind, DataType::List(item) | DataType::LargeList(item) if is_text(item.data_type()));
            let hint = if texts {
                "Write a row for each text of the list, or name another column"
            } else {
                "Name another column"
            };
            Err(Error::malformed(name, expected_column(options), found, hint))
        }
        None => {
            let names: Vec<_> =
                fields.iter().map(|field| format!("{} ({})", field.name(), field.data_type())).collect();
            let found = format!("the columns {}", names.join(", "));
            Err(Error::malformed(name, expected_column(options), found, hint(fields, options)))
        }
    }
}

/// The column at a path, and its type: the column of that name, or, with dots in it, a field inside structs.
pub(super) fn field_at<'a>(fields: &'a Fields, path: &str) -> Option<(usize, &'a DataType)> {
    if let Some((at, field)) = fields.find(path) {
        return Some((at, field.data_type()));
    }
    let dots = path.match_indices('.').map(|(at, _)| at);
    dots.filter_map(|dot| {
        let (at, field) = fields.find(&path[..dot])?;
        let DataType::Struct(inner) = field.data_type() else { return None };
        Some((at, field_at(inner, &path[dot + 1..])?.1))
    })
    .next()
}

/// The values of [`field_at`] in columns of these fields.
pub(super) fn column_at(fields: &Fields, columns: &[ArrayRef], path: &str) -> Option<ArrayRef> {
    if let Some((at, _)) = fields.find(path) {
        return columns.get(at).cloned();
    }
    let dots = path.match_indices('.').map(|(at, _)| at);
    dots.filter_map(|dot| {
        let (at, field) = fields.find(&path[..dot])?;
        let DataType::Struct(inner) = field.data_type() else { return None };
        column_at(inner, columns.get(at)?.as_struct_opt()?.columns(), &path[dot + 1..])
    })
    .next()
}

/// The path of a text column inside structs, preferably one with the name `wanted`.
fn path_inside(fields: &Fields, wanted: &str) -> Option<String> {
    fn add(fields: &Fields, before: &str, paths: &mut Vec<String>) {
        for field in fields {
            match field.data_type() {
                DataType::Struct(inner) => add(inner, &format!("{before}{}.", field.name()), paths),
                kind if is_text(kind) && !before.is_empty() => paths.push(format!("{before}{}", field.name())),
                _ => {}
            }
        }
    }
    let mut paths = vec![];
    add(fields, "", &mut paths);
    let last = format!(".{}", wanted.rsplit('.').next().unwrap_or_default());
    paths.iter().find(|path| path.ends_with(&last)).or(paths.first()).cloned()
}

/// A hint that names the flag for an existing column: one of the requested kind, else of the other kind.
fn hint(fields: &Fields, options: &CorpusOptions) -> String {
    let named = |usable: fn(&DataType) -> bool| fields.iter().find(|field| usable(field.data_type()));
    match (options.chat_field.is_some(), named(is_text), named(is_chat)) {
        (false, None, Some(chat)) => format!("Name conversations with `chat_field` {}", chat.name()),
        (false, None, None) if path_inside(fields, &options.text_field).is_some() => {
            let path = path_inside(fields, &options.text_field).unwrap_or_default();
            format!("Name a column inside a struct with a dot: `text_field` {path}")
        }
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

/// The records of the rows of `batch`, whose column of documents is at the path `documents`.
pub(super) fn records(batch: &RecordBatch, documents: &str, options: &CorpusOptions) -> Result<Vec<Record>, String> {
    let schema = batch.schema();
    let column = |path: &str| column_at(schema.fields(), batch.columns(), path);
    let documents = column(documents).ok_or_else(|| format!("no column `{documents}`"))?;
    let documents = if options.chat_field.is_some() { chats(&documents) } else { texts(&documents) }?;
    let kept: Vec<_> = options.keep_fields.iter().map(|path| column(path)).collect();
    let record = |(row, document)| {
        let value = |column: &Option<ArrayRef>| {
            let value = column.as_ref().map(|column| json_of(column, row)).transpose()?;
            Ok::<_, String>(value.as_ref().and_then(kept_text))
        };
        // The sources of rows were read when the corpus was opened.
        Ok(Record { document, kept: kept.iter().map(value).collect::<Result<_, _>>()?, source: None })
    };
    documents.into_iter().enumerate().map(record).collect()
}

/// The documents of a text column. A row without a value is an empty document.
fn texts(column: &ArrayRef) -> Result<Vec<Document>, String> {
    let text = cast(column, &DataType::LargeUtf8).map_err(|error| error.to_string())?;
    // A cast turns bytes that are not UTF-8 into null, so a new null is an error.
    if text.null_count() > column.null_count() {
        return Err("bytes that are not UTF-8".into());
    }
    let texts = text.as_string::<i64>().iter();
    Ok(texts.map(|text| Document::Text(text.unwrap_or_default().to_string())).collect())
}

/// The documents of a column of lists of turns, each read like the JSON of a line.
fn chats(column: &ArrayRef) -> Result<Vec<Document>, String> {
    let conversation = |row| match json_of(column, row)? {
        Value::Null => Ok(Document::Chat(vec![])),
        turns => Document::chat_of(turns).map_err(|found| format!("in row {row} of these {found}")),
    };
    (0..column.len()).map(conversation).collect()
}

/// A value of a column as JSON, so that one rule reads it from a table and from a line.
pub(super) fn json_of(column: &dyn Array, row: usize) -> Result<Value, String> {
    let list = |values: ArrayRef| (0..values.len()).map(|row| json_of(&values, row)).collect::<Result<_, _>>();
    if column.is_null(row) || *column.data_type() == DataType::Null {
        return Ok(Value::Null);
    }
    match column.data_type() {
        DataType::Boolean => Ok(Value::Bool(column.as_boolean().value(row))),
        DataType::Utf8 => Ok(column.as_string::<i32>().value(row).into()),
        DataType::LargeUtf8 => Ok(column.as_string::<i64>().value(row).into()),
        DataType::List(_) => list(column.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(column.as_list::<i64>().value(row)),
        DataType::FixedSizeList(..) => list(column.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(column.as_struct().columns());
            let value = |(field, column): (&FieldRef, &ArrayRef)| Ok((field.name().clone(), json_of(column, row)?));
            columns.map(value).collect::<Result<_, String>>().map(Value::Object)
        }
        kind if is_text(kind) => {
            let text = cast(&column.slice(row, 1), &DataType::Utf8).map_err(|error| error.to_string())?;
            if text.is_null(0) { Err("bytes that are not UTF-8".into()) } else { json_of(&text, 0) }
        }
        kind if kind.is_numeric() => {
            let text = array_value_to_string(column, row).map_err(|error| error.to_string())?;
            // NaN and the infinities are no JSON: they count as null, as in a line.
            Ok(serde_json::from_str(&text).unwrap_or_default())
        }
        _ => array_value_to_string(column, row).map(Value::String).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::{
        array::{Float64Array, Int64Array, ListArray, StringArray, StructArray},
        buffer::OffsetBuffer,
        datatypes::Field,
    };

    use super::*;
    use crate::text::corpus::json_line::record_of_line;

    fn structs(columns: &[(&str, ArrayRef)]) -> ArrayRef {
        let fields = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
        let columns = columns.iter().map(|(_, column)| Arc::clone(column)).collect();
        Arc::new(StructArray::new(fields.collect::<Vec<_>>().into(), columns, None))
    }

    fn lists(values: ArrayRef, lengths: &[usize]) -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths.iter().copied()), values, None))
    }

    fn texts_of(texts: &[Option<&str>]) -> ArrayRef {
        Arc::new(StringArray::from(texts.to_vec()))
    }

    fn options() -> CorpusOptions {
        CorpusOptions { chat_field: Some("turns".into()), ..CorpusOptions::default() }
    }

    fn in_a_line(turn: &Value) -> Result<Document, String> {
        let line = serde_json::json!({ "turns": [turn] }).to_string();
        record_of_line(line.as_bytes(), &options()).map(|record| record.document).map_err(|line| line.found)
    }

    #[test]
    fn a_turn_is_read_as_that_of_a_line_is() {
        let parts = structs(&[
            ("type", texts_of(&[Some("text"), Some("text"), Some("image")])),
            ("text", texts_of(&[Some("hi "), Some("there"), None])),
        ]);
        let role = |n: usize| ("role", texts_of(&vec![Some("user"); n]));
        let cases: [(ArrayRef, &[Value]); 4] = [
            (
                structs(&[role(3), ("content", texts_of(&[Some("hi"), Some(""), None]))]),
                &[
                    serde_json::json!({"role": "user", "content": "hi"}),
                    serde_json::json!({"role": "user", "content": ""}),
                    serde_json::json!({"role": "user", "content": null}),
                ],
            ),
            (
                structs(&[role(2), ("content", lists(parts, &[2, 1]))]),
                &[
                    serde_json::json!({"role": "user", "content": [{"type": "text", "text": "hi "}, {"type": "text", "text": "there"}]}),
                    serde_json::json!({"role": "user", "content": [{"type": "image"}]}),
                ],
            ),
            (
                structs(&[role(1), ("content", Arc::new(Int64Array::from(vec![5])))]),
                &[serde_json::json!({"role": "user", "content": 5})],
            ),
            (
                structs(&[("role", texts_of(&[None])), ("content", texts_of(&[Some("hi")]))]),
                &[serde_json::json!({"role": null, "content": "hi"})],
            ),
        ];
        for (turns, lines) in cases {
            for (row, line) in lines.iter().enumerate() {
                let read =
                    chats(&lists(turns.slice(row, 1), &[1])).map_err(|found| found.replace("in row 0 of these ", ""));
                let expected = in_a_line(line).map_err(|found| found.replace("in the field `turns` ", ""));
                assert_eq!(read, expected.map(|document| vec![document]), "{line}");
            }
        }
    }

    #[test]
    fn a_path_with_dots_is_a_column_inside_structs() {
        let inner = structs(&[("lang", texts_of(&[Some("en"), None]))]);
        let meta = structs(&[("text", texts_of(&[Some("a"), Some("b")])), ("more", inner)]);
        let batch = RecordBatch::try_from_iter([("id", texts_of(&[None, None])), ("meta", meta)]).unwrap();
        let schema = batch.schema();
        let options = CorpusOptions { keep_fields: vec!["meta.more.lang".into()], ..CorpusOptions::default() };
        assert_eq!(field_at(schema.fields(), "meta.text"), Some((1, &DataType::Utf8)));
        let read = records(&batch, "meta.text", &options).unwrap();
        assert_eq!(read[0].document, Document::Text("a".into()));
        assert_eq!([&read[0].kept, &read[1].kept], [&[Some("en".into())], &[None::<String>]]);
        for absent in ["meta.texts", "meta.", "id.text", "meta.more"] {
            assert!(!field_at(schema.fields(), absent).is_some_and(|(_, kind)| is_text(kind)), "{absent}");
        }
        assert_eq!(path_inside(schema.fields(), "text").as_deref(), Some("meta.text"));
        assert_eq!(path_inside(schema.fields(), "x.lang").as_deref(), Some("meta.more.lang"));
    }

    #[test]
    fn kept_values_are_as_in_a_line() {
        let options =
            CorpusOptions { keep_fields: ["i", "x", "s", "l"].map(String::from).to_vec(), ..CorpusOptions::default() };
        let columns: [(&str, ArrayRef); 5] = [
            ("text", texts_of(&[Some("a"), Some("b")])),
            ("i", Arc::new(Int64Array::from(vec![Some(7), None]))),
            ("x", Arc::new(Float64Array::from(vec![0.5, f64::NAN]))),
            ("s", texts_of(&[Some("word"), None])),
            ("l", lists(texts_of(&[Some("p"), Some("q")]), &[2, 0])),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let read = records(&batch, "text", &options).unwrap();
        let line = br#"{"text": "a", "i": 7, "x": 0.5, "s": "word", "l": ["p", "q"]}"#;
        assert_eq!(read[0], record_of_line(line, &options).unwrap());
        assert_eq!(read[1].kept, [None, None, None, Some("[]".into())]);
    }
}
