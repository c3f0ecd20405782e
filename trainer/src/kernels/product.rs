//! Dense matrix products beside the encoder's, for the linear bypass of a transcoder.

/// out += x W^T.
///
/// # Shapes
/// `x` `[n, d_in]`, `w` `[d_out, d_in]`, `out` `[n, d_out]`, all row-major.
pub(crate) fn add_product_transposed(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32]) {
    let (n, d_out) = (x.len() / d_in, w.len() / d_in);
    assert_eq!((n * d_in, d_out * d_in, n * d_out), (x.len(), w.len(), out.len()));
    // SAFETY: the three slices have exactly the sizes that these dimensions and strides span (asserted above), and
    // `out` is borrowed mutably, so it overlaps neither input.
    unsafe {
        gemm::gemm(
            n,
            d_out,
            d_in,
            out.as_mut_ptr(),
            1,
            d_out as isize,
            true,
            x.as_ptr(),
            1,
            d_in as isize,
            w.as_ptr(),
            d_in as isize,
            1,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}

/// out = scale a^T b.
///
/// # Shapes
/// `a` `[n, rows]`, `b` `[n, columns]`, `out` `[rows, columns]`, all row-major.
pub(crate) fn transposed_product(a: &[f32], b: &[f32], rows: usize, columns: usize, scale: f32, out: &mut [f32]) {
    let n = a.len() / rows;
    assert_eq!((n * rows, n * columns, rows * columns), (a.len(), b.len(), out.len()));
    // SAFETY: as above. The old contents of `out` are not read (`read_dst` false).
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
