//! [`DOCUMENTS`]: the table of documents of a harvest. It says which file and line each document number stands for, so
//! that labels can be joined to activations, and what was left out.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, StringArray, UInt64Array},
    datatypes::UInt64Type,
};
use parquet::arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use crate::{
    Cell, Column, Corpus, Error, Location, Result, Table,
    store::{AtomicFile, ParquetFile, Published, TableWriter},
    text::{DocumentOrder, DocumentOrigin, LeftOutDocument, ReadDocument, ReadLog, WhyLeftOut},
};

/// Rows written together.
const BATCH: usize = 8192;

/// The table of documents of a folder, as its manifest lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DocumentsFile {
    /// File name in the folder.
    pub file: String,
    /// Number of documents.
    pub rows: u64,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of its bytes.
    pub sha256: String,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct DocumentRow {
    /// `None` for a line or file that was left out when the corpus was opened.
    number: Option<u64>,
    source: String,
    file: String,
    line: Option<u64>,
    row: Option<u64>,
    first_byte: Option<u64>,
    bytes: Option<u64>,
    read: ReadDocument,
}

/// The documents that a harvest read, in its order, then those left out when its corpus was opened.
pub(crate) static DOCUMENTS: Table<DocumentRow> = Table {
    file: "documents.parquet",
    command: "refract harvest",
    columns: &[
        Column::new(
            "document",
            Cell::MaybeU64(|row| row.number),
            "number from 0",
            "as in the column `document` of the parts; null for what was left out when the corpus was opened",
        ),
        Column::new(
            "source",
            Cell::Text(|row| row.source.clone()),
            "",
            "the source, by name: in the manifest's `sources` if it has some, else in its `corpus`",
        ),
        Column::new(
            "file",
            Cell::Text(|row| row.file.clone()),
            "",
            "its file: the path within the source if that is a folder or a dataset, else the file's name",
        ),
        Column::new(
            "line",
            Cell::MaybeU64(|row| row.line),
            "number from 1",
            "its line in a `.jsonl` file; blank lines count",
        ),
        Column::new("row", Cell::MaybeU64(|row| row.row), "number from 0", "its row in a `.parquet` file"),
        Column::new(
            "first_byte",
            Cell::MaybeU64(|row| row.first_byte),
            "bytes",
            "where its line or file begins in the file's plain content; null in a `.parquet` file",
        ),
        Column::new("bytes", Cell::MaybeU64(|row| row.bytes), "bytes", "length of its line or file"),
        Column::new(
            "sha256",
            Cell::MaybeText(|row| row.read.sha256.clone()),
            "",
            "SHA-256 of its text in UTF-8; for a conversation, of what was said, one turn after the other; null if `document` is",
        ),
        Column::new(
            "tokens",
            Cell::MaybeU64(|row| row.read.tokens),
            "tokens",
            "its tokens before any is cut off, without separator and BOS; null if it was not made into tokens",
        ),
        Column::new(
            "left_out",
            Cell::MaybeText(|row| row.read.left_out.map(|why| why.name().into())),
            "",
            "why it has no row in the parts: `empty`, `short`, `repeated`, `refused` by the chat template, a `malformed` \
             line, or `tail` (the corpus ended before a context was full); null if there are rows",
        ),
    ],
};

impl DocumentRow {
    fn new(number: Option<u64>, source: String, origin: DocumentOrigin<'_>, read: ReadDocument) -> Self {
        Self {
            number,
            source,
            file: origin.file.to_owned(),
            line: origin.line,
            row: origin.row,
            first_byte: origin.bytes.as_ref().map(|bytes| bytes.start),
            bytes: origin.bytes.map(|bytes| bytes.end - bytes.start),
            read,
        }
    }
}

/// The columns of kept fields. A name that the table has itself gets `field.` before it.
fn kept_columns(corpus: &Corpus) -> Vec<String> {
    let is_taken = |name: &String| DOCUMENTS.columns.iter().any(|column| column.name() == name);
    let column = |name: &String| if is_taken(name) { format!("field.{name}") } else { name.clone() };
    corpus.options().keep_fields.iter().map(column).collect()
}

/// The progress of a harvest through its corpus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reached {
    /// Documents read, in the harvest's order.
    pub(crate) read: u64,
    /// Documents that have a token in a context, or were left out before one that has.
    pub(crate) used: u64,
}

/// Writes the table at `path`, from the log of a harvest at `log`.
pub(crate) fn write_documents(
    path: &Path,
    corpus: &Corpus,
    order: &DocumentOrder,
    log: &Path,
    reached: Reached,
) -> Result<DocumentsFile> {
    let mut writer = DOCUMENTS.create(path, &kept_columns(corpus))?;
    let mut log = ReadLog::reader(log)?;
    let read = (0..reached.read).map_while(|index| Some((index, order.get(index)?))).map(|(index, document)| {
        let entry = log.as_mut().map(ReadLog::next).transpose()?.flatten();
        let mut entry = entry.ok_or_else(|| {
            let (expected, found) = (format!("{} documents", reached.read), format!("{index}"));
            Error::malformed(path, expected, found, "The log of this run was changed: repeat the command")
        })?;
        if index >= reached.used && entry.left_out.is_none() {
            entry.left_out = Some(WhyLeftOut::Tail);
        }
        let origin = corpus.origin(document)?;
        let source = corpus.source_name(Some(document), origin.source).to_owned();
        Ok(DocumentRow::new(Some(document), source, origin, entry))
    });
    let unnumbered = |left: Result<LeftOutDocument<'_>>| {
        let LeftOutDocument { origin, source, why, kept } = left?;
        let read = ReadDocument { left_out: Some(why), kept, ..ReadDocument::default() };
        Ok(DocumentRow::new(None, source, origin, read))
    };
    // The first of several parts of a corpus lists what belongs to none.
    let left_out = corpus.left_out().filter(|_| order.is_first_part()).map(unnumbered);
    let rows = write_rows(&mut writer, read.chain(left_out))?;
    Ok(listed(rows, writer.publish()?))
}

fn write_rows(writer: &mut TableWriter<DocumentRow>, rows: impl Iterator<Item = Result<DocumentRow>>) -> Result<u64> {
    let (mut batch, mut n) = (vec![], 0);
    let mut write = |batch: &mut Vec<DocumentRow>| {
        n += batch.len() as u64;
        writer.write(batch, |row| &row.read.kept)?;
        batch.clear();
        Ok::<_, Error>(())
    };
    for row in rows {
        batch.push(row?);
        if batch.len() == BATCH {
            write(&mut batch)?;
        }
    }
    write(&mut batch)?;
    Ok(n)
}

/// Writes the tables of several harvests one after the other at `path`.
pub(crate) fn concatenate(tables: &[Location], path: &Path) -> Result<DocumentsFile> {
    let (mut writer, mut rows) = (None, 0);
    for table in tables {
        let name = table.to_string();
        let failed = |error| Error::parquet("read", &name)(error);
        let file = ParquetFile::new(table.clone(), table.bytes()?.unwrap_or(0));
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
        let reader = reader.with_batch_size(BATCH).build().map_err(failed)?;
        for batch in reader {
            let batch = batch.map_err(|error| failed(error.into()))?;
            let writing = match &mut writer {
                Some(writing) => writing,
                none => none.insert(
                    ArrowWriter::try_new(AtomicFile::create(path)?, batch.schema(), None)
                        .map_err(Error::parquet("write", path))?,
                ),
            };
            writing.write(&batch).map_err(Error::parquet("write", path))?;
            rows += batch.num_rows() as u64;
        }
    }
    let writer = writer.ok_or_else(|| Error::invalid("folders to merge", "documents in one of them", "none"))?;
    Ok(listed(rows, writer.into_inner().map_err(Error::parquet("write", path))?.publish()?))
}

/// A document as the table describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentRecord {
    /// Its number.
    pub document: u64,
    /// The name of its source.
    pub source: String,
    /// Its file: the path within a folder or dataset, else the file's name.
    pub file: String,
    /// Its line in the file, from 1.
    pub line: Option<u64>,
    /// Its row in the file, from 0.
    pub row: Option<u64>,
    /// The columns of kept fields.
    pub names: Arc<[String]>,
    /// The value in each of them.
    pub kept: Vec<Option<String>>,
}

/// Some documents of a harvest, for a folder that refers to them.
static RECORDS: Table<DocumentRecord> = Table {
    file: DOCUMENTS.file,
    command: DOCUMENTS.command,
    columns: &[
        Column::new(
            "document",
            Cell::U64(|record| record.document),
            "number from 0",
            "a document that an example is from, as in the activations",
        ),
        Column::new("source", Cell::Text(|record| record.source.clone()), "", "its source, by name"),
        Column::new("file", Cell::Text(|record| record.file.clone()), "", "its file, as in the activations"),
        Column::new("line", Cell::MaybeU64(|record| record.line), "number from 1", "its line in a `.jsonl` file"),
        Column::new("row", Cell::MaybeU64(|record| record.row), "number from 0", "its row in a `.parquet` file"),
    ],
};

impl DocumentRecord {
    /// A document of a corpus, without kept fields.
    pub(crate) fn of(corpus: &Corpus, document: u64) -> Result<Self> {
        let origin = corpus.origin(document)?;
        Ok(Self {
            document,
            source: corpus.source_name(Some(document), origin.source).to_owned(),
            file: origin.file.to_owned(),
            line: origin.line,
            row: origin.row,
            names: Arc::new([]),
            kept: vec![],
        })
    }

    /// File name of a table of documents.
    pub const FILE: &str = DOCUMENTS.file;

    /// Writes the records as a table in `dir`, with a column for each kept field. Returns its SHA-256.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_table(dir: &Path, records: &[Self]) -> Result<String> {
        let names: Vec<String> = records.first().map_or_else(Vec::new, |record| record.names.to_vec());
        let mut writer = RECORDS.create(&dir.join(Self::FILE), &names)?;
        writer.write(records, |record| &record.kept)?;
        Ok(writer.publish()?.sha256)
    }

    /// The records of a table in `dir`, of a harvest or as [`Self::write_table`] writes it.
    ///
    /// # Errors
    /// If it cannot be read, or has other columns.
    pub fn read_table(dir: impl Into<Location>) -> Result<Vec<Self>> {
        let mut records = vec![];
        read_documents(&dir.into().join(Self::FILE), |_| true, |record| records.push(record))?;
        Ok(records)
    }

    /// The file without its folders, and the line or row, such as `lines.jsonl:7`.
    pub fn place(&self) -> String {
        let file = self.file.rsplit('/').next().unwrap_or_default();
        match (self.line, self.row) {
            (Some(line), _) => format!("{file}:{line}"),
            (None, Some(row)) => format!("{file} row {row}"),
            (None, None) => file.to_owned(),
        }
    }
}

/// As JSON, with an object `fields` of the kept ones.
impl Serialize for DocumentRecord {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let Self { document, source, file, line, row, names, kept } = self;
        let fields: BTreeMap<_, _> = names.iter().zip(kept).collect();
        let mut record = to.serialize_struct("DocumentRecord", 6)?;
        record.serialize_field("document", document)?;
        record.serialize_field("source", source)?;
        record.serialize_field("file", file)?;
        record.serialize_field("line", line)?;
        record.serialize_field("row", row)?;
        record.serialize_field("fields", &fields)?;
        record.end()
    }
}

/// Calls `each` with the documents of a table that have a number and for which `wanted` is true, in the table's order.
pub(super) fn read_documents(
    table: &Location,
    wanted: impl Fn(u64) -> bool,
    mut each: impl FnMut(DocumentRecord),
) -> Result<()> {
    let name = table.to_string();
    let failed = |error| Error::parquet("read", &name)(error);
    let file = ParquetFile::new(table.clone(), table.bytes()?.unwrap_or(0));
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(failed)?;
    let schema = Arc::clone(builder.schema());
    let own = |name: &str| DOCUMENTS.columns.iter().any(|column| column.name() == name);
    let names: Arc<[String]> =
        schema.fields().iter().map(|field| field.name()).filter(|name| !own(name)).cloned().collect();
    let read = |name: &str| !own(name) || ["document", "source", "file", "line", "row"].contains(&name);
    // By number: the name of a kept field may have a dot, which `ProjectionMask::columns` takes for a step inside.
    let columns = (0..schema.fields().len()).filter(|at| read(schema.field(*at).name()));
    let mask = ProjectionMask::roots(builder.parquet_schema(), columns);
    let reader = builder.with_projection(mask).with_batch_size(BATCH).build().map_err(failed)?;
    let damaged = || {
        let expected = "a table of documents as `harvest` writes it";
        Error::malformed(&name, expected, "other columns", "It was edited: harvest again into another folder")
    };
    for batch in reader {
        let batch = batch.map_err(|error| failed(error.into()))?;
        let number = |name: &str| batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<UInt64Type>());
        let text = |name: &str| batch.column_by_name(name).and_then(|column| column.as_string_opt::<i32>());
        let (Some(document), Some(line), Some(row)) = (number("document"), number("line"), number("row")) else {
            return Err(damaged());
        };
        let (Some(source), Some(file)) = (text("source"), text("file")) else { return Err(damaged()) };
        let kept: Vec<&StringArray> = names.iter().map(|name| text(name)).collect::<Option<_>>().ok_or_else(damaged)?;
        for at in (0..batch.num_rows()).filter(|at| document.is_valid(*at) && wanted(document.value(*at))) {
            let value = |numbers: &UInt64Array| numbers.is_valid(at).then(|| numbers.value(at));
            let kept_value = |texts: &&StringArray| texts.is_valid(at).then(|| texts.value(at).to_owned());
            each(DocumentRecord {
                document: document.value(at),
                source: source.value(at).to_owned(),
                file: file.value(at).to_owned(),
                line: value(line),
                row: value(row),
                names: Arc::clone(&names),
                kept: kept.iter().map(kept_value).collect(),
            });
        }
    }
    Ok(())
}

fn listed(rows: u64, published: Published) -> DocumentsFile {
    DocumentsFile { file: DOCUMENTS.file.into(), rows, bytes: published.bytes, sha256: published.sha256 }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_table_and_name_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let names: Arc<[String]> = ["meta.id".to_owned()].into();
        let record = |document, file: &str, line, row, id: Option<&str>| DocumentRecord {
            document,
            source: "s".into(),
            file: file.into(),
            line,
            row,
            names: Arc::clone(&names),
            kept: vec![id.map(str::to_owned)],
        };
        let records = [
            record(7, "deep/lines.jsonl", Some(3), None, Some("x")),
            record(2, "rows.parquet", None, Some(0), None),
            record(9, "a.txt", None, None, None),
        ];
        DocumentRecord::write_table(folder.path(), &records).unwrap();
        assert_eq!(DocumentRecord::read_table(folder.path()).unwrap(), records);
        assert_eq!(records.each_ref().map(DocumentRecord::place), ["lines.jsonl:3", "rows.parquet row 0", "a.txt"]);
        let json = serde_json::to_value(&records[0]).unwrap();
        assert_eq!((&json["file"], &json["fields"]["meta.id"]), (&"deep/lines.jsonl".into(), &"x".into()));
    }

    #[test]
    fn the_documentation_has_these_columns() {
        let documented = include_str!("../../../data/README.md");
        for columns in [DOCUMENTS.markdown(), RECORDS.markdown()] {
            assert!(documented.contains(&columns), "data/README.md should have:\n{columns}");
        }
    }
}
