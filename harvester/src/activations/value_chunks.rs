//! Column chunks of activation values, to and from flat values. For rows without nulls, [`encode`] and [`decode`]
//! replace parquet's general list code, without its one object per value: 20 times faster for f16, and any parquet
//! reader can read the result.
//!
//! ```text
//! list page    = length repetition  length definition  values     (data page version 1; lengths are u32)
//! repetition levels, per row:  0 once, 1 width - 1 times          (0 starts a list)
//! definition levels:           1 throughout                       (no list is empty, no value is null)
//! values                       little-endian, plain; int8: see below
//!
//! binary page  = values, little-endian                            (fixed-length byte arrays have no levels)
//! ```
//!
//! Levels are run-length encoded: a run of `n` equal levels is the varint `2 n` and the level as one byte.
//!
//! Parquet has no one-byte type: plain int8 takes four bytes. So lists of int8 are written with a dictionary of all 256
//! numbers, in the order of their bytes. An index of 8 bits is then the number's own byte. The indices of a page are
//! one bit-packed run, whose bytes are the values' bytes: `08, varint 2 ceil(n / 8) + 1, n bytes, zeros up to a
//! multiple of 8`.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::Encoding,
    column::{
        page::{CompressedPage, Page, PageReader, PageWriter},
        writer::ColumnCloseResult,
    },
    errors::{ParquetError, Result},
    file::{
        metadata::{ColumnChunkMetaData, OffsetIndexBuilder},
        writer::{SerializedPageWriter, TrackedWrite},
    },
    schema::types::ColumnDescPtr,
};

use super::{layout::Layout, rows::Values};
use crate::StorageDtype;

/// Most bytes of values per page, unless one row is larger: a few contexts, so that these can be read alone.
const PAGE_BYTES: usize = 1 << 20;

/// Encodes rows of `width` values as the column chunk `column`, and its metadata with offsets from the chunk's start.
///
/// # Shapes
/// `values`: `[n, width]`
pub(super) fn encode(
    column: &ColumnDescPtr,
    values: &Values,
    width: usize,
    layout: Layout,
) -> Result<(Bytes, ColumnCloseResult)> {
    let row_bytes = width * values.dtype().bytes();
    let (rows, page_rows) = (values.len() / width, (PAGE_BYTES / row_bytes).max(1));
    let mut chunk = TrackedWrite::new(Vec::with_capacity(rows * (row_bytes + 8) + 2048));
    let mut index = OffsetIndexBuilder::new();
    let mut encodings = vec![Encoding::PLAIN, Encoding::RLE];
    let mut metadata = ColumnChunkMetaData::builder(Arc::clone(column));
    if has_dictionary(values.dtype(), layout) {
        let size = DICTIONARY_BYTES;
        SerializedPageWriter::new(&mut chunk).write_page(CompressedPage::new(dictionary_page(), size))?;
        metadata = metadata.set_dictionary_page_offset(Some(0));
        encodings.push(Encoding::RLE_DICTIONARY);
    }
    let data_page_offset = chunk.bytes_written() as i64;
    for start in (0..rows).step_by(page_rows) {
        let end = rows.min(start + page_rows);
        let page = page(values, start..end, width, layout);
        let size = page.buffer().len();
        let written = SerializedPageWriter::new(&mut chunk).write_page(CompressedPage::new(page, size))?;
        index.append_row_count((end - start) as i64);
        index.append_offset_and_size(written.offset as i64, written.compressed_size as i32);
    }
    let size = chunk.bytes_written();
    let metadata = metadata
        .set_encodings(encodings)
        .set_total_compressed_size(size as i64)
        .set_total_uncompressed_size(size as i64)
        .set_num_values(if layout == Layout::List { values.len() } else { rows } as i64)
        .set_data_page_offset(data_page_offset)
        .build()?;
    let close = ColumnCloseResult {
        bytes_written: size as u64,
        rows_written: rows as u64,
        metadata,
        bloom_filter: None,
        column_index: None,
        offset_index: Some(index.build()),
    };
    Ok((chunk.into_inner()?.into(), close))
}

/// True if values are indices into the dictionary of all bytes.
fn has_dictionary(dtype: StorageDtype, layout: Layout) -> bool {
    dtype == StorageDtype::I8 && layout == Layout::List
}

/// 256 numbers of parquet's smallest type, which has 32 bits.
const DICTIONARY_BYTES: usize = 256 * 4;

/// All numbers of 8 bits, in the order of their bytes: 0 to 127, then -128 to -1.
fn dictionary() -> Bytes {
    (0..=u8::MAX).flat_map(|byte| i32::from(byte.cast_signed()).to_le_bytes()).collect::<Vec<u8>>().into()
}

fn dictionary_page() -> Page {
    Page::DictionaryPage { buf: dictionary(), num_values: 256, encoding: Encoding::PLAIN, is_sorted: false }
}

/// The page of some rows.
fn page(values: &Values, rows: Range<usize>, width: usize, layout: Layout) -> Page {
    let n = rows.len() * width;
    let mut buffer = Vec::with_capacity(n * values.dtype().bytes() + 8 * rows.len() + 64);
    if layout == Layout::List {
        push_levels(&mut buffer, rows.len(), width);
    }
    let indices = has_dictionary(values.dtype(), layout);
    if indices {
        buffer.push(8); // bits per index
        push_varint(&mut buffer, n.div_ceil(8) << 1 | 1);
    }
    values.append_bytes(rows.start * width..rows.end * width, &mut buffer);
    if indices {
        buffer.resize(buffer.len() + n.next_multiple_of(8) - n, 0);
    }
    Page::DataPage {
        buf: buffer.into(),
        num_values: if layout == Layout::List { n } else { rows.len() } as u32,
        encoding: if indices { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN },
        def_level_encoding: Encoding::RLE,
        rep_level_encoding: Encoding::RLE,
        statistics: None,
    }
}

/// The levels of `rows` lists of `width` values.
fn push_levels(buffer: &mut Vec<u8>, rows: usize, width: usize) {
    let mut repetition = vec![];
    for _ in 0..rows {
        push_run(&mut repetition, 1, 0);
        if width > 1 {
            push_run(&mut repetition, width - 1, 1);
        }
    }
    let mut definition = vec![];
    push_run(&mut definition, rows * width, 1);
    for levels in [repetition, definition] {
        buffer.extend_from_slice(&(levels.len() as u32).to_le_bytes());
        buffer.extend_from_slice(&levels);
    }
}

fn push_run(levels: &mut Vec<u8>, count: usize, level: u8) {
    push_varint(levels, count << 1);
    levels.push(level);
}

fn push_varint(buffer: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        buffer.push(number as u8 | 0x80);
        number >>= 7;
    }
    buffer.push(number as u8);
}

/// Decodes pages written by [`encode`] into `expected` values. Scales are in another column.
///
/// # Errors
/// If the pages hold another number of values, or have another layout.
pub(super) fn decode(
    pages: &mut dyn PageReader,
    dtype: StorageDtype,
    layout: Layout,
    expected: usize,
) -> Result<Values> {
    let mut values = Values::with_capacity(dtype, 1, expected);
    while let Some(page) = pages.get_next_page()? {
        match &page {
            Page::DictionaryPage { buf, .. } if has_dictionary(dtype, layout) && *buf == dictionary() => {}
            page => values.extend_from_bytes(value_bytes(page, dtype, layout)?),
        }
    }
    if values.len() != expected {
        return Err(ParquetError::General(format!("{} values instead of {expected}", values.len())));
    }
    Ok(values)
}

/// The bytes of a page's values, after both kinds of levels. If there are as many values as levels, none is null.
fn value_bytes(page: &Page, dtype: StorageDtype, layout: Layout) -> Result<&[u8]> {
    let expected = if has_dictionary(dtype, layout) { Encoding::RLE_DICTIONARY } else { Encoding::PLAIN };
    let (buf, num_values) = match page {
        Page::DataPage { buf, num_values, encoding, .. } if *encoding == expected => (buf, *num_values as usize),
        _ => return Err(ParquetError::General(format!("a page that is not of version 1 and {expected}"))),
    };
    if layout == Layout::Binary {
        return Ok(buf);
    }
    let values = skip_levels(buf).and_then(skip_levels).unwrap_or_default();
    let values = if expected == Encoding::PLAIN { values } else { indices(values, num_values).unwrap_or_default() };
    if values.len() != num_values * dtype.bytes() {
        let (found, expected) = (values.len(), num_values * dtype.bytes());
        return Err(ParquetError::General(format!("a page with {found} bytes of values instead of {expected}")));
    }
    Ok(values)
}

fn skip_levels(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.get(u32::from_le_bytes(*length) as usize..)
}

/// The bytes of `n` indices of 8 bits in a single bit-packed run.
fn indices(bytes: &[u8], n: usize) -> Option<&[u8]> {
    let mut header = vec![8];
    push_varint(&mut header, n.div_ceil(8) << 1 | 1);
    let run = bytes.strip_prefix(&header[..])?;
    (run.len() == n.next_multiple_of(8)).then(|| &run[..n])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::{
        array::AsArray,
        datatypes::{Float16Type, Float32Type, Int8Type},
    };
    use half::f16;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::{
        ActivationDataset, HookPoint,
        activations::testing::{manifest, write},
    };

    /// Reads with arrow's general list code, which shares nothing with [`decode`].
    fn read_by_arrow(path: &std::path::Path) -> Vec<f32> {
        let file = std::fs::File::open(path).unwrap();
        let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        let mut values = vec![];
        for batch in batches {
            let batch = batch.unwrap();
            let list = batch.column_by_name("hook_embed").unwrap().as_fixed_size_list();
            let (width, list) = (list.value_length() as usize, list.values());
            if let Some(list) = list.as_primitive_opt::<Float32Type>() {
                values.extend_from_slice(list.values());
            } else if let Some(list) = list.as_primitive_opt::<Float16Type>() {
                values.extend(list.values().iter().map(|value| value.to_f32()));
            } else {
                let scales = batch.column_by_name("hook_embed.scale").unwrap().as_primitive::<Float32Type>();
                let rows = list.as_primitive::<Int8Type>().values().chunks(width).zip(scales.values());
                values.extend(rows.flat_map(|(row, scale)| row.iter().map(move |value| f32::from(*value) * scale)));
            }
        }
        values
    }

    #[test]
    fn arrow_reads_the_same_values_over_many_pages() {
        // Runs longer than one byte of a varint, several pages per row group, and lists of one value.
        for (width, dtype) in [
            (700, StorageDtype::F16),
            (700, StorageDtype::F32),
            (1, StorageDtype::F16),
            (700, StorageDtype::I8),
            (3, StorageDtype::I8),
        ] {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), manifest(width, 16, 4096, dtype), 0..256);
            let dataset = ActivationDataset::open(dir.path()).unwrap();
            let ours = dataset.read(dataset.row_groups[0], HookPoint::Embed).unwrap();
            assert_eq!(read_by_arrow(&dir.path().join("part-00000.parquet")), ours.values.to_f32().as_ref());
        }
    }

    #[test]
    fn levels_on_paper() {
        let Page::DataPage { buf, num_values, .. } = page(&Values::F16(vec![f16::ONE; 6]), 1..2, 3, Layout::List)
        else {
            panic!()
        };
        assert_eq!(num_values, 3);
        // 4 bytes: once 0, twice 1; 2 bytes: three times 1; then three times 1.0
        assert_eq!(buf[..], [4, 0, 0, 0, 2, 0, 4, 1, 2, 0, 0, 0, 6, 1, 0, 0x3c, 0, 0x3c, 0, 0x3c]);
        let mut long = vec![];
        push_run(&mut long, 575, 1); // 2 * 575 = 0b1000_1111110
        assert_eq!(long, [0b1111_1110, 0b1000, 1]);
    }

    #[test]
    fn int8_indices_on_paper() {
        let values = Values::I8 { values: vec![1, -1, 127, -127, 0], scales: vec![1.0; 5] };
        let Page::DataPage { buf, encoding, .. } = page(&values, 0..5, 1, Layout::List) else { panic!() };
        assert_eq!(encoding, Encoding::RLE_DICTIONARY);
        // Five times once 0; five times 1; then indices of 8 bits: one group of eight, of which three are not used.
        let levels = [10, 0, 0, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0, 10, 1];
        assert_eq!(buf[..20], levels);
        assert_eq!(buf[20..], [8, 3, 1, 255, 127, 129, 0, 0, 0, 0]);
        assert_eq!(dictionary()[4 * 129..4 * 130], (-127_i32).to_le_bytes());
        let Page::DataPage { buf, .. } = page(&values, 1..4, 1, Layout::Binary) else { panic!() };
        assert_eq!(buf[..], [255, 127, 129]);
    }

    #[test]
    fn a_page_that_ends_early_is_an_error() {
        let cut = |length: usize| {
            let Page::DataPage { buf, .. } = page(&Values::F16(vec![f16::ONE; 6]), 0..2, 3, Layout::List) else {
                panic!()
            };
            let page = Page::DataPage {
                buf: buf.slice(..length),
                num_values: 6,
                encoding: Encoding::PLAIN,
                def_level_encoding: Encoding::RLE,
                rep_level_encoding: Encoding::RLE,
                statistics: None,
            };
            value_bytes(&page, StorageDtype::F16, Layout::List).is_ok()
        };
        assert!(cut(30));
        assert!((0..30).all(|length| !cut(length)));
    }
}
