//! The encoder's matrix product: the one dense product of an SAE, and where most of the time goes.

/// Below this many rows `gemm` adds in another order. Filled up to it, a row's result does not depend on how many
/// others come with it: a token encoded alone, while generating, gives the bits that it gives in a batch.
const MIN_ROWS: usize = 4;

/// hidden = x_c W_enc^T, without the bias: selection adds it on its way through, which saves a pass over memory.
///
/// # Shapes
/// `x_c` `[n, d_in]`, `w_enc` `[d_sae, d_in]`, `hidden` `[n, d_sae]`, all row-major.
pub(crate) fn encoder_product(x_c: &[f32], w_enc: &[f32], d_in: usize, hidden: &mut [f32]) {
    let (n, d_sae) = (x_c.len() / d_in, w_enc.len() / d_in);
    if n >= MIN_ROWS {
        return product(x_c, w_enc, d_in, hidden);
    }
    let mut rows = x_c.to_vec();
    rows.resize(MIN_ROWS * d_in, 0.0);
    let mut hidden_rows = vec![0.0; MIN_ROWS * d_sae];
    product(&rows, w_enc, d_in, &mut hidden_rows);
    hidden.copy_from_slice(&hidden_rows[..n * d_sae]);
}

fn product(x_c: &[f32], w_enc: &[f32], d_in: usize, hidden: &mut [f32]) {
    let (n, d_sae) = (x_c.len() / d_in, w_enc.len() / d_in);
    assert_eq!((n * d_in, d_sae * d_in, n * d_sae), (x_c.len(), w_enc.len(), hidden.len()));
    // SAFETY: the three slices have exactly the sizes that these dimensions and strides span (asserted above), and
    // `hidden` is borrowed mutably, so it overlaps neither input. Its old contents are not read (`read_dst` false).
    unsafe {
        gemm::gemm(
            n,
            d_sae,
            d_in,
            hidden.as_mut_ptr(),
            1,
            d_sae as isize,
            false,
            x_c.as_ptr(),
            1,
            d_in as isize,
            w_enc.as_ptr(),
            d_in as isize, // W_enc^T: along d_sae
            1,             // along d_in
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0), // every thread of the pool
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plain;

    #[test]
    fn agrees_with_the_plain_product() {
        for (n, d_in, d_sae) in [(1, 1, 1), (3, 5, 7), (33, 24, 96), (64, 576, 130)] {
            let x = plain::random(n * d_in, 1);
            let w = plain::random(d_sae * d_in, 2);
            let mut hidden = vec![f32::NAN; n * d_sae];
            encoder_product(&x, &w, d_in, &mut hidden);
            for (row, latent, value) in plain::product(&x, &w, d_in) {
                assert!((f64::from(hidden[row * d_sae + latent]) - value).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows() {
        for (d_in, d_sae) in [(576, 700), (24, 100), (64, 1000)] {
            let (x, w) = (plain::random(64 * d_in, 1), plain::random(d_sae * d_in, 2));
            let encode = |n: usize| {
                let mut hidden = vec![0.0; n * d_sae];
                encoder_product(&x[..n * d_in], &w, d_in, &mut hidden);
                hidden
            };
            let all = encode(64);
            for n in [1, 2, 3, 4, 5, 17, 33] {
                assert_eq!(encode(n), all[..n * d_sae], "{n} rows, d_in {d_in}, d_sae {d_sae}");
            }
        }
    }

    #[test]
    fn gives_the_same_bits_on_any_number_of_threads() {
        let (n, d_in, d_sae) = (300, 64, 1000);
        let (x, w) = (plain::random(n * d_in, 1), plain::random(d_sae * d_in, 2));
        let on = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            let mut hidden = vec![0.0; n * d_sae];
            pool.install(|| encoder_product(&x, &w, d_in, &mut hidden));
            hidden
        };
        let one = on(1);
        assert!([2, 3, 8].iter().all(|&threads| on(threads) == one));
    }
}
