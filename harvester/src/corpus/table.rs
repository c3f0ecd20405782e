//! [`Tables`]: documents in a column of parquet files, here, in an object store or on the Hub. Beforehand only the footers are
//! read, and the bytes hashed of files on this machine; rows are read a block at a time and the one column only, and the
//! last block stays in memory.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::{
    array::{Array, ArrayRef, AsArray, LargeStringArray, StructArray},
    compute::cast,
    datatypes::DataType,
};
use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector,
        },
    },
    errors::ParquetError,
    file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
};

use sha2::{Digest, Sha256};

use super::{
    CorpusOptions, Document,
    discover::{FoundFile, Origin},
    document::role_of,
};
use crate::{
    Error, Location, Result,
    atomic::{hex, sha256_file},
    location::{ReadRange, Stretch},
    model_source::HubFile,
    shard::PartFile,
    tokenizer::ChatMessage,
};

/// Rows of a block at most: what is in memory at a time.
const BLOCK_ROWS: u64 = 4096;

/// More rows than any row group has.
const MOST_ROWS: u64 = 1 << 32;

/// A parquet file, wherever it is.
#[derive(Debug, Clone)]
pub(super) enum TableFile {
    /// Here or in an object store.
    At { location: Location, bytes: u64 },
    /// On the Hugging Face Hub.
    OnHub(HubFile),
}

impl ReadRange for HubFile {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        Self::read_range(self, start, length)
    }
}

/// Why ranges of a file could not be had: parquet passes on no more than a message.
type Cause = Arc<Mutex<Option<Error>>>;

/// A file whose errors are kept.
#[derive(Debug)]
struct Watched {
    ranges: Arc<dyn ReadRange>,
    cause: Cause,
}

impl ReadRange for Watched {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        self.ranges.read_range(start, length).map_err(|error| {
            let message = error.to_string();
            *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            Error::hook(message)
        })
    }
}

/// Consecutive rows of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowBlock {
    pub(super) file: u32,
    pub(super) group: u32,
    /// Rows of the group before it.
    pub(super) first_row: u64,
    pub(super) rows: u64,
}

/// The file opened last and the block read last.
#[derive(Debug, Default)]
pub(super) struct Tables {
    opened: Mutex<Option<(u32, ArrowReaderMetadata)>>,
    block: Mutex<Option<(RowBlock, Arc<Vec<Document>>)>>,
}

impl TableFile {
    /// The parquet file found.
    pub(super) fn of(found: &FoundFile) -> Result<Self> {
        match &found.origin {
            Origin::At(location) => {
                let bytes = location.bytes()?.unwrap_or(0);
                Ok(Self::At { location: location.clone(), bytes })
            }
            Origin::OnHub(file) => Ok(Self::OnHub(file.clone())),
            Origin::Stdin => {
                let hint = "Save it as a file: parquet is read from its end";
                Err(Error::malformed("standard input", "text or JSON lines", "parquet", hint))
            }
        }
    }

    /// Its size, bytes.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::At { bytes, .. } => *bytes,
            Self::OnHub(file) => file.bytes,
        }
    }

    /// SHA-256 of the file, or of what changes with it where it would have to be fetched for that.
    pub(super) fn identity(&self) -> Result<String> {
        match self {
            Self::At { location, .. } => match location.local() {
                Some(path) => sha256_file(path),
                None => Ok(hex(&Sha256::digest(location.stamp()?))),
            },
            Self::OnHub(file) => Ok(file.hash.clone()),
        }
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::At { location, .. } => location.to_string(),
            Self::OnHub(file) => file.url().to_string(),
        }
    }

    fn ranges(&self) -> Arc<dyn ReadRange> {
        match self {
            Self::At { location, .. } => Arc::new(location.clone()),
            Self::OnHub(file) => Arc::new(file.clone()),
        }
    }

    fn open(&self, cause: &Cause) -> PartFile {
        PartFile::new(Watched { ranges: self.ranges(), cause: Arc::clone(cause) }, self.bytes())
    }

    /// The file, for reading the columns in `mask` of a block. They come at once where the block is the whole row group: one
    /// answer in place of two for each page.
    fn open_for(
        &self,
        block: RowBlock,
        metadata: &ArrowReaderMetadata,
        mask: &ProjectionMask,
        cause: &Cause,
    ) -> Result<PartFile> {
        let group = metadata.metadata().row_group(block.group as usize);
        if u64::try_from(group.num_rows()) != Ok(block.rows) {
            return Ok(self.open(cause));
        }
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let (start, end) = columns
            .map(|(_, column)| column.byte_range())
            .fold((u64::MAX, 0), |(start, end), range| (start.min(range.0), end.max(range.0 + range.1)));
        let bytes = self.ranges().read_range(start, end.saturating_sub(start))?;
        Ok(PartFile::new(Stretch { start, bytes }, end))
    }

    /// The blocks of the file, in order, after checking that it has the column.
    pub(super) fn blocks(&self, file: u32, options: &CorpusOptions) -> Result<Vec<RowBlock>> {
        let metadata = self.metadata(PageIndexPolicy::Skip)?;
        column_of(&metadata, options, &self.name())?;
        let mut blocks = vec![];
        for (group, group_metadata) in metadata.metadata().row_groups().iter().enumerate() {
            let rows = u64::try_from(group_metadata.num_rows()).ok().filter(|rows| *rows <= MOST_ROWS);
            let rows = rows.ok_or_else(|| {
                let (expected, found) = (format!("row groups of {MOST_ROWS} rows or fewer"), group_metadata.num_rows());
                Error::malformed(self.name(), expected, found.to_string(), "Its footer is damaged: download it again")
            })?;
            for first_row in (0..rows).step_by(BLOCK_ROWS as usize) {
                let group = group as u32;
                blocks.push(RowBlock { file, group, first_row, rows: BLOCK_ROWS.min(rows - first_row) });
            }
        }
        Ok(blocks)
    }

    /// The footer; where `pages` asks for it and a row group is longer than a block, also where each page lies, so that no
    /// page before the block is read.
    fn metadata(&self, pages: PageIndexPolicy) -> Result<ArrowReaderMetadata> {
        let cause = Cause::default();
        let file = self.open(&cause);
        let read = || {
            let mut reader = ParquetMetaDataReader::new();
            reader.try_parse(&file)?;
            let mut metadata = reader.finish()?;
            check_columns(&metadata, self.bytes())?;
            let is_long = |group: &RowGroupMetaData| group.num_rows() > BLOCK_ROWS as i64;
            if pages != PageIndexPolicy::Skip && metadata.row_groups().iter().any(is_long) {
                reader = ParquetMetaDataReader::new_with_metadata(metadata).with_offset_index_policy(pages);
                reader.read_page_indexes(&file)?;
                metadata = reader.finish()?;
            }
            // What Arrow itself has written into the footer is left alone: its parser panics where that is damaged.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::try_new(Arc::new(metadata), options)
        };
        read().map_err(|error| self.unreadable(error, &cause))
    }

    /// A failure on the way is one; anything else says that the file is damaged.
    fn unreadable(&self, error: ParquetError, cause: &Cause) -> Error {
        if let Some(cause) = cause.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return cause;
        }
        match Error::parquet("read", self.name())(error) {
            Error::Parquet { source, .. } => {
                let hint = "Download it again: it may have been cut short";
                Error::malformed(self.name(), "a parquet file", source.to_string(), hint)
            }
            other => other,
        }
    }
}

/// Refuses columns that are not in the file, which has `bytes` bytes. Parquet panics where one has a negative place.
fn check_columns(metadata: &ParquetMetaData, bytes: u64) -> std::result::Result<(), ParquetError> {
    for column in metadata.row_groups().iter().flat_map(RowGroupMetaData::columns) {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        let length = column.compressed_size();
        let end = start.checked_add(length).and_then(|end| u64::try_from(end).ok());
        if start < 0 || length < 0 || end.is_none_or(|end| end > bytes) {
            let found = format!("a footer that names {length} bytes from byte {start} on, of a file of {bytes} bytes");
            return Err(ParquetError::General(found));
        }
    }
    Ok(())
}

impl Tables {
    /// Document `row` of a block.
    pub(super) fn document(
        &self,
        files: &[TableFile],
        block: RowBlock,
        row: u64,
        options: &CorpusOptions,
    ) -> Result<Document> {
        let mut held = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let documents = match &*held {
            Some((of, documents)) if *of == block => Arc::clone(documents),
            _ => {
                *held = None; // the old block goes before the new one comes
                let documents = Arc::new(self.read(&files[block.file as usize], block, options)?);
                *held = Some((block, Arc::clone(&documents)));
                documents
            }
        };
        let document = documents.get(row as usize).cloned();
        document.ok_or_else(|| {
            let file = &files[block.file as usize];
            let (expected, found) = (format!("{} rows from row {}", block.rows, block.first_row), documents.len());
            Error::malformed(
                file.name(),
                expected,
                found.to_string(),
                "The file changed while it was read; start again",
            )
        })
    }

    fn read(&self, file: &TableFile, block: RowBlock, options: &CorpusOptions) -> Result<Vec<Document>> {
        let metadata = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            match &*opened {
                Some((of, metadata)) if *of == block.file => metadata.clone(),
                _ => opened.insert((block.file, file.metadata(PageIndexPolicy::Optional)?)).1.clone(),
            }
        };
        let name = file.name();
        let column = column_of(&metadata, options, &name)?;
        let mask = ProjectionMask::roots(metadata.parquet_schema(), [column]);
        let wanted = [RowSelector::skip(block.first_row as usize), RowSelector::select(block.rows as usize)];
        let cause = Cause::default();
        let bytes = file.open_for(block, &metadata, &mask, &cause)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
            .with_row_groups(vec![block.group as usize])
            .with_row_selection(RowSelection::from(wanted.to_vec()))
            .with_projection(mask)
            .with_batch_size(BLOCK_ROWS as usize)
            .build()
            .map_err(|error| file.unreadable(error, &cause))?;
        let mut documents = vec![];
        for batch in reader {
            let batch = batch.map_err(|error| file.unreadable(error.into(), &cause))?;
            let column = batch.column(0);
            let more = if options.chat_field.is_some() { chats(column) } else { texts(column) };
            let more = more.map_err(|found| {
                let place = format!("{name}, row group {}, rows from {}", block.group, block.first_row);
                Error::malformed(place, expected_column(options), found, "Name another column, or correct the file")
            })?;
            documents.extend(more);
        }
        let longest = documents.iter().map(Document::bytes).max().unwrap_or(0);
        options.check_size(&name, longest)?;
        Ok(documents)
    }
}

/// The column that holds the documents.
fn column_of(metadata: &ArrowReaderMetadata, options: &CorpusOptions, name: &str) -> Result<usize> {
    let fields = metadata.schema().fields();
    let wanted = options.field();
    let usable = |kind: &DataType| match (options.chat_field.is_some(), kind) {
        (false, kind) => is_text(kind),
        (true, DataType::List(item) | DataType::LargeList(item)) => matches!(item.data_type(), DataType::Struct(_)),
        (true, _) => false,
    };
    match fields.iter().position(|field| field.name() == wanted) {
        Some(at) if usable(fields[at].data_type()) => Ok(at),
        Some(at) => {
            let found = format!("`{wanted}` of type {}", fields[at].data_type());
            Err(Error::malformed(name, expected_column(options), found, "Name another column"))
        }
        None => {
            let names: Vec<_> =
                fields.iter().map(|field| format!("{} ({})", field.name(), field.data_type())).collect();
            let hint =
                if options.chat_field.is_some() { "Name it with --chat-field" } else { "Name it with --text-field" };
            Err(Error::malformed(name, expected_column(options), format!("the columns {}", names.join(", ")), hint))
        }
    }
}

fn expected_column(options: &CorpusOptions) -> String {
    match &options.chat_field {
        Some(field) => format!("a column `{field}` of lists of turns, each with role and content or from and value"),
        None => format!("a column `{}` of text", options.text_field),
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

/// A column of text as one type. Bytes that are not UTF-8 become null in a cast, and a text that is null was one.
fn as_text(column: &ArrayRef) -> std::result::Result<LargeStringArray, String> {
    let text = cast(column, &DataType::LargeUtf8).map_err(|error| error.to_string())?;
    if text.null_count() > column.null_count() {
        return Err("bytes that are not UTF-8".into());
    }
    Ok(text.as_string::<i64>().clone())
}

/// The documents of a text column. A row without a value is an empty one.
fn texts(column: &ArrayRef) -> std::result::Result<Vec<Document>, String> {
    Ok(as_text(column)?.iter().map(|text| Document::Text(text.unwrap_or_default().to_string())).collect())
}

/// The documents of a column of lists of turns.
fn chats(column: &ArrayRef) -> std::result::Result<Vec<Document>, String> {
    let wide = match column.data_type() {
        DataType::List(item) => {
            cast(column, &DataType::LargeList(Arc::clone(item))).map_err(|error| error.to_string())?
        }
        _ => Arc::clone(column),
    };
    let lists = wide.as_list::<i64>();
    let turns = lists.values().as_struct();
    let (roles, contents, are_ours) = turn_columns(turns)?;
    let turn = |at: usize| ChatMessage {
        role: if are_ours { roles.value(at).to_string() } else { role_of(roles.value(at).to_string()) },
        content: contents.value(at).to_string(),
    };
    let ends = lists.value_offsets();
    let conversation = |row: usize| Document::Chat((ends[row] as usize..ends[row + 1] as usize).map(turn).collect());
    Ok((0..lists.len()).map(conversation).collect())
}

/// Who speaks, what is said, and whether the roles are named as templates name them.
fn turn_columns(turns: &StructArray) -> std::result::Result<(LargeStringArray, LargeStringArray, bool), String> {
    for (role, content, ours) in [("role", "content", true), ("from", "value", false)] {
        if let (Some(roles), Some(contents)) = (turns.column_by_name(role), turns.column_by_name(content)) {
            return Ok((as_text(roles)?, as_text(contents)?, ours));
        }
    }
    Err(format!("turns with the fields [{}]", turns.column_names().join(", ")))
}
