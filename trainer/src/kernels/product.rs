//! The dense matrix products: the encoder's, which takes most of an SAE's time, and those of a transcoder's skip
//! connection. The `gemm` crate computes all of them. For small sizes it has a separate path that adds in another
//! order.
//!
//! Above 512 terms `gemm` adds in blocks, and it chooses their depth by the size of the machine's L1 cache. So a run
//! resumed on a machine with another cache size may differ in the last bits from there on.

use std::borrow::Cow;

/// Below this many rows or columns, `gemm` adds in another order. Smaller products are padded to both sizes, so a row's
/// result does not depend on the number of other rows: a token encoded alone, during generation, has the same bits as
/// in a batch.
const MIN_ROWS: usize = 4;
const MIN_COLUMNS: usize = 65;
/// Multiplications that one thread does in about the time in which another one is woken, 30 microseconds.
const ONE_THREAD: usize = 1 << 19;
/// Every thread of the pool.
const EVERY_THREAD: gemm::Parallelism = gemm::Parallelism::Rayon(0);

/// out = x W^T. The encoder's bias is not added here: selection adds it, which saves a pass over memory.
///
/// # Shapes
/// `x` `[n, d_in]`, `w` `[d_out, d_in]`, `out` `[n, d_out]`, all row-major.
pub(crate) fn product_transposed(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32]) {
    padded_product(x, w, d_in, out, false);
}

/// out += x W^T.
///
/// # Shapes
/// `x` `[n, d_in]`, `w` `[d_out, d_in]`, `out` `[n, d_out]`, all row-major.
pub(crate) fn add_product_transposed(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32]) {
    padded_product(x, w, d_in, out, true);
}

/// Computes either product, padded with zeros to at least [`MIN_ROWS`] rows and [`MIN_COLUMNS`] columns.
fn padded_product(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32], add: bool) {
    let (n, d_out) = (x.len() / d_in, w.len() / d_in);
    if n >= MIN_ROWS && d_out >= MIN_COLUMNS {
        return gemm_product(x, w, d_in, out, add, EVERY_THREAD);
    }
    let (rows, columns) = (n.max(MIN_ROWS), d_out.max(MIN_COLUMNS));
    let (x, w) = (padded(x, rows * d_in), padded(w, columns * d_in));
    let mut all = vec![0.0; rows * columns];
    for (row, out) in out.chunks_exact(d_out).enumerate() {
        all[row * columns..][..d_out].copy_from_slice(out);
    }
    gemm_product(&x, &w, d_in, &mut all, add, EVERY_THREAD);
    for (row, out) in out.chunks_exact_mut(d_out).enumerate() {
        out.copy_from_slice(&all[row * columns..][..d_out]);
    }
}

/// `values` with zeros appended up to `len`.
fn padded(values: &[f32], len: usize) -> Cow<'_, [f32]> {
    if values.len() == len {
        return values.into();
    }
    let mut values = values.to_vec();
    values.resize(len, 0.0);
    values.into()
}

/// A matrix for many products with few rows, such as one latent's row of the encoder while a text is written: it is
/// padded once, and its buffers stay. The bits are those of [`product_transposed`].
#[derive(Debug)]
pub(crate) struct PaddedMatrix {
    /// `[columns, d_in]`, `columns` at least [`MIN_COLUMNS`]
    w: Vec<f32>,
    d_in: usize,
    d_out: usize,
    /// Padded rows, and their products. `[rows, d_in]`, `[rows, columns]`
    x: Vec<f32>,
    all: Vec<f32>,
}

impl PaddedMatrix {
    /// `w` `[d_out, d_in]`
    pub(crate) fn new(mut w: Vec<f32>, d_in: usize) -> Self {
        let d_out = w.len() / d_in;
        w.resize(d_out.max(MIN_COLUMNS) * d_in, 0.0);
        Self { w, d_in, d_out, x: vec![], all: vec![] }
    }

    /// out = x W^T. Small products stay on the calling thread: waking another one takes longer.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, `out` `[n, d_out]`
    pub(crate) fn product_transposed(&mut self, x: &[f32], out: &mut [f32]) {
        let Self { w, d_in, d_out, x: padded, all } = self;
        let (n, columns) = (x.len() / *d_in, w.len() / *d_in);
        let rows = n.max(MIN_ROWS);
        padded.clear();
        padded.extend_from_slice(x);
        padded.resize(rows * *d_in, 0.0);
        all.resize(rows * columns, 0.0);
        let parallelism = if rows * w.len() > ONE_THREAD { EVERY_THREAD } else { gemm::Parallelism::None };
        gemm_product(padded, w, *d_in, all, false, parallelism);
        for (out, row) in out.chunks_exact_mut(*d_out).zip(all.chunks_exact(columns)) {
            out.copy_from_slice(&row[..*d_out]);
        }
    }
}

fn gemm_product(x: &[f32], w: &[f32], d_in: usize, out: &mut [f32], add: bool, parallelism: gemm::Parallelism) {
    let (n, d_out) = (x.len() / d_in, w.len() / d_in);
    assert_eq!((n * d_in, d_out * d_in, n * d_out), (x.len(), w.len(), out.len()));
    // SAFETY: the three slices have exactly the sizes that these dimensions and strides span (asserted above), and
    // `out` is borrowed mutably, so it overlaps neither input. Its old contents are read (`read_dst`) only to add to
    // them.
    unsafe {
        gemm::gemm(
            n,
            d_out,
            d_in,
            out.as_mut_ptr(),
            1,
            d_out as isize,
            add,
            x.as_ptr(),
            1,
            d_in as isize,
            w.as_ptr(),
            d_in as isize, // stride of W^T along d_out
            1,             // stride along d_in
            if add { 1.0 } else { 0.0 },
            1.0,
            false,
            false,
            false,
            parallelism,
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
            EVERY_THREAD,
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
    fn agree_with_plain_sums() {
        for (n, d_in, d_out) in [(1, 1, 1), (3, 5, 7), (37, 12, 9), (33, 24, 96), (64, 576, 130)] {
            let (x, w, y) = (plain::random(n * d_in, 1), plain::random(d_out * d_in, 2), plain::random(n * d_out, 3));
            let (mut product, mut sum) = (vec![f32::NAN; n * d_out], y.clone());
            product_transposed(&x, &w, d_in, &mut product);
            add_product_transposed(&x, &w, d_in, &mut sum);
            for (row, column, value) in plain::product(&x, &w, d_in) {
                let at = row * d_out + column;
                assert!((f64::from(product[at]) - value).abs() < 1e-4);
                assert!((f64::from(sum[at]) - f64::from(y[at]) - value).abs() < 1e-4);
            }
            let mut out = vec![f32::NAN; d_out * d_in];
            transposed_product(&y, &x, d_out, d_in, 0.5, &mut out);
            for (at, &value) in out.iter().enumerate() {
                let (row, column) = (at / d_in, at % d_in);
                let pairs = (0..n).map(|i| f64::from(y[i * d_out + row]) * f64::from(x[i * d_in + column]));
                assert!((f64::from(value) - 0.5 * pairs.sum::<f64>()).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows() {
        let few = [(24, 1), (48, 8), (300, 32), (576, 64), (24, 65)];
        for (d_in, d_out) in [(576, 700), (24, 100), (64, 1000), (700, 576)].into_iter().chain(few) {
            let (x, w) = (plain::random(130 * d_in, 1), plain::random(d_out * d_in, 2));
            for multiply in [product_transposed, add_product_transposed] {
                let of = |n: usize| {
                    let mut out = plain::random(130 * d_out, 3)[..n * d_out].to_vec();
                    multiply(&x[..n * d_in], &w, d_in, &mut out);
                    out
                };
                let all = of(130);
                for n in [1, 2, 3, 4, 5, 17, 33, 64, 65] {
                    assert_eq!(of(n), all[..n * d_out], "{n} rows, d_in {d_in}, d_out {d_out}");
                }
            }
        }
    }

    #[test]
    fn a_padded_matrix_gives_the_same_bits() {
        for (d_in, d_out) in [(576, 1), (24, 7), (1100, 3), (64, 200)] {
            let (x, w) = (plain::random(900 * d_in, 1), plain::random(d_out * d_in, 2));
            let mut matrix = PaddedMatrix::new(w.clone(), d_in);
            for n in [900, 1, 3, 64, 0] {
                let (mut expected, mut found) = (vec![f32::NAN; n * d_out], vec![f32::NAN; n * d_out]);
                product_transposed(&x[..n * d_in], &w, d_in, &mut expected);
                matrix.product_transposed(&x[..n * d_in], &mut found);
                assert_eq!(found, expected, "{n} rows, d_in {d_in}, d_out {d_out}");
            }
        }
    }

    #[test]
    fn gives_the_same_bits_on_any_number_of_threads() {
        let (n, d_in, d_out) = (300, 64, 1000);
        let (x, w) = (plain::random(n * d_in, 1), plain::random(d_out * d_in, 2));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            let mut out = vec![0.0; n * d_out];
            pool.install(|| product_transposed(&x, &w, d_in, &mut out));
            out
        };
        let one = on(1);
        assert!([2, 3, 8].iter().all(|&threads| on(threads) == one));
    }
}
