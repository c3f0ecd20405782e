//! [`ActivationDataset`]: a finished folder, read a row group at a time and only the columns asked for.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use arrow::{
    array::{ArrayRef, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::{ArrowPrimitiveType, Float32Type, UInt32Type, UInt64Type},
};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder},
    },
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
};

use super::{
    part_writer::STATISTICS_KEY,
    plain_lists,
    rows::{ActivationRows, TokenRows, Values},
    schema::{ShardSchema, TOKEN_COLUMNS},
};
use crate::{
    Error, HarvestManifest, HookPoint, Result, atomic::sha256_file, manifest::Part, manifest_file::MANIFEST_FILE,
    monitor::Monitor, stats::HookPointStatistics,
};

/// A folder of activations, opened for reading.
#[derive(Debug)]
pub struct ActivationDataset {
    dir: PathBuf,
    manifest: HarvestManifest,
    schema: ShardSchema,
    row_groups: Vec<RowGroup>,
}

/// Consecutive rows that are read together: whole contexts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowGroup {
    /// Index in the manifest's parts.
    pub part: usize,
    /// Row group of that file.
    pub group: usize,
    /// Rows of the dataset before it.
    pub first_row: u64,
    /// Rows in it.
    pub rows: usize,
}

impl ActivationDataset {
    /// Opens the folder that `harvest` wrote. Checks that every part is there with the size, the rows and the columns
    /// that the manifest records; [`Self::verify`] checks the content too.
    ///
    /// # Errors
    /// Names the first file that is not as recorded, what was expected and what was found.
    pub fn open(dir: &Path) -> Result<Self> {
        let manifest = HarvestManifest::read(dir)?;
        if manifest.parts.is_empty() {
            let hint = "Repeat the command that made this folder; it goes on where it stopped";
            return Err(Error::malformed(dir, "at least one finished part", "none", hint));
        }
        if !manifest.complete {
            tracing::warn!("{} is not complete: reading the {} finished parts", dir.display(), manifest.parts.len());
        }
        check_counts(dir, &manifest)?;
        let schema = ShardSchema::of(&manifest);
        let mut row_groups: Vec<RowGroup> = vec![];
        for (part, recorded) in manifest.parts.iter().enumerate() {
            let (_, metadata) = open_part(dir, recorded, &schema)?;
            for (group, group_metadata) in metadata.metadata().row_groups().iter().enumerate() {
                let first_row = row_groups.last().map_or(0, |last| last.first_row + last.rows as u64);
                let rows = group_metadata.num_rows() as usize;
                row_groups.push(RowGroup { part, group, first_row, rows });
            }
        }
        Ok(Self { dir: dir.to_path_buf(), manifest, schema, row_groups })
    }

    /// What made this folder.
    pub fn manifest(&self) -> &HarvestManifest {
        &self.manifest
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Number of tokens.
    pub fn n_rows(&self) -> u64 {
        self.manifest.counts.tokens
    }

    /// All row groups, in order.
    pub fn row_groups(&self) -> &[RowGroup] {
        &self.row_groups
    }

    /// Which tokens the rows of `group` are.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn tokens(&self, group: RowGroup) -> Result<TokenRows> {
        let batch = self.read_columns(group, &(0..TOKEN_COLUMNS.len()).collect::<Vec<_>>())?;
        Ok(token_rows(&batch))
    }

    /// The rows of `group` at `hook_point`; no other hook point is read from the disk.
    ///
    /// # Errors
    /// When the folder lacks the hook point, the file cannot be read, or a value is not finite.
    pub fn read(&self, group: RowGroup, hook_point: HookPoint) -> Result<ActivationRows> {
        let d_model = self.manifest.hook_point(hook_point)?.d_model;
        let place = self.schema.hook_points.iter().position(|(point, _)| *point == hook_point).unwrap_or(0);
        let first = TOKEN_COLUMNS.len() + 2 * place; // each hook point is its values' leaf and its norm's leaf
        let leaves: Vec<_> = (0..TOKEN_COLUMNS.len()).chain([first + 1]).collect();
        let batch = self.read_columns(group, &leaves)?;
        let norm = column::<Float32Type>(batch.column(TOKEN_COLUMNS.len()));
        let values = self.read_values(group, first, d_model)?;
        if let Some(place) = values.first_not_finite() {
            return Err(self.not_finite(group, hook_point, place / d_model, place % d_model));
        }
        Ok(ActivationRows { rows: token_rows(&batch), norm, values, d_model })
    }

    /// We never write such a number, so the file is not as it was.
    fn not_finite(&self, group: RowGroup, hook_point: HookPoint, row: usize, place: usize) -> Error {
        let path = self.dir.join(&self.manifest.parts[group.part].file);
        let row = group.first_row + row as u64;
        let found = format!("a nan or an infinity in row {row} of the folder, at index {place}");
        let hint = "Check the folder with `refract inspect --verify`, and harvest it again";
        Error::malformed(path, format!("finite numbers at {hook_point}"), found, hint)
    }

    /// Reads every byte and compares the hashes with the manifest's.
    ///
    /// # Errors
    /// Names the first file that differs.
    pub fn verify(&self, monitor: &dyn Monitor) -> Result<()> {
        let bytes = self.manifest.parts.iter().map(|part| part.bytes).sum();
        monitor.start("verify", bytes, "bytes");
        for part in &self.manifest.parts {
            if monitor.cancelled() {
                return Err(Error::Cancelled { path: self.dir.clone() });
            }
            let path = self.dir.join(&part.file);
            let found = sha256_file(&path)?;
            if found != part.sha256 {
                return Err(not_as_recorded(&path, format!("SHA-256 {}", part.sha256), format!("SHA-256 {found}")));
            }
            monitor.advance(part.bytes);
        }
        monitor.finish();
        Ok(())
    }

    /// The values of a leaf column of fixed-size lists, for all rows of `group`.
    fn read_values(&self, group: RowGroup, leaf: usize, width: usize) -> Result<Values> {
        let part = &self.manifest.parts[group.part];
        let path = self.dir.join(&part.file);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let decode = |reader: SerializedFileReader<File>| {
            let pages = reader.get_row_group(group.group)?.get_column_page_reader(leaf)?;
            plain_lists::decode(pages, self.schema.dtype, group.rows * width)
        };
        SerializedFileReader::new(file).and_then(decode).map_err(|error| unreadable(&path, part, error))
    }

    /// A batch with the given flat columns of all rows of `group`.
    fn read_columns(&self, group: RowGroup, leaves: &[usize]) -> Result<RecordBatch> {
        let part = &self.manifest.parts[group.part];
        let path = self.dir.join(&part.file);
        let (file, metadata) = open_part(&self.dir, part, &self.schema)?;
        let mask = ProjectionMask::leaves(metadata.parquet_schema(), leaves.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
            .with_row_groups(vec![group.group])
            .with_projection(mask)
            .with_batch_size(group.rows)
            .build()
            .map_err(|error| unreadable(&path, part, error))?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let batches: std::result::Result<Vec<_>, _> = reader.collect();
        let batch = batches.and_then(|batches| concat_batches(&schema, &batches));
        let batch = batch.map_err(|error| unreadable(&path, part, error.into()))?;
        if batch.num_rows() != group.rows {
            return Err(not_as_recorded(&path, format!("{} rows", group.rows), format!("{}", batch.num_rows())));
        }
        Ok(batch)
    }
}

fn token_rows(batch: &RecordBatch) -> TokenRows {
    TokenRows {
        document: column::<UInt64Type>(batch.column(0)),
        context: column::<UInt64Type>(batch.column(1)),
        position: column::<UInt32Type>(batch.column(2)),
        token: column::<UInt32Type>(batch.column(3)),
    }
}

/// A column's values. Its type is the schema's, which [`open_part`] has compared.
fn column<T: ArrowPrimitiveType>(array: &ArrayRef) -> Vec<T::Native> {
    array.as_primitive::<T>().values().to_vec()
}

/// The statistics that a part carries, one for each hook point.
pub(super) fn part_statistics(dir: &Path, part: &Part, schema: &ShardSchema) -> Result<Vec<HookPointStatistics>> {
    let path = dir.join(&part.file);
    let (_, metadata) = open_part(dir, part, schema)?;
    let entries = metadata.metadata().file_metadata().key_value_metadata();
    let entry = entries.into_iter().flatten().find(|entry| entry.key == STATISTICS_KEY);
    let text = entry.and_then(|entry| entry.value.as_deref()).unwrap_or_default();
    let statistics: Vec<HookPointStatistics> = serde_json::from_str(text)
        .map_err(|error| not_as_recorded(&path, format!("metadata {STATISTICS_KEY}"), error.to_string()))?;
    let widths: Vec<_> = statistics.iter().map(HookPointStatistics::width).collect();
    if widths.iter().ne(schema.hook_points.iter().map(|(_, width)| width)) {
        return Err(not_as_recorded(&path, "statistics of every hook point", format!("of widths {widths:?}")));
    }
    Ok(statistics)
}

/// Opens a part after checking its size, and its footer against what the manifest says of it.
fn open_part(dir: &Path, part: &Part, schema: &ShardSchema) -> Result<(File, ArrowReaderMetadata)> {
    let path = dir.join(&part.file);
    let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
    if bytes != part.bytes {
        return Err(not_as_recorded(&path, format!("{} bytes", part.bytes), format!("{bytes} bytes")));
    }
    let file = File::open(&path).map_err(Error::io("open", &path))?;
    let metadata =
        ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()).map_err(|error| unreadable(&path, part, error))?;
    let rows = metadata.metadata().file_metadata().num_rows();
    if u64::try_from(rows) != Ok(part.rows) {
        return Err(not_as_recorded(&path, format!("{} rows", part.rows), format!("{rows} rows")));
    }
    let expected = schema.arrow();
    if metadata.schema().fields() != expected.fields() {
        let names = |fields: &arrow::datatypes::Fields| {
            let fields: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
            format!("the columns {}", fields.join(", "))
        };
        return Err(not_as_recorded(&path, names(expected.fields()), names(metadata.schema().fields())));
    }
    Ok((file, metadata))
}

fn not_as_recorded(path: &Path, expected: impl Into<String>, found: impl Into<String>) -> Error {
    let hint = "The file is not the one that was harvested: restore it, or harvest again into an empty folder";
    Error::malformed(path, expected, found, hint)
}

fn unreadable(path: &Path, part: &Part, error: ParquetError) -> Error {
    match Error::parquet("read", path)(error) {
        Error::Parquet { source, .. } => {
            not_as_recorded(path, format!("a parquet file of {} rows", part.rows), source.to_string())
        }
        io => io,
    }
}

const EDITED: &str = "The manifest was changed by hand: restore it, or harvest again into another folder";

/// Refuses counts that contradict each other: everything after trusts them.
fn check_counts(dir: &Path, manifest: &HarvestManifest) -> Result<()> {
    let rows: u64 = manifest.parts.iter().map(|part| part.rows).sum();
    let (counts, ctx_len) = (&manifest.counts, manifest.config.ctx_len as u64);
    if ctx_len == 0 || counts.tokens != rows || counts.contexts.checked_mul(ctx_len) != Some(rows) {
        let expected = format!("tokens and contexts that add up to the parts' {rows} rows");
        let found = format!("{} tokens, {} contexts of {ctx_len}", counts.tokens, counts.contexts);
        return Err(Error::malformed(dir.join(MANIFEST_FILE), expected, found, EDITED));
    }
    for point in &manifest.hook_points {
        if point.mean.len() != point.d_model || point.std.len() != point.d_model || point.d_model == 0 {
            let expected = format!("a mean and a std of {} values at {}", point.d_model, point.name);
            let found = format!("{} and {}", point.mean.len(), point.std.len());
            return Err(Error::malformed(dir.join(MANIFEST_FILE), expected, found, EDITED));
        }
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use half::f16;

    use super::*;
    use crate::{
        Silent, StorageDtype,
        shard::testing::{contexts, manifest, write},
    };

    fn dataset(dtype: StorageDtype) -> (tempfile::TempDir, ActivationDataset) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), manifest(3, 4, 8, dtype), 0..5);
        let dataset = ActivationDataset::open(dir.path()).unwrap();
        (dir, dataset)
    }

    #[test]
    fn what_was_written_is_read_back() {
        for dtype in [StorageDtype::F32, StorageDtype::F16] {
            let (_dir, dataset) = dataset(dtype);
            let (contexts, values) = contexts(3, 4, 0..5);
            let rows: Vec<_> =
                dataset.row_groups().iter().map(|group| dataset.read(*group, HookPoint::Embed).unwrap()).collect();
            let read: Vec<f32> = rows.iter().flat_map(|rows| rows.to_f32().into_owned()).collect();
            let expected: Vec<f32> = match dtype {
                StorageDtype::F32 => values[0].clone(),
                StorageDtype::F16 => values[0].iter().map(|value| f16::from_f32(*value).to_f32()).collect(),
            };
            assert_eq!(read, expected);
            let tokens: Vec<u32> = rows.iter().flat_map(|rows| rows.rows.token.clone()).collect();
            assert_eq!(tokens, contexts.iter().flat_map(|context| context.tokens.clone()).collect::<Vec<_>>());
            let norms: Vec<f32> = rows.iter().flat_map(|rows| rows.norm.clone()).collect();
            let by_hand: Vec<f32> = expected.chunks(3).map(crate::stats::norm).collect();
            assert_eq!(norms, by_hand);
        }
    }

    #[test]
    fn row_groups_are_whole_contexts_numbered_through() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let starts: Vec<_> =
            dataset.row_groups().iter().map(|group| (group.part, group.first_row, group.rows)).collect();
        assert_eq!(starts, [(0, 0, 8), (1, 8, 8), (2, 16, 4)]);
        let tokens = dataset.tokens(dataset.row_groups()[1]).unwrap();
        assert_eq!(tokens.context, [2, 2, 2, 2, 3, 3, 3, 3]);
        assert_eq!(tokens.position, [0, 1, 2, 3, 0, 1, 2, 3]);
    }

    #[test]
    fn the_manifest_describes_what_is_stored() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let mut rows = vec![];
        for group in dataset.row_groups() {
            let read = dataset.read(*group, HookPoint::Embed).unwrap();
            let values = read.to_f32();
            let kept = read.rows.position.iter().zip(values.chunks(3)).filter(|(position, _)| **position > 0);
            rows.extend(kept.map(|(_, row)| f64::from(row[1])));
        }
        let mean = rows.iter().sum::<f64>() / rows.len() as f64;
        let summary = dataset.manifest().hook_point(HookPoint::Embed).unwrap();
        assert_eq!(summary.mean[1], mean as f32);
    }

    #[test]
    fn a_flipped_bit_is_found_by_verify() {
        let (dir, dataset) = dataset(StorageDtype::F16);
        dataset.verify(&Silent).unwrap();
        let path = dir.path().join("part-00001.parquet");
        let mut bytes = fs::read(&path).unwrap();
        bytes[40] ^= 1;
        fs::write(&path, bytes).unwrap();
        let message = dataset.verify(&Silent).unwrap_err().to_string();
        assert!(message.contains("part-00001.parquet") && message.contains("SHA-256"), "{message}");
    }

    #[test]
    fn damaged_parts_are_named() {
        let open_after = |change: &dyn Fn(&Path)| {
            let (dir, _) = dataset(StorageDtype::F16);
            change(&dir.path().join("part-00001.parquet"));
            ActivationDataset::open(dir.path()).unwrap_err().to_string()
        };
        let missing = open_after(&|path| fs::remove_file(path).unwrap());
        assert!(missing.contains("part-00001.parquet"), "{missing}");
        let cut = open_after(&|path| fs::write(path, &fs::read(path).unwrap()[..100]).unwrap());
        assert!(cut.contains("found 100 bytes"), "{cut}");
        let foreign = open_after(&|path| fs::write(path, vec![0; fs::metadata(path).unwrap().len() as usize]).unwrap());
        assert!(foreign.contains("expected a parquet file of 8 rows"), "{foreign}");
    }

    #[test]
    fn a_part_of_another_width_is_refused() {
        let (dir, _) = dataset(StorageDtype::F16);
        let other = tempfile::tempdir().unwrap();
        write(other.path(), manifest(5, 4, 8, StorageDtype::F16), 0..2);
        fs::copy(other.path().join("part-00000.parquet"), dir.path().join("part-00000.parquet")).unwrap();
        let mut mixed = HarvestManifest::read(dir.path()).unwrap();
        mixed.parts[0].bytes = fs::metadata(dir.path().join("part-00000.parquet")).unwrap().len();
        mixed.write(dir.path()).unwrap();
        let message = ActivationDataset::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("hook_embed"), "{message}");
    }

    #[test]
    fn a_hook_point_that_was_not_harvested_is_named_with_those_that_were() {
        let (_dir, dataset) = dataset(StorageDtype::F16);
        let group = dataset.row_groups()[0];
        let message = dataset.read(group, HookPoint::resid_post(3)).unwrap_err().to_string();
        assert!(message.contains("hook_embed") && message.contains("blocks.3.hook_resid_post"), "{message}");
    }

    #[test]
    fn a_folder_without_a_finished_part_says_how_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        manifest(3, 4, 8, StorageDtype::F16).write(dir.path()).unwrap();
        let message = ActivationDataset::open(dir.path()).unwrap_err().to_string();
        assert!(message.contains("goes on where it stopped"), "{message}");
    }
}
