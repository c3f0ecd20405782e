//! [`center`]: the step before the encoder's product. It centers the input and sets the start of the error.
//!
//! ```text
//! x_c = x - b_dec    e = -x_c              an SAE
//! x_c = x - b_in     e = -(y - b_dec)      a transcoder, whose row is x followed by y
//! spread = sum_i |e_i - mean e|^2 = sum_i |e_i|^2 - |sum_i e_i|^2 / n
//! ```

use harvester::simd::{Kernel, wide};
use rayon::prelude::*;

use crate::{
    kernels::simd::{add_scaled, sum_of_squares},
    step::weights::Weights,
};

/// Rows that one task centers. Sums over rows are computed per task and added in order.
const ROWS_PER_TASK: usize = 128;

/// Writes `x_c`, and minus the target to the first of `n_groups` in each row of `errors`. Returns the sum of squared
/// distances of the targets from their mean.
///
/// # Shapes
/// `x` `[n, row_width]`, `x_c` becomes `[n, d_in]`, `errors` `[n, n_groups, d_out]`.
pub(crate) fn center(x: &[f32], weights: &Weights, n_groups: usize, x_c: &mut Vec<f32>, errors: &mut Vec<f32>) -> f64 {
    let (d_in, d_out, width) = (weights.d_in, weights.d_out, weights.row_width());
    let (n, error_width) = (x.len() / width, n_groups * d_out);
    x_c.resize(n * d_in, 0.0);
    errors.resize(n * error_width, 0.0);
    let sums: Vec<(Vec<f32>, f64)> = x_c
        .par_chunks_mut(ROWS_PER_TASK * d_in)
        .zip(errors.par_chunks_mut(ROWS_PER_TASK * error_width))
        .zip(x.par_chunks(ROWS_PER_TASK * width))
        .map(|((x_c, errors), x)| {
            let mut sum = vec![0.0; d_out];
            let squares = wide(Center { weights, x, x_c, errors, error_width, sum: &mut sum });
            (sum, squares)
        })
        .collect();
    let mut sum = vec![0.0; d_out];
    sums.iter().for_each(|(part, _)| add_scaled(&mut sum, 1.0, part));
    let squares: f64 = sums.iter().map(|(_, squares)| squares).sum();
    squares - sum.iter().map(|&s| f64::from(s).powi(2)).sum::<f64>() / n as f64
}

/// Centers the rows of one task. Adds the rows of minus the target to `sum` and returns the sum of their squares.
struct Center<'a> {
    weights: &'a Weights,
    x: &'a [f32],
    x_c: &'a mut [f32],
    errors: &'a mut [f32],
    error_width: usize,
    sum: &'a mut [f32],
}

impl Kernel for Center<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { weights, x, x_c, errors, error_width, sum } = self;
        let (d_in, d_out) = (weights.d_in, weights.d_out);
        let b_in = weights.b_in.as_ref().unwrap_or(&weights.b_dec);
        let mut squares = 0.0;
        let rows = x_c.chunks_exact_mut(d_in).zip(errors.chunks_exact_mut(error_width));
        for ((x_c, errors), x) in rows.zip(x.chunks_exact(weights.row_width())) {
            let (error, y) = (&mut errors[..d_out], &x[x.len() - d_out..]);
            for i in 0..d_in {
                x_c[i] = x[i] - b_in[i];
            }
            for i in 0..d_out {
                error[i] = weights.b_dec[i] - y[i];
            }
            add_scaled(sum, 1.0, error);
            squares += f64::from(sum_of_squares(error));
        }
        squares
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_an_sae_and_of_a_transcoder() {
        let (mut x_c, mut errors) = (vec![], vec![]);
        let sae = Weights { b_dec: vec![1.0, -1.0], ..Weights::random(3, vec![0.0; 2], 0) };
        // Two groups: the decoder fills in the second.
        let spread = center(&[2.0, 0.0, 4.0, 4.0], &sae, 2, &mut x_c, &mut errors);
        assert_eq!(x_c, [1.0, 1.0, 3.0, 5.0]);
        assert_eq!((&errors[..2], &errors[4..6]), (&[-1.0, -1.0][..], &[-3.0, -5.0][..]));
        // The means are (3, 2), the distances 1 and 2, twice each.
        assert_eq!(spread, 10.0);
        let transcoder = Weights { b_dec: vec![10.0], ..Weights::random_map(3, vec![1.0, 2.0], vec![0.0], 0) };
        let spread = center(&[3.0, 3.0, 7.0, 4.0, 4.0, 13.0], &transcoder, 1, &mut x_c, &mut errors);
        assert_eq!((&x_c[..], &errors[..]), (&[2.0, 1.0, 3.0, 2.0][..], &[3.0, -3.0][..]));
        assert_eq!(spread, 18.0);
    }
}
