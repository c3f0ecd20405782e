//! [`VectorDataset`]: rows of numbers that any program wrote: one column of lists in a parquet file, or in a folder of
//! them. Nothing is known of them beforehand, so opening them reads them once: each row is checked, and their mean and
//! deviation are taken.
//!
//! Rows are read a [`VectorGroup`] at a time: a row group, or a piece of one that is large.

mod list_column;

use std::path::{Path, PathBuf};

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
    Error, Location, Monitor, Result, StorageDtype, Values,
    corpus::{Cause, RowBlock, TableFile},
    manifest_file::MANIFEST_FILE,
    stats::{HookPointStatistics, norm},
};

/// Bytes of a group at most, as f32: whoever shuffles holds several. Where a file has no index of its pages, what stands
/// before a piece of a row group is passed over each time, so pieces are not small.
const GROUP_BYTES: usize = 64 << 20;

/// Vectors in parquet files, opened for reading.
#[derive(Debug)]
pub struct VectorDataset {
    location: Location,
    dir: PathBuf,
    column: String,
    width: usize,
    dtype: StorageDtype,
    tables: Vec<Table>,
    groups: Vec<VectorGroup>,
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// A file of vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorFile {
    /// Its own name.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// SHA-256 of its bytes, or in an object store of what changes with them.
    pub sha256: String,
}

/// Consecutive rows of one file that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorGroup {
    /// Rows of the dataset before it.
    pub first_row: u64,
    /// Rows in it.
    pub rows: usize,
    block: RowBlock,
    /// Rows of the file before it.
    first_row_of_file: u64,
}

#[derive(Debug)]
struct Table {
    file: TableFile,
    metadata: ArrowReaderMetadata,
    recorded: VectorFile,
}

impl VectorDataset {
    /// Opens a parquet file, or all those directly in a folder, in the order of their names. `column` is the one of
    /// lists of numbers; by default the only one.
    ///
    /// # Errors
    /// No such file, none of its columns holds lists of numbers, or several do; no row; a row of another length, or with
    /// a null, a nan or an infinity, which is named by its file and number.
    pub fn open(location: impl Into<Location>, column: Option<&str>, monitor: &dyn Monitor) -> Result<Self> {
        let location = location.into();
        let dir = PathBuf::from(location.to_string());
        let mut tables = files_of(&location)?.iter().map(Table::open).collect::<Result<Vec<_>>>()?;
        let [first, ..] = &tables[..] else { unreachable!("files_of refuses a folder without files") };
        let column = choose(first.metadata.schema().fields(), column, &first.file.name())?;
        for table in &tables {
            choose(table.metadata.schema().fields(), Some(&column), &table.file.name())?;
        }
        // All in f32 where one file's numbers are not of half precision.
        let dtypes = tables.iter().map(|table| table.dtype(&column)).collect::<Vec<_>>();
        let dtype = if dtypes.contains(&StorageDtype::F32) { StorageDtype::F32 } else { StorageDtype::F16 };
        let width = first_width(&tables, &column)?;
        let groups = groups_of(&tables, width);
        hash(&mut tables, &dir, monitor)?;
        let (mean, std) = (vec![], vec![]);
        let opened = Self { location, dir, column, width, dtype, tables, groups, mean, std };
        let statistics = opened.measure(monitor)?;
        let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
        Ok(Self { mean: narrow(statistics.mean()), std: narrow(statistics.std()), ..opened })
    }

    /// The file or folder, as it was named.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where it is found from any working directory: an absolute path, or an URL.
    ///
    /// # Errors
    /// When it is not there any more.
    pub fn absolute(&self) -> Result<PathBuf> {
        self.location.absolute()
    }

    /// The column of lists.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Numbers a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How they are held in memory: f16 where the files do, else f32.
    pub fn dtype(&self) -> StorageDtype {
        self.dtype
    }

    /// The files, in the order of the rows.
    pub fn files(&self) -> impl Iterator<Item = &VectorFile> {
        self.tables.iter().map(|table| &table.recorded)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.files().map(|file| file.rows).sum()
    }

    /// What is read together, in order.
    pub fn groups(&self) -> &[VectorGroup] {
        &self.groups
    }

    /// Mean of each dimension. `[width]`
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// Standard deviation of each dimension. `[width]`
    pub fn std(&self) -> &[f32] {
        &self.std
    }

    /// The rows of `group`.
    ///
    /// # Shapes
    /// The result: `[rows, width]`
    ///
    /// # Errors
    /// When the file cannot be read, or has changed since it was opened.
    pub fn read(&self, group: VectorGroup) -> Result<Values> {
        let table = &self.tables[group.block.file as usize];
        let lists = table.read(group.block, &self.column)?;
        values_of(&lists, self.width, self.dtype).map_err(|bad| {
            let row = group.first_row_of_file + bad.row as u64;
            let hint = "Correct or remove that row, or name another --column";
            let expected = format!("lists of {} finite numbers in column `{}`", self.width, self.column);
            Error::malformed(table.file.name(), expected, format!("{} in row {row}", bad.found), hint)
        })
    }

    /// Sums over all rows. Those of the groups are added up in order, so they do not depend on the threads.
    fn measure(&self, monitor: &dyn Monitor) -> Result<HookPointStatistics> {
        monitor.start("measuring the vectors", self.n_rows(), "rows");
        let of_group = |group: &VectorGroup| {
            if monitor.cancelled() {
                return Err(Error::Cancelled { path: self.dir.clone() });
            }
            let values = self.read(*group)?;
            // No row is a sink, and none is the first of a text.
            let mut statistics = HookPointStatistics::new(self.width, f32::INFINITY);
            let mut row = vec![0.0; self.width];
            for i in 0..group.rows {
                values.copy_row(i, &mut row);
                statistics.observe(&row, norm(&row), 1);
            }
            monitor.advance(group.rows as u64);
            Ok(statistics)
        };
        let of_groups: Vec<_> = self.groups.par_iter().map(of_group).collect::<Result<_>>()?;
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
            let hint = "Name the folder it is in with --activations";
            return Err(Error::malformed(file.name(), "vectors of another tool", "activations of refract", hint));
        }
        // `TableFile::metadata` has checked the groups' places; a negative number of rows is none.
        let rows = metadata.metadata().row_groups().iter().map(|group| u64::try_from(group.num_rows()).unwrap_or(0));
        let recorded = VectorFile { name: location.file_name(), rows: rows.sum(), sha256: String::new() };
        Ok(Self { file, metadata, recorded })
    }

    fn dtype(&self, column: &str) -> StorageDtype {
        let field = self.metadata.schema().fields().iter().find(|field| field.name() == column);
        field.map_or(StorageDtype::F32, |field| dtype_of(field.data_type()))
    }

    /// The lists of a block of rows; no other column is read.
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

/// The parquet file named, or those in the folder named, by name.
fn files_of(location: &Location) -> Result<Vec<Location>> {
    let expected = "a parquet file, or a folder of them";
    let hint = "Name a file or folder with a column of lists of numbers";
    if !location.is_folder()? {
        return match location.bytes()? {
            Some(_) => Ok(vec![location.clone()]),
            None => Err(Error::malformed(location.to_string(), expected, "no such file", hint)),
        };
    }
    if location.join(MANIFEST_FILE).bytes()?.is_some_and(|_| crate::HarvestManifest::read(location.clone()).is_ok()) {
        let hint = "Name it with --activations";
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

/// Numbers in the first row there is.
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
        let hint = "Correct or remove that row, or name another --column";
        Error::malformed(table.file.name(), expected, "none in the first row", hint)
    })
}

/// The row groups of all files, in pieces where they are large.
fn groups_of(tables: &[Table], width: usize) -> Vec<VectorGroup> {
    let most = (GROUP_BYTES / (4 * width)).max(1) as u64;
    let (mut groups, mut first_row) = (vec![], 0);
    for (file, table) in (0..).zip(tables) {
        let mut first_row_of_file = 0;
        for (group, metadata) in (0..).zip(table.metadata.metadata().row_groups()) {
            let n_rows = u64::try_from(metadata.num_rows()).unwrap_or(0);
            for start in (0..n_rows).step_by(most as usize) {
                let rows = most.min(n_rows - start);
                let block = RowBlock { file, group, first_row: start, rows };
                groups.push(VectorGroup { first_row, rows: rows as usize, block, first_row_of_file });
                first_row += rows;
                first_row_of_file += rows;
            }
        }
    }
    groups
}

/// Fills in what tells each file from any other.
fn hash(tables: &mut [Table], dir: &Path, monitor: &dyn Monitor) -> Result<()> {
    monitor.start("hashing the vectors", tables.iter().map(|table| table.file.bytes()).sum(), "bytes");
    for table in tables {
        if monitor.cancelled() {
            return Err(Error::Cancelled { path: dir.to_path_buf() });
        }
        table.recorded.sha256 = table.file.identity()?;
        monitor.advance(table.file.bytes());
    }
    monitor.finish();
    Ok(())
}
