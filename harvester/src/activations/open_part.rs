//! [`OpenPart`]: one file of a dataset, opened after comparing its size and footer with the manifest, and read by page.

use std::sync::Arc;

use parquet::{
    arrow::{
        ARROW_SCHEMA_META_KEY,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions},
        encode_arrow_schema,
    },
    errors::{ParquetError, Result as ParquetResult},
    file::{reader::ChunkReader, serialized_reader::SerializedPageReader},
};

use super::{manifest::Part, part_writer::STATISTICS_KEY, schema::ShardSchema};
use crate::{
    Error, Location, Result,
    numbers::HookPointStatistics,
    store::{ParquetFile, Stretch},
};

/// A part with its footer read and checked.
#[derive(Debug)]
pub(super) struct OpenPart {
    pub(super) location: Location,
    pub(super) recorded: Part,
    pub(super) file: ParquetFile,
    pub(super) metadata: ArrowReaderMetadata,
}

/// The statistics stored in a part, one per hook point.
pub(crate) fn part_statistics(
    folder: &Location,
    part: &Part,
    schema: &ShardSchema,
) -> Result<Vec<HookPointStatistics>> {
    let opened = OpenPart::open(folder, part, schema)?;
    let entries = opened.metadata.metadata().file_metadata().key_value_metadata();
    let entry = entries.into_iter().flatten().find(|entry| entry.key == STATISTICS_KEY);
    let text = entry.and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let statistics: Vec<HookPointStatistics> = serde_json::from_str(text)
        .map_err(|error| not_as_recorded(&opened.location, format!("metadata {STATISTICS_KEY}"), error.to_string()))?;
    let widths: Vec<_> = statistics.iter().map(HookPointStatistics::width).collect();
    if widths.iter().ne(schema.hook_points.iter().map(|(_, width)| width)) {
        return Err(not_as_recorded(
            &opened.location,
            "statistics of every hook point",
            format!("of widths {widths:?}"),
        ));
    }
    Ok(statistics)
}

impl OpenPart {
    /// Opens a part after checking its size and its footer against the manifest.
    pub(super) fn open(folder: &Location, recorded: &Part, schema: &ShardSchema) -> Result<Self> {
        let location = folder.join(&recorded.file);
        let bytes = location.bytes()?.map_or("no such file".into(), |bytes| format!("{bytes} bytes"));
        if bytes != format!("{} bytes", recorded.bytes) {
            return Err(not_as_recorded(&location, format!("{} bytes", recorded.bytes), bytes));
        }
        let file = ParquetFile::new(location.clone(), recorded.bytes);
        // Arrow's own schema is compared, not parsed: its parser panics on a damaged one.
        let options = ArrowReaderOptions::new().with_schema(schema.arrow());
        let metadata =
            ArrowReaderMetadata::load(&file, options).map_err(|error| unreadable(&location, recorded, error))?;
        let of_file = metadata.metadata().file_metadata();
        if u64::try_from(of_file.num_rows()) != Ok(recorded.rows) {
            return Err(not_as_recorded(
                &location,
                format!("{} rows", recorded.rows),
                format!("{} rows", of_file.num_rows()),
            ));
        }
        let entries = of_file.key_value_metadata().into_iter().flatten();
        let mut embedded = entries.filter(|entry| entry.key == ARROW_SCHEMA_META_KEY).map(|entry| &entry.value);
        if embedded.next() != Some(&Some(encode_arrow_schema(&schema.arrow()))) {
            let names: Vec<_> =
                schema.arrow().fields().iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
            return Err(not_as_recorded(&location, format!("the columns {}", names.join(", ")), "others"));
        }
        Ok(Self { location, recorded: recorded.clone(), file, metadata })
    }

    /// The pages of column `leaf` in row group `group`, of `n_rows` rows. They are fetched in one read.
    pub(super) fn pages(
        &self,
        group: usize,
        leaf: usize,
        n_rows: usize,
    ) -> ParquetResult<SerializedPageReader<ParquetFile>> {
        let chunk = self.metadata.metadata().row_group(group).column(leaf);
        let (start, bytes) = chunk.byte_range();
        let stretch = Stretch { start, bytes: self.file.get_bytes(start, bytes as usize)? };
        SerializedPageReader::new(Arc::new(ParquetFile::new(stretch, start + bytes)), chunk, n_rows, None)
    }
}

/// The next step for a file that is not as recorded.
pub(super) const OTHER_FILE: &str =
    "The file is not the one that was harvested: restore it, or harvest again into an empty folder";

/// The error for a file that is not as its manifest says.
pub(super) fn not_as_recorded(place: &Location, expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::malformed(place.to_string(), expected, found, OTHER_FILE)
}

/// The error for a part that parquet cannot read.
pub(super) fn unreadable(place: &Location, part: &Part, error: ParquetError) -> Error {
    match Error::parquet("read", place.to_string())(error) {
        Error::Parquet { source, .. } => {
            not_as_recorded(place, format!("a parquet file of {} rows", part.rows), source.to_string())
        }
        io => io,
    }
}
