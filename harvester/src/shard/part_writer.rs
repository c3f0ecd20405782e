//! [`PartWriter`]: one parquet file, written under a temporary name and published whole.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float16Array, Float32Array, RecordBatch, UInt32Array, UInt64Array},
    datatypes::SchemaRef,
};
use parquet::{arrow::ArrowWriter, file::metadata::KeyValue};

use super::{
    rows::{TokenRows, Values},
    schema::ShardSchema,
};
use crate::{
    Error, Result,
    atomic::{AtomicFile, Published},
    stats::HookPointStatistics,
};

/// Key of the statistics in a part's metadata.
pub(super) const STATISTICS_KEY: &str = "refract.statistics";

/// Rows of one row group, for all hook points: what the forward pass has produced and is not written yet.
#[derive(Debug)]
pub(super) struct RowGroupBuffer {
    pub(super) rows: TokenRows,
    /// One for each hook point. `[n, width]`
    pub(super) values: Vec<Values>,
    /// One for each hook point. `[n]`
    pub(super) norms: Vec<Vec<f32>>,
}

impl RowGroupBuffer {
    /// No rows, with room for `capacity`.
    pub(super) fn new(schema: &ShardSchema, capacity: usize) -> Self {
        let values = schema.hook_points.iter().map(|(_, width)| Values::with_capacity(schema.dtype, capacity * width));
        let norms = schema.hook_points.iter().map(|_| Vec::with_capacity(capacity));
        Self { rows: TokenRows::default(), values: values.collect(), norms: norms.collect() }
    }
}

/// A part being written. Dropped before [`Self::finish`], it leaves nothing behind.
pub(super) struct PartWriter {
    writer: ArrowWriter<AtomicFile>,
    schema: SchemaRef,
    columns: ShardSchema,
    path: std::path::PathBuf,
}

impl PartWriter {
    /// Starts the part at `path`.
    pub(super) fn create(path: &Path, columns: &ShardSchema) -> Result<Self> {
        let schema = columns.arrow();
        let file = AtomicFile::create(path)?;
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(columns.properties()))
            .map_err(Error::parquet("write", path))?;
        Ok(Self { writer, schema, columns: columns.clone(), path: path.to_path_buf() })
    }

    /// Writes a row group and empties the buffer.
    pub(super) fn write(&mut self, group: &mut RowGroupBuffer) -> Result<()> {
        let rows = std::mem::take(&mut group.rows);
        let mut arrays: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from(rows.document)),
            Arc::new(UInt64Array::from(rows.context)),
            Arc::new(UInt32Array::from(rows.position)),
            Arc::new(UInt32Array::from(rows.token)),
        ];
        for (i, (_, width)) in self.columns.hook_points.iter().enumerate() {
            let values: ArrayRef = match &mut group.values[i] {
                Values::F32(values) => Arc::new(Float32Array::from(std::mem::take(values))),
                Values::F16(values) => Arc::new(Float16Array::from(std::mem::take(values))),
            };
            let list = FixedSizeListArray::new(self.columns.item(), *width as i32, values, None);
            arrays.push(Arc::new(list));
            arrays.push(Arc::new(Float32Array::from(std::mem::take(&mut group.norms[i]))));
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), arrays)
            .map_err(|error| Error::parquet("write", &self.path)(error.into()))?;
        self.writer.write(&batch).map_err(Error::parquet("write", &self.path))?;
        self.writer.flush().map_err(Error::parquet("write", &self.path))
    }

    /// Writes the footer with the part's statistics, one for each hook point, and publishes the file.
    pub(super) fn finish(mut self, statistics: &[HookPointStatistics]) -> Result<Published> {
        let text = serde_json::to_string(statistics).map_err(|error| Error::io("write", &self.path)(error.into()))?;
        self.writer.append_key_value_metadata(KeyValue::new(STATISTICS_KEY.into(), text));
        let file = self.writer.into_inner().map_err(Error::parquet("write", &self.path))?;
        file.publish()
    }
}
