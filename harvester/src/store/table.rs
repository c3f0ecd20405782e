//! [`Table`]: a parquet table, declared once: names, types and meanings of its columns. Writing, reading and
//! documentation all come from the declaration.

use std::{
    ops::{Bound, Range, RangeBounds},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float32Builder, Float64Array, ListBuilder, RecordBatch,
        StringArray, StringBuilder, UInt32Array, UInt32Builder, UInt64Array, UInt64Builder,
    },
    datatypes::{DataType, Field, Float32Type, Float64Type, Schema, SchemaRef, UInt32Type, UInt64Type},
};
use parquet::{
    arrow::{
        ArrowWriter, ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::properties::WriterProperties,
};

use super::{
    atomic::{AtomicFile, Published},
    location::Location,
    parquet_file::ParquetFile,
};
use crate::{Error, Result};

/// A table with rows of type `R`.
#[derive(Debug)]
pub struct Table<R: 'static> {
    /// File name in the folder of its stage.
    pub file: &'static str,
    /// The command that writes it.
    pub command: &'static str,
    /// The columns, in order.
    pub columns: &'static [Column<R>],
}

/// A column of a table.
#[derive(Debug)]
pub struct Column<R> {
    name: &'static str,
    cell: Cell<R>,
    unit: &'static str,
    meaning: &'static str,
}

/// Type of a column, with the function that gets its value from a row.
#[derive(Debug)]
pub enum Cell<R> {
    /// A Boolean.
    Bool(fn(&R) -> bool),
    /// A small count, or an id.
    U32(fn(&R) -> u32),
    /// A count.
    U64(fn(&R) -> u64),
    /// A number as computed by the kernels.
    F32(fn(&R) -> f32),
    /// A number from a sum.
    F64(fn(&R) -> f64),
    /// A text.
    Text(fn(&R) -> String),
    /// A text, or null.
    MaybeText(fn(&R) -> Option<String>),
    /// A count, or null.
    MaybeU64(fn(&R) -> Option<u64>),
    /// A number, or null.
    MaybeF64(fn(&R) -> Option<f64>),
    /// A list of ids.
    U32List(fn(&R) -> Vec<u32>),
    /// A list of counts.
    U64List(fn(&R) -> Vec<u64>),
    /// A list of numbers.
    F32List(fn(&R) -> Vec<f32>),
    /// A list of texts.
    TextList(fn(&R) -> Vec<&str>),
}

impl<R> Table<R> {
    /// Replaces the table in `dir`, and returns its SHA-256. The same rows always give the same bytes.
    ///
    /// # Errors
    /// If it cannot be written; the old one is then still there.
    pub fn write(&self, dir: &Path, rows: &[R]) -> Result<String> {
        let mut writer = self.create(&dir.join(self.file), &[])?;
        writer.write(rows, |_| &[])?;
        Ok(writer.publish()?.sha256)
    }

    /// Starts the table in `dir`, to be written some rows at a time. Row groups of `group_rows` rows: a reader of a few
    /// rows reads the groups that hold them.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn writer(&self, dir: &Path, group_rows: usize) -> Result<TableWriter<R>> {
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
        self.begin(&dir.join(self.file), &[], Some(properties))
    }

    /// Starts the table at `path`, to be written some rows at a time, with further columns of texts that may be null.
    pub(crate) fn create(&self, path: &Path, more: &[String]) -> Result<TableWriter<R>> {
        self.begin(path, more, None)
    }

    fn begin(&self, path: &Path, more: &[String], properties: Option<WriterProperties>) -> Result<TableWriter<R>> {
        let more = more.iter().map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(self.columns.iter().map(Column::field).chain(more).collect::<Vec<_>>()));
        let writer = ArrowWriter::try_new(AtomicFile::create(path)?, Arc::clone(&schema), properties);
        let writer = writer.map_err(Error::parquet("write", path))?;
        Ok(TableWriter { columns: self.columns, schema, path: path.to_path_buf(), writer })
    }

    /// Opens the table in `folder`. Reads its footer; a column is read when it is needed.
    ///
    /// # Errors
    /// If it does not exist, is not parquet, or lacks a column.
    pub fn open(&self, folder: impl Into<Location>) -> Result<TableReader> {
        let location = folder.into().join(self.file);
        let name = location.to_string();
        let bytes = location.bytes()?.ok_or_else(|| {
            let hint = format!("It was removed: run `{}` again into another folder", self.command);
            Error::malformed(&name, "a table", "no such file", hint)
        })?;
        let file = ParquetFile::new(location, bytes);
        // Arrow's own metadata in the footer is not needed, and may be damaged.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let metadata = ArrowReaderMetadata::load(&file, options);
        let metadata = metadata.map_err(|error| damaged(&name, self.command, error))?;
        for column in self.columns {
            let found = metadata.schema().field_with_name(column.name).map(Field::data_type).ok();
            if !found.is_some_and(|found| found.equals_datatype(&column.cell.data_type())) {
                let expected = format!("a column `{}` of type {}", column.name, column.cell.type_name());
                let found = found.map_or("no such column".into(), |found| format!("one of type {found}"));
                let again = format!("run `{}` again into another folder", self.command);
                let hint = format!("It was written by another version, or by hand: {again}");
                return Err(Error::malformed(&name, expected, found, hint));
            }
        }
        Ok(TableReader { name, command: self.command, file, metadata })
    }

    /// The columns as the lines of a Markdown table, for the documentation of the artifacts.
    pub fn markdown(&self) -> String {
        let line = |column: &Column<R>| {
            markdown_line(&format!("`{}`", column.name), column.cell.type_name(), column.unit, column.meaning)
        };
        self.columns.iter().map(line).collect()
    }
}

/// A column as a line of a Markdown table.
pub(crate) fn markdown_line(name: &str, kind: &str, unit: &str, meaning: &str) -> String {
    format!("| {name} | {kind} | {unit} | {meaning} |\n").replace("|  |", "| |")
}

impl<R> Column<R> {
    /// The column `name`, with the value `cell` of a row and its `unit`, which is empty for names and kinds. `meaning`
    /// is one line of Markdown.
    pub const fn new(name: &'static str, cell: Cell<R>, unit: &'static str, meaning: &'static str) -> Self {
        Self { name, cell, unit, meaning }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    fn field(&self) -> Field {
        let nullable = matches!(self.cell, Cell::MaybeText(_) | Cell::MaybeU64(_) | Cell::MaybeF64(_));
        Field::new(self.name, self.cell.data_type(), nullable)
    }
}

/// Builds a list column from the values of each row.
macro_rules! lists {
    ($builder:expr, $rows:expr, $of:expr) => {{
        let mut builder = ListBuilder::new($builder);
        for row in $rows {
            $of(row).into_iter().for_each(|value| builder.values().append_value(value));
            builder.append(true);
        }
        Arc::new(builder.finish()) as ArrayRef
    }};
}

impl<R> Cell<R> {
    fn data_type(&self) -> DataType {
        let list = |kind| DataType::List(Arc::new(Field::new_list_field(kind, true)));
        match self {
            Self::Bool(_) => DataType::Boolean,
            Self::U32(_) => DataType::UInt32,
            Self::U64(_) | Self::MaybeU64(_) => DataType::UInt64,
            Self::F32(_) => DataType::Float32,
            Self::F64(_) | Self::MaybeF64(_) => DataType::Float64,
            Self::Text(_) | Self::MaybeText(_) => DataType::Utf8,
            Self::U32List(_) => list(DataType::UInt32),
            Self::U64List(_) => list(DataType::UInt64),
            Self::F32List(_) => list(DataType::Float32),
            Self::TextList(_) => list(DataType::Utf8),
        }
    }

    /// The type, as in the documentation.
    fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "boolean",
            Self::U32(_) => "uint32",
            Self::U64(_) | Self::MaybeU64(_) => "uint64",
            Self::F32(_) => "float32",
            Self::F64(_) | Self::MaybeF64(_) => "float64",
            Self::Text(_) | Self::MaybeText(_) => "string",
            Self::U32List(_) => "list of uint32",
            Self::U64List(_) => "list of uint64",
            Self::F32List(_) => "list of float32",
            Self::TextList(_) => "list of string",
        }
    }

    fn array(&self, rows: &[R]) -> ArrayRef {
        match self {
            Self::Bool(of) => Arc::new(rows.iter().map(|row| Some(of(row))).collect::<BooleanArray>()),
            Self::U32(of) => Arc::new(UInt32Array::from_iter_values(rows.iter().map(of))),
            Self::U64(of) => Arc::new(UInt64Array::from_iter_values(rows.iter().map(of))),
            Self::F32(of) => Arc::new(Float32Array::from_iter_values(rows.iter().map(of))),
            Self::F64(of) => Arc::new(Float64Array::from_iter_values(rows.iter().map(of))),
            Self::Text(of) => Arc::new(StringArray::from_iter_values(rows.iter().map(of))),
            Self::MaybeText(of) => Arc::new(rows.iter().map(of).collect::<StringArray>()),
            Self::MaybeU64(of) => Arc::new(rows.iter().map(of).collect::<UInt64Array>()),
            Self::MaybeF64(of) => Arc::new(rows.iter().map(of).collect::<Float64Array>()),
            Self::U32List(of) => lists!(UInt32Builder::new(), rows, of),
            Self::U64List(of) => lists!(UInt64Builder::new(), rows, of),
            Self::F32List(of) => lists!(Float32Builder::new(), rows, of),
            Self::TextList(of) => lists!(StringBuilder::new(), rows, of),
        }
    }
}

/// A table being written. If dropped before [`Self::finish`], it leaves nothing behind.
#[derive(Debug)]
pub struct TableWriter<R: 'static> {
    columns: &'static [Column<R>],
    schema: SchemaRef,
    path: PathBuf,
    writer: ArrowWriter<AtomicFile>,
}

impl<R> TableWriter<R> {
    /// Adds rows.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn add(&mut self, rows: &[R]) -> Result<()> {
        self.write(rows, |_| &[])
    }

    /// Adds rows; `more` gives a row's values in the further columns.
    pub(crate) fn write(&mut self, rows: &[R], more: impl Fn(&R) -> &[Option<String>]) -> Result<()> {
        let further = (0..self.schema.fields().len() - self.columns.len()).map(|at| {
            let texts = rows.iter().map(|row| more(row).get(at).and_then(Option::as_deref));
            Arc::new(texts.collect::<StringArray>()) as ArrayRef
        });
        let arrays = self.columns.iter().map(|column| column.cell.array(rows)).chain(further).collect();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays).map_err(ParquetError::from);
        let written = batch.and_then(|batch| self.writer.write(&batch));
        written.map_err(Error::parquet("write", &self.path))
    }

    /// Writes the footer and publishes the file. Returns its SHA-256.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(self) -> Result<String> {
        Ok(self.publish()?.sha256)
    }

    /// Writes the footer and publishes the file.
    pub(crate) fn publish(self) -> Result<Published> {
        self.writer.into_inner().map_err(Error::parquet("write", &self.path))?.publish()
    }
}

/// A table with its footer read.
#[derive(Debug)]
pub struct TableReader {
    name: String,
    command: &'static str,
    file: ParquetFile,
    metadata: ArrowReaderMetadata,
}

impl TableReader {
    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.metadata.metadata().file_metadata().num_rows().max(0) as usize
    }

    /// The values of `column` in `rows`, `..` for all; no other column is read, and only the row groups that hold the
    /// rows.
    ///
    /// # Errors
    /// If the file is damaged, or the column has nulls or another type.
    pub fn read_rows<T: Value>(&self, column: &str, rows: impl RangeBounds<usize>) -> Result<Vec<T>> {
        let start = match rows.start_bound() {
            Bound::Included(row) => *row,
            Bound::Excluded(row) => row + 1,
            Bound::Unbounded => 0,
        };
        let end = match rows.end_bound() {
            Bound::Included(row) => row + 1,
            Bound::Excluded(row) => *row,
            Bound::Unbounded => self.n_rows(),
        };
        let rows = start..end;
        let failed = |error| damaged(&self.name, self.command, error);
        let mask = ProjectionMask::columns(self.metadata.parquet_schema(), [column]);
        let (groups, before) = self.groups_of(&rows);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.clone(), self.metadata.clone())
            .with_projection(mask)
            .with_row_groups(groups)
            .with_offset(rows.start - before)
            .with_limit(rows.len())
            .build()
            .map_err(failed)?;
        let mut values = vec![];
        for batch in reader {
            let batch = batch.map_err(|error| failed(error.into()))?;
            let array = batch.column_by_name(column);
            let read = array.filter(|array| T::MAYBE || array.null_count() == 0).and_then(T::read);
            values.extend(read.ok_or_else(|| {
                let found = array.map_or("no such column".into(), |array| match array.null_count() {
                    0 => format!("a column of type {}", array.data_type()),
                    nulls => format!("{nulls} nulls"),
                });
                let hint = format!("It was edited: run `{}` again into another folder", self.command);
                Error::malformed(&self.name, format!("values in column `{column}`"), found, hint)
            })?);
        }
        Ok(values)
    }

    /// The row groups that hold rows of `rows`, and the number of rows before the first of them.
    fn groups_of(&self, rows: &Range<usize>) -> (Vec<usize>, usize) {
        let (mut groups, mut before, mut start) = (vec![], rows.start, 0);
        for (group, metadata) in self.metadata.metadata().row_groups().iter().enumerate() {
            let end = start + metadata.num_rows().max(0) as usize;
            if start < rows.end && rows.start < end {
                if groups.is_empty() {
                    before = start;
                }
                groups.push(group);
            }
            start = end;
        }
        (groups, before)
    }
}

/// The error for a table that cannot be decoded; one of the file system stays what it is.
fn damaged(name: &str, command: &str, error: ParquetError) -> Error {
    match Error::parquet("read", name)(error) {
        Error::Parquet { source, .. } => {
            let hint = format!("The file is damaged: restore it, or run `{command}` again into another folder");
            Error::malformed(name, "a parquet table", source.to_string(), hint)
        }
        other => other,
    }
}

/// A type of values that a column may have.
pub trait Value: Sized {
    /// True if it may be null.
    const MAYBE: bool = false;

    /// The values of an array; `None` if they have another type.
    fn read(array: &ArrayRef) -> Option<Vec<Self>>;
}

macro_rules! numbers {
    ($($number:ty, $arrow:ty;)*) => { $(
        impl Value for $number {
            fn read(array: &ArrayRef) -> Option<Vec<Self>> {
                Some(array.as_primitive_opt::<$arrow>()?.values().to_vec())
            }
        }
    )* };
}

numbers! {
    u32, UInt32Type;
    u64, UInt64Type;
    f32, Float32Type;
    f64, Float64Type;
}

impl Value for Option<f64> {
    const MAYBE: bool = true;

    fn read(array: &ArrayRef) -> Option<Vec<Self>> {
        Some(array.as_primitive_opt::<Float64Type>()?.iter().collect())
    }
}

impl Value for bool {
    fn read(array: &ArrayRef) -> Option<Vec<Self>> {
        Some(array.as_boolean_opt()?.values().iter().collect())
    }
}

impl Value for String {
    fn read(array: &ArrayRef) -> Option<Vec<Self>> {
        array.as_string_opt::<i32>()?.iter().map(|text| text.map(str::to_string)).collect()
    }
}

impl<T: Value> Value for Vec<T> {
    fn read(array: &ArrayRef) -> Option<Vec<Self>> {
        array.as_list_opt::<i32>()?.iter().map(|list| T::read(&list?)).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    struct Planet {
        name: &'static str,
        moons: Vec<&'static str>,
        mass: f64,
        rings: Option<u64>,
    }

    const PLANETS: Table<Planet> = Table {
        file: "planets.parquet",
        command: "refract astronomy",
        columns: &[
            Column::new("name", Cell::Text(|p| p.name.into()), "", "the planet"),
            Column::new("moons", Cell::TextList(|p| p.moons.clone()), "", "largest first"),
            Column::new("mass", Cell::F64(|p| p.mass), "kg", "at rest"),
            Column::new("rings", Cell::MaybeU64(|p| p.rings), "rings", "null if unknown"),
        ],
    };

    fn planets() -> Vec<Planet> {
        vec![
            Planet { name: "Mars", moons: vec!["Phobos", "Deimos"], mass: 6.4e23, rings: Some(0) },
            Planet { name: "Venus", moons: vec![], mass: 4.9e24, rings: None },
        ]
    }

    #[test]
    fn what_is_written_is_read_a_column_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let published = PLANETS.write(dir.path(), &planets()).unwrap();
        assert_eq!(published, PLANETS.write(dir.path(), &planets()).unwrap(), "the same rows give the same bytes");
        let table = PLANETS.open(dir.path()).unwrap();
        assert_eq!(table.read_rows::<String>("name", ..).unwrap(), ["Mars", "Venus"]);
        assert_eq!(table.read_rows::<f64>("mass", ..).unwrap()[1..], [4.9e24]);
        let moons = table.read_rows::<Vec<String>>("moons", ..).unwrap();
        assert_eq!(moons, [vec!["Phobos".to_string(), "Deimos".into()], vec![]]);
        assert!(table.read_rows::<u32>("mass", ..).is_err(), "another type");
        assert!(table.read_rows::<u64>("rings", ..).is_err(), "a null");
    }

    #[test]
    fn rows_are_read_from_the_row_groups_that_hold_them() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = PLANETS.writer(dir.path(), 3).unwrap();
        let planet = |mass: usize| Planet { name: "x", moons: vec![], mass: mass as f64, rings: None };
        for masses in [0..5, 5..6, 6..10] {
            writer.add(&masses.map(planet).collect::<Vec<_>>()).unwrap();
        }
        writer.publish().unwrap();
        let table = PLANETS.open(dir.path()).unwrap();
        assert_eq!(table.metadata.metadata().num_row_groups(), 4);
        for start in 0..10 {
            for end in start..=10 {
                let wanted: Vec<f64> = (start..end).map(|mass| mass as f64).collect();
                assert_eq!(table.read_rows::<f64>("mass", start..end).unwrap(), wanted);
            }
        }
    }

    #[test]
    fn a_table_that_is_not_the_one_declared_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let message = PLANETS.open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("planets.parquet") && message.contains("no such file"), "{message}");
        const OTHERS: Table<Planet> = Table { columns: PLANETS.columns.split_at(2).0, ..PLANETS };
        OTHERS.write(dir.path(), &planets()).unwrap();
        let message = PLANETS.open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("a column `mass` of type float64, found no such column"), "{message}");
        let path = dir.path().join(PLANETS.file);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(PLANETS.open(dir.path()).unwrap_err().to_string().contains("planets.parquet"));
    }

    #[test]
    fn a_damaged_table_is_called_damaged_and_its_command_is_named() {
        let dir = tempfile::tempdir().unwrap();
        PLANETS.write(dir.path(), &planets()).unwrap();
        let path = dir.path().join(PLANETS.file);
        let bytes = fs::read(&path).unwrap();
        let names = || PLANETS.open(dir.path())?.read_rows::<String>("name", ..);
        let mut refused = 0;
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            fs::write(&path, damaged).unwrap();
            let Err(error) = names() else { continue };
            let message = error.to_string();
            assert!(message.contains("planets.parquet") && message.contains("`refract astronomy` again"), "{message}");
            refused += usize::from(message.contains("The file is damaged"));
        }
        assert!(refused > 20, "{refused} of {} places", bytes.len());
    }

    #[test]
    fn the_documentation_has_a_line_for_each_column() {
        let lines = PLANETS.markdown();
        let expected = ["| `name` | string | | the planet |", "| `moons` | list of string | | largest first |"];
        assert_eq!(lines.lines().take(2).collect::<Vec<_>>(), expected);
    }
}
