//! [`VectorDataset`]: rows of numbers written by any program, as one column of lists in a parquet file or in a folder
//! of such files. Opening reads all rows once: each row is checked, and the mean and deviation are computed.
//!
//! Rows are read one group at a time: a row group, or a piece of a large one.

mod list_column;

use std::ops::Range;

use arrow::{
    array::{ArrayRef, RecordBatchReader},
    compute::concat_batches,
};
use list_column::{choose, dtype_of, values_of, width_of};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector},
    },
    file::metadata::PageIndexPolicy,
};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Error, HarvestManifest, Location, Monitor, Result, StorageDtype, Values,
    numbers::{HookPointStatistics, norm},
    store::{MANIFEST_FILE, Manifest},
    text::{Cause, RowBlock, TableFile},
};

/// Most bytes of a group, as f32: shuffling holds several groups. Pieces are not small, because in a file without an
/// index of its pages each read has to skip the rows before the piece.
const GROUP_BYTES: usize = 64 << 20;

/// Vectors in parquet files, opened for reading.
#[derive(Debug)]
pub struct VectorDataset {
    /// The file or folder, as the user named it.
    pub location: Location,
    /// Name of the column of lists.
    pub column: String,
    /// Numbers per row.
    pub width: usize,
    /// Type of the values in memory: f16 if all files hold f16, else f32.
    pub dtype: StorageDtype,
    /// Number of rows.
    pub n_rows: u64,
    /// The files, in the order of the rows.
    pub files: Vec<VectorFile>,
    tables: Vec<Table>,
    /// The rows that are read together, in order: each group is consecutive rows of one file.
    pub groups: Vec<Range<u64>>,
    /// The place of each group.
    blocks: Vec<RowBlock>,
    /// Mean of each dimension. `[width]`
    pub mean: Vec<f32>,
    /// Standard deviation of each dimension. `[width]`
    pub std: Vec<f32>,
}

/// One file of vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorFile {
    /// File name.
    pub name: String,
    /// Number of rows.
    pub rows: u64,
    /// SHA-256 of its bytes; in an object store, of its stamp.
    pub sha256: String,
}

#[derive(Debug)]
struct Table {
    file: TableFile,
    metadata: ArrowReaderMetadata,
}

impl VectorDataset {
    /// Opens a parquet file, or all parquet files directly in a folder, in the order of their names. `column` is the
    /// column of lists of numbers; `None` means the only such column.
    ///
    /// # Errors
    /// The file does not exist; no column holds lists of numbers, or several do; there is no row; a row has another
    /// length, a null, a NaN or an infinity (the message names its file and number).
    pub fn open(location: impl Into<Location>, column: Option<&str>, monitor: &dyn Monitor) -> Result<Self> {
        let location = location.into();
        let places = files_of(&location)?;
        let tables = places.iter().map(Table::open).collect::<Result<Vec<_>>>()?;
        let [first, ..] = &tables[..] else { unreachable!("files_of refuses a folder without files") };
        let column = choose(first.metadata.schema().fields(), column, &first.file.name())?;
        for table in &tables {
            choose(table.metadata.schema().fields(), Some(&column), &table.file.name())?;
        }
        // f32 for all files if any of them is not in half precision.
        let dtypes = tables.iter().map(|table| table.dtype(&column)).collect::<Vec<_>>();
        let dtype = if dtypes.contains(&StorageDtype::F32) { StorageDtype::F32 } else { StorageDtype::F16 };
        let width = first_width(&tables, &column)?;
        let (groups, blocks) = groups_of(&tables, width);
        let files = hashed(&places, &tables, &location, monitor)?;
        let n_rows = files.iter().map(|file| file.rows).sum();
        let (mean, std) = (vec![], vec![]);
        let opened = Self { location, column, width, dtype, n_rows, files, tables, groups, blocks, mean, std };
        let statistics = opened.measure(monitor)?;
        let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Ok(Self { mean: narrow(statistics.mean()), std: narrow(statistics.std()), ..opened })
    }

    /// The rows of group `group`.
    ///
    /// # Shapes
    /// The result: `[rows, width]`
    ///
    /// # Errors
    /// If the file cannot be read, or has changed since it was opened.
    pub fn read(&self, group: usize) -> Result<Values> {
        let block = self.blocks[group];
        let (file, table) = (block.file as usize, &self.tables[block.file as usize]);
        let lists = table.read(block, &self.column)?;
        values_of(&lists, self.width, self.dtype).map_err(|bad| {
            let before: u64 = self.files[..file].iter().map(|file| file.rows).sum();
            let row = self.groups[group].start - before + bad.row as u64;
            let hint = "Correct or remove that row, or name another `column`";
            let expected = format!("lists of {} finite numbers in column `{}`", self.width, self.column);
            Error::malformed(table.file.name(), expected, format!("{} in row {row}", bad.found), hint)
        })
    }

    /// Sums over all rows. The sums of the groups are added in order, so the result does not depend on the number of
    /// threads.
    fn measure(&self, monitor: &dyn Monitor) -> Result<HookPointStatistics> {
        monitor.start("measuring the vectors", self.n_rows, "rows");
        let of_group = |group: usize| {
            if monitor.cancelled() {
                return Err(Error::Cancelled { place: self.location.to_string() });
            }
            let values = self.read(group)?;
            // No row counts as a sink, and no row as the first of a text.
            let mut statistics = HookPointStatistics::new(self.width, f32::INFINITY);
            let mut row = vec![0.0; self.width];
            let rows = &self.groups[group];
            for i in 0..rows.end - rows.start {
                values.copy_row(i as usize, &mut row);
                statistics.observe(&row, norm(&row), 1);
            }
            monitor.advance(rows.end - rows.start);
            Ok(statistics)
        };
        let of_groups: Vec<_> = (0..self.groups.len()).into_par_iter().map(of_group).collect::<Result<_>>()?;
        let mut total = HookPointStatistics::new(self.width, f32::INFINITY);
        of_groups.iter().for_each(|statistics| total.merge(statistics));
        monitor.finish();
        Ok(total)
    }
}

impl Table {
    fn open(location: &Location) -> Result<Self> {
        let file = TableFile::at(location)?;
        let metadata = file.metadata(PageIndexPolicy::Optional)?;
        let of_file = metadata.metadata().file_metadata();
        if of_file.key_value_metadata().into_iter().flatten().any(|entry| entry.key == "refract.format") {
            let hint = "Name the folder it is in with `activations`";
            return Err(Error::malformed(file.name(), "vectors of another tool", "activations of refract", hint));
        }
        Ok(Self { file, metadata })
    }

    fn n_rows(&self) -> u64 {
        // `TableFile::metadata` has checked the positions of the row groups; a negative number of rows counts as 0.
        let groups = self.metadata.metadata().row_groups().iter();
        groups.map(|group| u64::try_from(group.num_rows()).unwrap_or(0)).sum()
    }

    fn dtype(&self, column: &str) -> StorageDtype {
        let field = self.metadata.schema().fields().iter().find(|field| field.name() == column);
        field.map_or(StorageDtype::F32, |field| dtype_of(field.data_type()))
    }

    /// Reads the lists of a block of rows, and no other column.
    fn read(&self, block: RowBlock, column: &str) -> Result<ArrayRef> {
        let place = self.metadata.schema().fields().iter().position(|field| field.name() == column);
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), place);
        let wanted = vec![RowSelector::skip(block.first_row as usize), RowSelector::select(block.rows as usize)];
        let cause = Cause::default();
        let bytes = self.file.open_for(block, &self.metadata, &mask, &cause)?;
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, self.metadata.clone())
            .with_row_groups(vec![block.group as usize])
            .with_row_selection(RowSelection::from(wanted))
            .with_projection(mask)
            .with_batch_size(block.rows as usize)
            .build()
            .map_err(|error| self.file.unreadable(error, &cause))?;
        let schema = reader.schema();
        let batches: std::result::Result<Vec<_>, _> = reader.collect();
        let batch = batches.and_then(|batches| concat_batches(&schema, &batches));
        let batch = batch.map_err(|error| self.file.unreadable(error.into(), &cause))?;
        if batch.num_rows() as u64 != block.rows {
            let (expected, found) = (format!("{} rows from row {}", block.rows, block.first_row), batch.num_rows());
            let hint = "The file is damaged, or changed while it was read; write it again";
            return Err(Error::malformed(self.file.name(), expected, found.to_string(), hint));
        }
        Ok(batch.column(0).clone())
    }
}

/// The named parquet file, or the parquet files of the named folder, sorted by name.
fn files_of(location: &Location) -> Result<Vec<Location>> {
    let expected = "a parquet file, or a folder of them";
    let hint = "Name a file or folder with a column of lists of numbers";
    if !location.is_folder()? {
        return match location.bytes()? {
            Some(_) => Ok(vec![location.clone()]),
            None => Err(Error::malformed(location.to_string(), expected, "no such file", hint)),
        };
    }
    if location.join(MANIFEST_FILE).bytes()?.is_some_and(|_| HarvestManifest::read(location.clone()).is_ok()) {
        let hint = "Name it with `activations`";
        return Err(Error::malformed(location.to_string(), expected, "activations that refract harvested", hint));
    }
    let is_table = |name: &str| name.to_ascii_lowercase().ends_with(".parquet");
    let entries = location.list()?.into_iter().filter(|entry| !entry.is_folder && is_table(&entry.name));
    let files: Vec<_> = entries.map(|entry| entry.location).collect();
    if files.is_empty() {
        return Err(Error::malformed(location.to_string(), expected, "a folder without a .parquet file", hint));
    }
    Ok(files)
}

/// Number of values in the first row of the dataset.
fn first_width(tables: &[Table], column: &str) -> Result<usize> {
    let groups = (0..).zip(tables).flat_map(|(file, table)| {
        let groups = (0..).zip(table.metadata.metadata().row_groups());
        groups.filter(|(_, group)| group.num_rows() > 0).map(move |(group, _)| (table, file, group))
    });
    let Some((table, file, group)) = groups.into_iter().next() else {
        let names: Vec<_> = tables.iter().map(|table| table.file.name()).collect();
        return Err(Error::malformed(names.join(", "), "at least one row", "none", "Write vectors into it"));
    };
    let lists = table.read(RowBlock { file, group, first_row: 0, rows: 1 }, column)?;
    width_of(&lists).filter(|width| *width > 0).ok_or_else(|| {
        let expected = format!("lists of one number or more in column `{column}`");
        let hint = "Correct or remove that row, or name another `column`";
        Error::malformed(table.file.name(), expected, "none in the first row", hint)
    })
}

/// The row groups of all files; large ones are cut into pieces.
fn groups_of(tables: &[Table], width: usize) -> (Vec<Range<u64>>, Vec<RowBlock>) {
    let most = (GROUP_BYTES / (4 * width)).max(1) as u64;
    let (mut groups, mut end) = (vec![], 0);
    for (file, table) in (0..).zip(tables) {
        for (group, metadata) in (0..).zip(table.metadata.metadata().row_groups()) {
            let n_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
            for start in (0..n_rows).step_by(most as usize) {
                let rows = most.min(n_rows - start);
                groups.push((end..end + rows, RowBlock { file, group, first_row: start, rows }));
                end += rows;
            }
        }
    }
    groups.into_iter().unzip()
}

/// The files, with the hash of each.
fn hashed(
    places: &[Location],
    tables: &[Table],
    location: &Location,
    monitor: &dyn Monitor,
) -> Result<Vec<VectorFile>> {
    monitor.start("hashing the vectors", tables.iter().map(|table| table.file.bytes()).sum(), "bytes");
    let mut files = vec![];
    for (place, table) in places.iter().zip(tables) {
        if monitor.cancelled() {
            return Err(Error::Cancelled { place: location.to_string() });
        }
        files.push(VectorFile { name: place.file_name(), rows: table.n_rows(), sha256: table.file.identity()? });
        monitor.advance(table.file.bytes());
    }
    monitor.finish();
    Ok(files)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::{fs::File, path::Path, sync::Arc};

    use arrow::{
        array::{ArrayRef, Float64Array, ListArray, RecordBatch, StringArray},
        datatypes::Float64Type,
    };
    use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};

    use super::*;
    use crate::Silent;

    /// Writes rows in row groups of three, beside a column of names.
    fn write(path: &Path, rows: &[Vec<f64>]) {
        let lists = rows.iter().map(|row| Some(row.iter().copied().map(Some)));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(lists));
        let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows.len()).map(|row| format!("row {row}"))));
        let batch = RecordBatch::try_from_iter([("name", names), ("vector", lists)]).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(3)).build();
        let mut writer = ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }

    /// Rows that encode their own number.
    fn rows(numbers: std::ops::Range<i32>) -> Vec<Vec<f64>> {
        numbers.map(|i| vec![f64::from(i), f64::from(i % 3) * 0.5]).collect()
    }

    fn open(path: &Path, column: Option<&str>) -> Result<VectorDataset> {
        VectorDataset::open(path, column, &Silent)
    }

    fn refused(path: &Path, column: Option<&str>) -> String {
        open(path, column).unwrap_err().to_string()
    }

    #[test]
    fn the_rows_of_a_folder_come_in_the_order_of_its_files() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("b.parquet"), &rows(4..9));
        write(&folder.path().join("a.parquet"), &rows(0..4));
        std::fs::write(folder.path().join("notes.txt"), "no vectors").unwrap();
        let dataset = open(folder.path(), None).unwrap();
        assert_eq!((&*dataset.column, dataset.width, dataset.n_rows), ("vector", 2, 9));
        assert_eq!(dataset.groups, [0..3, 3..4, 4..7, 7..9]);
        let read: Vec<f32> = (0..4).flat_map(|group| dataset.read(group).unwrap().to_f32().into_owned()).collect();
        let expected: Vec<f32> = rows(0..9).concat().into_iter().map(|value| value as f32).collect();
        assert_eq!(read, expected);
        // 0, .., 8: mean 4, variance (9^2 - 1) / 12; 0, 0.5, 1 three times: mean 0.5, variance 1/6
        assert_eq!(dataset.mean, [4.0, 0.5]);
        let near = |a: f32, b: f64| (f64::from(a) - b).abs() < 1e-6;
        assert!(near(dataset.std[0], (80.0_f64 / 12.0).sqrt()) && near(dataset.std[1], (1.0_f64 / 6.0).sqrt()));
        let files: Vec<_> = dataset.files.iter().map(|file| (file.name.as_str(), file.rows)).collect();
        assert_eq!(files, [("a.parquet", 4), ("b.parquet", 5)]);
        assert_eq!(dataset.files[0].sha256, crate::sha256_file(&folder.path().join("a.parquet")).unwrap());
    }

    #[test]
    fn a_piece_of_a_row_group_is_the_same_rows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        write(&path, &rows(0..8));
        let table = Table::open(&path.as_path().into()).unwrap();
        let lists = table.read(RowBlock { file: 0, group: 1, first_row: 1, rows: 2 }, "vector").unwrap();
        let expected = Values::F32(vec![4.0, 0.5, 5.0, 1.0]);
        assert_eq!(values_of(&lists, 2, StorageDtype::F32), Ok(expected));
        // With rows of `GROUP_BYTES` each, every group has one row.
        let (groups, blocks) = groups_of(&[table], GROUP_BYTES / 4);
        assert_eq!(groups, (0..8).map(|row| row..row + 1).collect::<Vec<_>>());
        let places: Vec<_> = blocks.iter().map(|block| (block.group, block.first_row)).collect();
        assert_eq!(places[..4], [(0, 0), (0, 1), (0, 2), (1, 0)]);
    }

    #[test]
    fn rows_that_cannot_be_used_are_named_by_file_and_number() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("a.parquet"), &rows(0..5));
        let path = folder.path().join("b.parquet");
        let second_with = |row: Vec<f64>| {
            let mut rows = rows(0..8);
            rows[4] = row;
            write(&path, &rows);
            refused(folder.path(), None)
        };
        let nan = second_with(vec![1.0, f64::NAN]);
        assert!(nan.contains("b.parquet") && nan.contains("a NaN or an infinity at index 1 in row 4"), "{nan}");
        let infinite = second_with(vec![f64::NEG_INFINITY, 0.0]);
        assert!(infinite.contains("at index 0 in row 4"), "{infinite}");
        let short = second_with(vec![1.0]);
        assert!(short.contains("lists of 2 finite numbers") && short.contains("1 numbers in row 4"), "{short}");
        write(&path, &vec![vec![1.0, 2.0, 3.0]; 2]);
        let wider = refused(folder.path(), None);
        assert!(wider.contains("b.parquet") && wider.contains("3 numbers in row 0"), "{wider}");
    }

    #[test]
    fn a_dataset_without_rows_files_or_the_column_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let none = refused(folder.path(), None);
        assert!(none.contains("a folder without a .parquet file"), "{none}");
        let path = folder.path().join("a.parquet");
        let missing = refused(&path, None);
        assert!(missing.contains("a.parquet") && missing.contains("no such file"), "{missing}");
        write(&path, &[]);
        assert!(refused(folder.path(), None).contains("expected at least one row, found none"));
        write(&path, &[vec![], vec![]]);
        assert!(refused(folder.path(), None).contains("lists of one number or more"));
        write(&path, &rows(0..2));
        let wrong = refused(folder.path(), Some("vectors"));
        assert!(wrong.contains("`vectors`") && wrong.contains("name (Utf8), vector (List("), "{wrong}");
        // A second file that lacks the column.
        let names: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        let batch = RecordBatch::try_from_iter([("number", names)]).unwrap();
        let other = File::create(folder.path().join("b.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(other, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let lacking = refused(folder.path(), None);
        assert!(lacking.contains("b.parquet") && lacking.contains("number (Float64)"), "{lacking}");
        std::fs::write(folder.path().join("b.parquet"), "PAR1 and no more").unwrap();
        let damaged = refused(folder.path(), None);
        assert!(damaged.contains("b.parquet: expected a parquet file"), "{damaged}");
    }

    #[test]
    fn activations_of_refract_are_to_be_named_as_such() {
        let folder = tempfile::tempdir().unwrap();
        crate::activations::testing::write(
            folder.path(),
            crate::activations::testing::manifest(3, 4, 8, StorageDtype::F16),
            0..2,
        );
        assert!(refused(folder.path(), None).contains("`activations`"));
        assert!(refused(&folder.path().join("part-00000.parquet"), None).contains("`activations`"));
    }
}
