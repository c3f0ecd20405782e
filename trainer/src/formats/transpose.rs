//! [`transposed`]: a latent is a row in memory, but a column in the files of half of the tools.

use rayon::prelude::*;

/// Rows and columns of the blocks in which a matrix is transposed. A block and its transpose fit into the first-level
/// cache.
const TRANSPOSE_BLOCK: usize = 32;

/// The transpose of a row-major `[rows, columns]` matrix.
pub(crate) fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    if matrix.is_empty() {
        return vec![]; // no rows or no columns: chunks of length 0 would panic
    }
    let mut transpose = vec![0.0; matrix.len()];
    transpose.par_chunks_mut(TRANSPOSE_BLOCK * rows).enumerate().for_each(|(block, transpose)| {
        let first_column = block * TRANSPOSE_BLOCK;
        for first_row in (0..rows).step_by(TRANSPOSE_BLOCK) {
            for (i, transpose) in transpose.chunks_exact_mut(rows).enumerate() {
                for row in first_row..rows.min(first_row + TRANSPOSE_BLOCK) {
                    transpose[row] = matrix[row * columns + first_column + i];
                }
            }
        }
    });
    transpose
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transpose_has_rows_and_columns_exchanged() {
        assert_eq!(transposed(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 3), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        for (rows, columns) in [(0, 3), (3, 0), (0, 0), (1 << 62, 0)] {
            assert!(transposed(&[], rows, columns).is_empty());
        }
        let wide: Vec<f32> = (0..70 * 45).map(|i| i as f32).collect();
        assert_eq!(transposed(&transposed(&wide, 70, 45), 45, 70), wide);
    }
}
