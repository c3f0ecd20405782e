//! [`Rows`]: what training reads: rows of one or more columns, in the dtype they are stored in; and [`RowSource`],
//! where they are read from, a group at a time.
//!
//! ```text
//! batch row = (scale_0 column_0 row, scale_1 column_1 row, ..)        width: the sum of the columns' widths
//! ```

use harvester::Values;

use crate::Result;

/// Something rows can be read from, a group at a time: a harvested folder (`activations`) or vectors (`vector_data`).
pub(crate) trait RowSource: Sync {
    /// Values of each column of a row.
    fn widths(&self) -> &[usize];

    /// Bytes of one row as it is held in memory.
    fn row_bytes(&self) -> usize;

    /// Rows of each group, before any are dropped.
    fn group_sizes(&self) -> Vec<usize>;

    /// Rows that count at most; how many do may not be known before they are read.
    fn n_rows_at_most(&self) -> u64 {
        self.group_sizes().iter().map(|rows| *rows as u64).sum()
    }

    /// The rows of a group that count.
    fn read(&self, group: usize) -> Result<Rows>;
}

/// Rows in the dtype that they are stored in.
#[derive(Debug)]
pub(crate) struct Rows {
    columns: Vec<Column>,
}

/// One column of some rows.
#[derive(Debug)]
pub(crate) struct Column {
    /// Row-major. `[n, width]`
    pub(crate) values: Values,
    pub(crate) width: usize,
}

impl Rows {
    /// Columns of as many rows each; at least one.
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns }
    }

    pub(crate) fn len(&self) -> usize {
        self.columns.first().map_or(0, |column| column.values.len() / column.width)
    }

    /// Writes row `row` to `x`, column after column, each times its scale.
    ///
    /// # Shapes
    /// `scales`: `[columns]`; `x`: the sum of the widths.
    pub(crate) fn copy_row(&self, row: usize, scales: &[f32], mut x: &mut [f32]) {
        for (column, scale) in self.columns.iter().zip(scales) {
            let (of_column, rest) = x.split_at_mut(column.width);
            column.values.copy_row(row, of_column);
            of_column.iter_mut().for_each(|value| *value *= scale);
            x = rest;
        }
    }

    /// All rows in f32, row-major, the columns of each one after the other. `[n, sum of widths]`
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_different_types_stand_one_after_the_other() {
        let ints = Values::I8 { values: vec![1, -2, 3, 4], scales: vec![10.0, 0.5] };
        let rows = Rows::new(vec![
            Column { values: ints, width: 2 },
            Column { values: Values::F32(vec![7.0, 8.0]), width: 1 },
        ]);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.to_f32(), [10.0, -20.0, 7.0, 1.5, 2.0, 8.0]);
        let mut x = [f32::NAN; 3];
        rows.copy_row(1, &[2.0, 0.25], &mut x);
        assert_eq!(x, [3.0, 4.0, 2.0]);
    }
}
