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
    CorpusOptions, Document,
    document_column::{chats, column_of, expected_column, texts},
    table_file::{BLOCK_ROWS, Cause, RowBlock, TableFile},
};
use crate::{Error, Result};

/// The file opened last and the block read last.
#[derive(Debug, Default)]
pub(super) struct Tables {
    opened: Mutex<Option<(u32, ArrowReaderMetadata)>>,
    block: Mutex<Option<(RowBlock, Arc<Vec<Document>>)>>,
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
                *held = None; // free the old block before reading the new one
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
