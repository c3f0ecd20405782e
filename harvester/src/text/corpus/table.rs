//! [`Tables`]: documents in a column of parquet files. Only that column is read, one block of rows at a time, and the
//! last block stays in memory.

use std::sync::{Arc, Mutex, PoisonError};

use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder, RowSelection, RowSelector},
    },
    file::metadata::PageIndexPolicy,
};

use super::{
    CorpusOptions, Record,
    document_column::{column_of, expected_column, field_at, records},
    table_file::{BLOCK_ROWS, Cause, RowBlock, TableFile},
};
use crate::{Error, Result};

/// The file opened last and the block read last.
#[derive(Debug, Default)]
pub(super) struct Tables {
    opened: Mutex<Option<(u32, ArrowReaderMetadata)>>,
    block: Mutex<Option<(RowBlock, Arc<Vec<Record>>)>>,
}

impl Tables {
    /// Record `row` of a block.
    pub(super) fn record(
        &self,
        files: &[TableFile],
        block: RowBlock,
        row: u64,
        options: &CorpusOptions,
    ) -> Result<Record> {
        let mut held = self.block.lock().unwrap_or_else(PoisonError::into_inner);
        let records = match &*held {
            Some((of, records)) if *of == block => Arc::clone(records),
            _ => {
                *held = None; // free the old block before reading the new one
                let records = Arc::new(self.read(&files[block.file as usize], block, options)?);
                *held = Some((block, Arc::clone(&records)));
                records
            }
        };
        let record = records.get(row as usize).cloned();
        record.ok_or_else(|| {
            let file = &files[block.file as usize];
            let (expected, found) = (format!("{} rows from row {}", block.rows, block.first_row), records.len());
            Error::malformed(
                file.name(),
                expected,
                found.to_string(),
                "The file changed while it was read; start again",
            )
        })
    }

    fn read(&self, file: &TableFile, block: RowBlock, options: &CorpusOptions) -> Result<Vec<Record>> {
        let metadata = {
            let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
            match &*opened {
                Some((of, metadata)) if *of == block.file => metadata.clone(),
                _ => opened.insert((block.file, file.metadata(PageIndexPolicy::Optional)?)).1.clone(),
            }
        };
        let name = file.name();
        let column = column_of(&metadata, options, &name)?;
        let paths = options.keep_fields.iter().map(String::as_str).chain([column]);
        let roots = paths.filter_map(|path| Some(field_at(metadata.schema().fields(), path)?.0));
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
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
        let mut read = vec![];
        for batch in reader {
            let batch = batch.map_err(|error| file.unreadable(error.into(), &cause))?;
            let more = records(&batch, column, options).map_err(|found| {
                let place = format!("{name}, row group {}, rows from {}", block.group, block.first_row);
                Error::malformed(place, expected_column(options), found, "Name another column, or correct the file")
            })?;
            read.extend(more);
        }
        let longest = read.iter().map(|record| record.document.bytes()).max().unwrap_or(0);
        options.check_size(&name, longest)?;
        Ok(read)
    }
}
