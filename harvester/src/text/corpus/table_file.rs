//! [`TableFile`]: a parquet file of a corpus or of vectors, on this machine, in an object store or on the Hub: its
//! footer, its blocks of rows, and the bytes of a block. The footer is checked, because anyone may have written it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData},
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    CorpusOptions,
    discover::{FoundFile, Origin},
    document_column::{column_at, column_of, field_at, json_of},
};
use crate::{
    Error, Location, Result,
    source::HubFile,
    store::{ParquetFile, ReadRange, Stretch, hex, sha256_file},
};

/// Most rows of a block, which is the unit held in memory.
pub(super) const BLOCK_ROWS: u64 = 4096;

/// A limit above the number of rows of any real row group.
const MOST_ROWS: u64 = 1 << 32;

/// A parquet file at any kind of location.
#[derive(Debug, Clone)]
pub(crate) enum TableFile {
    /// On this machine or in an object store.
    At { location: Location, bytes: u64 },
    /// On the Hugging Face Hub.
    OnHub(HubFile),
}

impl ReadRange for HubFile {
    fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        Self::read_range(self, start, length)
    }
}

/// The error of a failed read: parquet itself passes on only a message.
pub(crate) type Cause = Arc<Mutex<Option<Error>>>;

/// A file that keeps the error of a failed read.
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
            Error::Hook(message.into())
        })
    }
}

/// Consecutive rows of a row group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RowBlock {
    pub(crate) file: u32,
    pub(crate) group: u32,
    /// Rows of the row group before this block.
    pub(crate) first_row: u64,
    pub(crate) rows: u64,
}

impl TableFile {
    /// The parquet file found by [`discover`](super::discover).
    pub(super) fn of(found: &FoundFile) -> Result<Self> {
        match &found.origin {
            Origin::At(location) => Self::at(location),
            Origin::OnHub(file) => Ok(Self::OnHub(file.clone())),
            Origin::Stdin => {
                let hint = "Save it as a file: parquet is read from its end";
                Err(Error::malformed("standard input", "text or JSON lines", "parquet", hint))
            }
        }
    }

    /// The file at `location`.
    pub(crate) fn at(location: &Location) -> Result<Self> {
        Ok(Self::At { location: location.clone(), bytes: location.bytes()?.unwrap_or(0) })
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::At { bytes, .. } => *bytes,
            Self::OnHub(file) => file.bytes,
        }
    }

    /// SHA-256 of the file. In an object store, SHA-256 of its stamp, because hashing would download the file; on the
    /// Hub, the hash that the Hub gives.
    pub(crate) fn identity(&self) -> Result<String> {
        match self {
            Self::At { location, .. } => match location.local() {
                Some(path) => sha256_file(path),
                None => Ok(hex(&Sha256::digest(location.stamp()?))),
            },
            Self::OnHub(file) => Ok(file.hash.clone()),
        }
    }

    pub(crate) fn name(&self) -> String {
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

    fn open(&self, cause: &Cause) -> ParquetFile {
        ParquetFile::new(Watched { ranges: self.ranges(), cause: Arc::clone(cause) }, self.bytes())
    }

    /// Opens the file for reading the columns in `mask` of a block. If the block is the whole row group, they are
    /// fetched together: one request instead of two per page.
    pub(crate) fn open_for(
        &self,
        block: RowBlock,
        metadata: &ArrowReaderMetadata,
        mask: &ProjectionMask,
        cause: &Cause,
    ) -> Result<ParquetFile> {
        let group = metadata.metadata().row_group(block.group as usize);
        if u64::try_from(group.num_rows()) != Ok(block.rows) {
            return Ok(self.open(cause));
        }
        let columns = group.columns().iter().enumerate().filter(|(leaf, _)| mask.leaf_included(*leaf));
        let (start, end) = columns
            .map(|(_, column)| column.byte_range())
            .fold((u64::MAX, 0), |(start, end), range| (start.min(range.0), end.max(range.0 + range.1)));
        let bytes = self.ranges().read_range(start, end.saturating_sub(start))?;
        Ok(ParquetFile::new(Stretch { start, bytes }, end))
    }

    /// The blocks of the file, in order, after checking that it has the column; and for each kept field, whether it has
    /// that column too.
    pub(super) fn blocks(&self, file: u32, options: &CorpusOptions) -> Result<(Vec<RowBlock>, Vec<bool>)> {
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
        let has = |path: &String| field_at(metadata.schema().fields(), path).is_some();
        Ok((blocks, options.keep_fields.iter().map(has).collect()))
    }

    /// Calls `each` with every value of the column `field`, in the order of the rows; with null for each row if there is
    /// no such column. The error of `each` says what was found instead of a value.
    pub(super) fn for_each_value(&self, field: &str, mut each: impl FnMut(&Value) -> Result<()>) -> Result<()> {
        let metadata = self.metadata(PageIndexPolicy::Skip)?;
        let Some((root, _)) = field_at(metadata.schema().fields(), field) else {
            let rows = metadata.metadata().file_metadata().num_rows();
            return (0..rows).try_for_each(|_| each(&Value::Null));
        };
        let cause = Cause::default();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), [root]);
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(self.open(&cause), metadata)
            .with_projection(mask)
            .with_batch_size(BLOCK_ROWS as usize)
            .build()
            .map_err(|error| self.unreadable(error, &cause))?;
        for batch in reader {
            let batch = batch.map_err(|error| self.unreadable(error.into(), &cause))?;
            let column =
                column_at(batch.schema().fields(), batch.columns(), field).unwrap_or(Arc::clone(batch.column(0)));
            for row in 0..batch.num_rows() {
                let value = json_of(&column, row);
                let value = value.map_err(|found| {
                    let expected = format!("text in the column `{field}`");
                    Error::malformed(self.name(), expected, found, "Name another column, or correct the file")
                })?;
                each(&value)?;
            }
        }
        Ok(())
    }

    /// The footer. If `pages` asks for it and a row group is longer than a block, also the offset of each page, so that
    /// no page before the block is read.
    pub(crate) fn metadata(&self, pages: PageIndexPolicy) -> Result<ArrowReaderMetadata> {
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
            // Arrow's own metadata in the footer is skipped: it is not needed, and may be damaged.
            let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
            ArrowReaderMetadata::try_new(Arc::new(metadata), options)
        };
        read().map_err(|error| self.unreadable(error, &cause))
    }

    /// A failed read is reported as such; any other error means that the file is damaged.
    pub(crate) fn unreadable(&self, error: ParquetError, cause: &Cause) -> Error {
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

/// Refuses columns outside the file, which has `bytes` bytes. Parquet panics on a column with a negative offset.
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
