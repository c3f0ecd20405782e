//! [`Rows`]: rows of one or more columns, in the dtype they are stored in. [`RowSource`]: reads them group by group.
//!
//! ```text
//! batch row = (scale_0 column_0 row, scale_1 column_1 row, ..)        width: the sum of the columns' widths
//! ```

use half::f16;
use harvester::{StorageDtype, Values};

use crate::{Result, tensors::le_bytes};

/// Reads rows group by group, from a harvested folder (`activations`) or from vectors (`vector_data`).
pub(crate) trait RowSource: Sync {
    /// Number of values in each column of a row.
    fn widths(&self) -> &[usize];

    /// Bytes of one row as it is held in memory.
    fn row_bytes(&self) -> usize;

    /// Rows of each group, before any are dropped.
    fn group_sizes(&self) -> Vec<usize>;

    /// Upper limit of the number of usable rows. The exact number may not be known before they are read.
    fn n_rows_at_most(&self) -> u64 {
        self.group_sizes().iter().map(|rows| *rows as u64).sum()
    }

    /// The usable rows of a group.
    fn read(&self, group: usize) -> Result<Rows>;
}

/// Rows in the dtype they are stored in.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<Column>,
    n: usize,
}

/// One column of some rows.
#[derive(Debug)]
pub(crate) struct Column {
    /// Row-major. `[n, width]`
    pub(crate) values: Values,
    pub(crate) width: usize,
}

impl Rows {
    /// The rows that `keep` marks. At least one column, each with as many rows as `keep`.
    pub(crate) fn kept(mut columns: Vec<Column>, keep: &[bool]) -> Self {
        columns.iter_mut().for_each(|column| column.values.keep_rows(column.width, keep));
        Self { columns, n: keep.iter().filter(|kept| **kept).count() }
    }

    pub(crate) fn len(&self) -> usize {
        self.n
    }

    /// Writes row `row` to `x`, column after column, each multiplied by its scale.
    ///
    /// # Shapes
    /// `scales` `[columns]`, `x` `[sum of widths]`.
    pub(crate) fn copy_row(&self, row: usize, scales: &[f32], mut x: &mut [f32]) {
        for (column, scale) in self.columns.iter().zip(scales) {
            let (of_column, rest) = x.split_at_mut(column.width);
            column.values.copy_row(row, of_column);
            of_column.iter_mut().for_each(|value| *value *= scale);
            x = rest;
        }
    }

    /// Dtype of each column.
    pub(crate) fn dtypes(&self) -> Vec<StorageDtype> {
        self.columns.iter().map(|column| column.values.dtype()).collect()
    }

    /// Appends row `row` as it is stored, column after column: its scale, if the dtype has scales, then the values.
    pub(crate) fn append_row_bytes(&self, row: usize, bytes: &mut Vec<u8>) {
        for Column { values, width } in &self.columns {
            let range = row * width..(row + 1) * width;
            match values {
                Values::F32(values) => bytes.extend(le_bytes(&values[range], f32::to_le_bytes)),
                Values::F16(values) => bytes.extend(le_bytes(&values[range], f16::to_le_bytes)),
                Values::I8 { values, scales } => {
                    bytes.extend(scales[row].to_le_bytes());
                    bytes.extend(le_bytes(&values[range], i8::to_le_bytes));
                }
            }
        }
    }

    /// Rows written by [`Self::append_row_bytes`]. `None` if the last one is not whole.
    pub(crate) fn from_row_bytes(dtypes: &[StorageDtype], widths: &[usize], mut bytes: &[u8]) -> Option<Self> {
        let empty = |dtype| match dtype {
            StorageDtype::F32 => Values::F32(vec![]),
            StorageDtype::F16 => Values::F16(vec![]),
            StorageDtype::I8 => Values::I8 { values: vec![], scales: vec![] },
        };
        let columns = dtypes.iter().zip(widths).map(|(dtype, &width)| Column { values: empty(*dtype), width });
        let mut columns: Vec<Column> = columns.collect();
        let mut n = 0;
        while !bytes.is_empty() && !columns.is_empty() {
            n += 1;
            for Column { values, width } in &mut columns {
                let mut take = |len| bytes.split_off(..len);
                match values {
                    Values::F32(values) => extend(values, take(4 * *width)?, f32::from_le_bytes),
                    Values::F16(values) => extend(values, take(2 * *width)?, f16::from_le_bytes),
                    Values::I8 { values, scales } => {
                        extend(scales, take(4)?, f32::from_le_bytes);
                        extend(values, take(*width)?, i8::from_le_bytes);
                    }
                }
            }
        }
        Some(Self { columns, n })
    }

    /// All rows in f32, row-major; within a row, one column after the other. `[n, sum of widths]`
    pub(crate) fn to_f32(&self) -> Vec<f32> {
        if let [only] = &self.columns[..] {
            return only.values.to_f32().into_owned();
        }
        let width: usize = self.columns.iter().map(|column| column.width).sum();
        let (scales, mut x) = (vec![1.0; self.columns.len()], vec![0.0; self.len() * width]);
        x.chunks_exact_mut(width.max(1)).enumerate().for_each(|(row, x)| self.copy_row(row, &scales, x));
        x
    }
}

fn extend<T, const N: usize>(values: &mut Vec<T>, bytes: &[u8], from_bytes: fn([u8; N]) -> T) {
    values.extend(bytes.as_chunks().0.iter().map(|bytes| from_bytes(*bytes)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_different_types_stand_one_after_the_other() {
        let ints = Values::I8 { values: vec![1, -2, 3, 4], scales: vec![10.0, 0.5] };
        let floats = Column { values: Values::F32(vec![7.0, 8.0]), width: 1 };
        let rows = Rows::kept(vec![Column { values: ints, width: 2 }, floats], &[true; 2]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.to_f32(), [10.0, -20.0, 7.0, 1.5, 2.0, 8.0]);
        let mut x = [f32::NAN; 3];
        rows.copy_row(1, &[2.0, 0.25], &mut x);
        assert_eq!(x, [3.0, 4.0, 2.0]);
        let mut bytes = vec![];
        [1, 0].into_iter().for_each(|row| rows.append_row_bytes(row, &mut bytes));
        let read = |bytes: &[u8]| Rows::from_row_bytes(&rows.dtypes(), &[2, 1], bytes).map(|rows| rows.to_f32());
        assert_eq!(bytes.len(), 2 * (4 + 2 + 4));
        assert_eq!(read(&bytes), Some(vec![1.5, 2.0, 8.0, 10.0, -20.0, 7.0]));
        assert_eq!(read(&bytes[..19]), None);
    }
}
