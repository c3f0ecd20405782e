//! [`write_batch`]: writes a table as a parquet file, for pyarrow, polars and DuckDB. Both tables of this module are
//! written with it: always whole, and with the same bytes for the same rows.

use std::path::Path;

use arrow::{array::RecordBatch, error::ArrowError};
use harvester::AtomicFile;
use parquet::arrow::ArrowWriter;

use crate::Result;

/// Replaces the file at `path` by the rows of `batch`, or returns the error of making `batch`.
pub(crate) fn write_batch(path: &Path, batch: Result<RecordBatch, ArrowError>) -> Result<()> {
    let failed = |error| harvester::Error::parquet("write", path)(error);
    let batch = batch.map_err(|error| failed(error.into()))?;
    let mut writer = ArrowWriter::try_new(AtomicFile::create(path)?, batch.schema(), None).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.into_inner().map_err(failed)?.publish()?;
    Ok(())
}
