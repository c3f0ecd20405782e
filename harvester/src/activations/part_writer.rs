//! [`PartWriter`]: one parquet file, written under a temporary name and published whole.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use parquet::{
    arrow::ArrowSchemaConverter,
    data_type::{ByteArray, ByteArrayType, DataType, FloatType, Int32Type, Int64Type},
    errors::Result as ParquetResult,
    file::{
        metadata::KeyValue,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
};

use super::{
    rows::{TokenRows, Values},
    schema::ShardSchema,
    value_chunks,
};
use crate::{
    Error, Result, Role,
    numbers::HookPointStatistics,
    store::{AtomicFile, Published},
};

/// Key of the statistics in a part's metadata.
pub(super) const STATISTICS_KEY: &str = "refract.statistics";

/// Rows of one row group, for all hook points: computed but not written yet.
#[derive(Debug)]
pub(super) struct RowGroupBuffer {
    pub(super) rows: TokenRows,
    /// One entry per hook point. `[n, width]`
    pub(super) values: Vec<Values>,
    /// One entry per hook point. `[n]`
    pub(super) norms: Vec<Vec<f32>>,
}

impl RowGroupBuffer {
    /// No rows, with space for `capacity`.
    pub(super) fn new(schema: &ShardSchema, capacity: usize) -> Self {
        let values = schema.hook_points.iter().map(|(_, width)| Values::with_capacity(schema.dtype, capacity, *width));
        let norms = schema.hook_points.iter().map(|_| Vec::with_capacity(capacity));
        Self { rows: TokenRows::default(), values: values.collect(), norms: norms.collect() }
    }

    /// Removes the rows and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.rows = TokenRows::default();
        self.values.iter_mut().for_each(Values::clear);
        self.norms.iter_mut().for_each(Vec::clear);
    }
}

/// A part being written. If dropped before [`Self::finish`], it leaves nothing behind.
pub(super) struct PartWriter {
    writer: SerializedFileWriter<AtomicFile>,
    schema: ShardSchema,
    path: PathBuf,
}

impl PartWriter {
    /// Starts the part at `path`.
    pub(super) fn create(path: &Path, schema: &ShardSchema) -> Result<Self> {
        let file = AtomicFile::create(path)?;
        let columns = ArrowSchemaConverter::new().convert(&schema.arrow());
        let writer = columns
            .and_then(|columns| {
                SerializedFileWriter::new(file, columns.root_schema_ptr(), Arc::new(schema.properties()))
            })
            .map_err(Error::parquet("write", path))?;
        Ok(Self { writer, schema: schema.clone(), path: path.to_path_buf() })
    }

    /// Writes a row group.
    pub(super) fn write(&mut self, rows: &RowGroupBuffer) -> Result<()> {
        self.write_row_group(rows).map_err(Error::parquet("write", &self.path))
    }

    fn write_row_group(&mut self, rows: &RowGroupBuffer) -> ParquetResult<()> {
        let columns = self.writer.schema_descr().columns().to_vec();
        let mut group = self.writer.next_row_group()?;
        write_column::<Int64Type>(&mut group, &as_i64(&rows.rows.document))?;
        write_column::<Int64Type>(&mut group, &as_i64(&rows.rows.context))?;
        write_column::<Int32Type>(&mut group, &as_i32(&rows.rows.position))?;
        write_column::<Int32Type>(&mut group, &as_i32(&rows.rows.token))?;
        for (point, (_, width)) in self.schema.hook_points.iter().enumerate() {
            let (column, values) = (&columns[self.schema.first_leaf(point)], &rows.values[point]);
            let (chunk, close) = value_chunks::encode(column, values, *width, self.schema.layout)?;
            group.append_column(&chunk, close)?;
            if let Some(scales) = values.scales() {
                write_column::<FloatType>(&mut group, scales)?;
            }
            write_column::<FloatType>(&mut group, &rows.norms[point])?;
        }
        if self.schema.roles {
            write_roles(&mut group, &rows.rows.role)?;
        }
        group.close()?;
        Ok(())
    }

    /// Writes the footer with the part's statistics, one per hook point, and publishes the file.
    pub(super) fn finish(mut self, statistics: &[HookPointStatistics]) -> Result<Published> {
        let text = serde_json::to_string(statistics).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        self.writer.append_key_value_metadata(KeyValue::new(STATISTICS_KEY.into(), text));
        let file = self.writer.into_inner().map_err(Error::parquet("write", &self.path))?;
        file.publish()
    }
}

/// Writes the next column; its values are never null.
fn write_column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, AtomicFile>,
    values: &[T::T],
) -> ParquetResult<()> {
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, None, None)?;
        column.close()?;
    }
    Ok(())
}

/// Writes the next column, of words or null.
fn write_roles(group: &mut SerializedRowGroupWriter<'_, AtomicFile>, roles: &[Option<Role>]) -> ParquetResult<()> {
    if let Some(mut column) = group.next_column()? {
        let is_there: Vec<i16> = roles.iter().map(|role| i16::from(role.is_some())).collect();
        let words: Vec<ByteArray> = roles.iter().flatten().map(|role| role.name().into()).collect();
        column.typed::<ByteArrayType>().write_batch(&words, Some(&is_there), None)?;
        column.close()?;
    }
    Ok(())
}

/// Parquet stores unsigned numbers as signed ones with the same bits.
fn as_i64(values: &[u64]) -> Vec<i64> {
    values.iter().map(|value| value.cast_signed()).collect()
}

fn as_i32(values: &[u32]) -> Vec<i32> {
    values.iter().map(|value| value.cast_signed()).collect()
}
