//! The dense products beside the encoder's, for what passes no latent: the linear bypass of a transcoder, and its
//! gradient. The first is in dot products, so that a row gives the same bits alone and in a batch: `gemm`, where few
//! columns are asked for, adds in an order that depends on the number of rows.

use rayon::prelude::*;

use super::simd::{Kernel, dot, wide};

/// Rows that go together over `w`: they stay in the first cache while it streams by.
const ROWS_PER_TASK: usize = 8;

/// out += x W^T.
///
/// # Shapes
/// `x` `[n, d_in]`, `w` `[d_out, d_in]`, `out` `[n, d_out]`, all row-major.
pub(crate) fn add_product_transposed(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32]) {
    let d_out = w.len() / d_in;
    let rows = out.par_chunks_mut(ROWS_PER_TASK * d_out).zip(x.par_chunks(ROWS_PER_TASK * d_in));
    rows.for_each(|(out, x)| wide(AddRows { x, w, d_in, out }));
}

/// Some rows.
struct AddRows<'a> {
    x: &'a [f32],
    w: &'a [f32],
    d_in: usize,
    out: &'a mut [f32],
}

impl Kernel for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { x, w, d_in, out } = self;
        let d_out = w.len() / d_in;
        for (column, w) in w.chunks_exact(d_in).enumerate() {
            for (x, out) in x.chunks_exact(d_in).zip(out.chunks_exact_mut(d_out)) {
                out[column] += dot(x, w);
            }
        }
    }
}

/// out = scale a^T b.
///
/// # Shapes
/// `a` `[n, rows]`, `b` `[n, columns]`, `out` `[rows, columns]`, all row-major.
pub(crate) fn transposed_product(a: &[f32], b: &[f32], rows: usize, columns: usize, scale: f32, out: &mut [f32]) {
    let n = a.len() / rows;
    assert_eq!((n * rows, n * columns, rows * columns), (a.len(), b.len(), out.len()));
    // SAFETY: the three slices have exactly the sizes that these dimensions and strides span (asserted above), and
    // `out` is borrowed mutably, so it overlaps neither input. Its old contents are not read (`read_dst` false).
    unsafe {
        gemm::gemm(
            rows,
            columns,
            n,
            out.as_mut_ptr(),
            1,
            columns as isize,
            false,
            a.as_ptr(),
            rows as isize,
            1,
            b.as_ptr(),
            1,
            columns as isize,
            0.0,
            scale,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plain;

    #[test]
    fn known_answer() {
        let mut y = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        // Rows of W: x_0 + x_1, 2 x_1, -x_0.
        add_product_transposed(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 0.0, 2.0, -1.0, 0.0], 2, &mut y);
        assert_eq!(y, [13.0, 24.0, 29.0, 47.0, 58.0, 57.0]);
    }

    #[test]
    fn both_agree_with_plain_sums() {
        let (n, d_in, d_out) = (37, 12, 9);
        let (x, w, y) = (plain::random(n * d_in, 1), plain::random(d_out * d_in, 2), plain::random(n * d_out, 3));
        let mut out = y.clone();
        add_product_transposed(&x, &w, d_in, &mut out);
        for (row, column, product) in plain::product(&x, &w, d_in) {
            let at = row * d_out + column;
            assert!((f64::from(out[at]) - f64::from(y[at]) - product).abs() < 1e-5);
        }
        let mut out = vec![f32::NAN; d_out * d_in];
        transposed_product(&y, &x, d_out, d_in, 0.5, &mut out);
        for (at, &value) in out.iter().enumerate() {
            let (row, column) = (at / d_in, at % d_in);
            let pairs = (0..n).map(|i| f64::from(y[i * d_out + row]) * f64::from(x[i * d_in + column]));
            assert!((f64::from(value) - 0.5 * pairs.sum::<f64>()).abs() < 1e-5);
        }
    }
}
