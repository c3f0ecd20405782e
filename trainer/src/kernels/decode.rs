//! The sparse decoder and the gradient at each activation, in one pass while the decoder rows are in cache.
//!
//! ```text
//! x_hat_i = sum_j f_ij W_dec[j] + b_dec
//! e_i     = x_hat_i - x_i = sum_j f_ij W_dec[j] - x_c_i      (b_dec cancels: x_c = x - b_dec)
//! L       = (1/n) sum_i |e_i|^2
//! df_ij   = dL/df_ij = (2/n) e_i . W_dec[j]
//! ```
//!
//! A Matryoshka SAE has a loss for each of several prefixes of its dictionary. A latent contributes to every prefix
//! that contains it, so the gradients of its activation and of its decoder row need only the sum of those prefixes'
//! errors:
//!
//! ```text
//! e_i^g = sum_{j < m_g} f_ij W_dec[j] - x_c_i         E_i^g = sum_{h >= g} e_i^h
//! L     = (1/G) sum_g (1/n) sum_i |e_i^g|^2           df_ij = (2/(nG)) E_i^{g(j)} . W_dec[j]
//! ```

use harvester::simd::{Kernel, wide};
use rayon::prelude::*;

use super::simd::{add_scaled, add_weighted_rows, dot, sum_of_squares};
use crate::kernels::feature_acts::FeatureActs;

/// Rows that one task decodes. Each task sums over its rows, and the tasks' sums are added in order, so the result is
/// reproducible.
const ROWS_PER_TASK: usize = 64;

/// Adds `sum_j f_ij W_dec[j]` to each row of `x_hat`.
///
/// # Shapes
/// `w_dec` `[d_sae, d_out]`, `x_hat` `[n, d_out]`.
pub(crate) fn add_decoded(acts: &FeatureActs, w_dec: &[f32], d_out: usize, x_hat: &mut [f32]) {
    x_hat.par_chunks_mut(ROWS_PER_TASK * d_out).enumerate().for_each(|(task, rows)| {
        for (i, x_hat) in rows.chunks_exact_mut(d_out).enumerate() {
            let (latents, values) = acts.row(task * ROWS_PER_TASK + i);
            wide(AddDecoded { latents, values, w_dec, x_hat });
        }
    });
}

/// On entry, the first group of each row of `errors` holds minus the target (`-x_c`). On return, `errors` holds the
/// errors `E` of every group; the last group's is the whole dictionary's `e`. Writes `df = scale * E . W_dec[j]` for
/// each active pair and returns the sum of `|e_i|^2` for the whole dictionary.
///
/// # Shapes
/// `w_dec` `[d_sae, d_out]`, `errors` `[n, n_groups, d_out]`, `prefixes` `[n_groups]`, the end of each prefix, the last
/// one d_sae; `df` one number per entry of `acts`.
pub(crate) fn decode_error(
    acts: &FeatureActs,
    w_dec: &[f32],
    prefixes: &[usize],
    scale: f32,
    errors: &mut [f32],
    df: &mut Vec<f32>,
) -> f64 {
    let width = errors.len() / acts.n_rows().max(1);
    df.resize(acts.n_active(), 0.0);
    let tasks: Vec<_> = errors.chunks_mut(ROWS_PER_TASK * width).zip(split_at_tasks(df, acts)).enumerate().collect();
    let sums: Vec<f64> = tasks
        .into_par_iter()
        .map(|(task, (errors, mut df))| {
            let mut sum = 0.0;
            for (i, errors) in errors.chunks_exact_mut(width).enumerate() {
                let (latents, values) = acts.row(task * ROWS_PER_TASK + i);
                let (row_df, rest) = df.split_at_mut(latents.len());
                df = rest;
                sum += wide(DecodeError { latents, values, w_dec, prefixes, scale, errors, df: row_df });
            }
            sum
        })
        .collect();
    sums.iter().sum()
}

/// x_hat += f W_dec, for one row.
struct AddDecoded<'a> {
    latents: &'a [u32],
    values: &'a [f32],
    w_dec: &'a [f32],
    x_hat: &'a mut [f32],
}

impl Kernel for AddDecoded<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let d_out = self.x_hat.len();
        add_weighted_rows(self.x_hat, self.values, |n| decoder_row(self.w_dec, self.latents[n], d_out));
    }
}

/// Computes the errors of one row, group after group, then `df`, and returns `|e|^2`. The decoder rows are read twice,
/// the second time from the cache.
struct DecodeError<'a> {
    latents: &'a [u32],
    values: &'a [f32],
    w_dec: &'a [f32],
    prefixes: &'a [usize],
    scale: f32,
    errors: &'a mut [f32],
    df: &'a mut [f32],
}

impl Kernel for DecodeError<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let Self { latents, values, w_dec, prefixes, scale, errors, df } = self;
        let d_out = errors.len() / prefixes.len();
        let mut first = 0;
        for (group, &end) in prefixes.iter().enumerate() {
            let (before, error) = errors.split_at_mut(group * d_out);
            let error = &mut error[..d_out];
            if group > 0 {
                error.copy_from_slice(&before[(group - 1) * d_out..]);
            }
            let last = entries_before(latents, end);
            AddDecoded { latents: &latents[first..last], values: &values[first..last], w_dec, x_hat: &mut *error }
                .run();
            first = last;
        }
        let squares = f64::from(sum_of_squares(&errors[(prefixes.len() - 1) * d_out..]));
        let mut last = latents.len();
        for group in (0..prefixes.len()).rev() {
            let (error, after) = errors[group * d_out..].split_at_mut(d_out);
            if group + 1 < prefixes.len() {
                add_scaled(error, 1.0, &after[..d_out]);
            }
            let first = if group == 0 { 0 } else { entries_before(latents, prefixes[group - 1]) };
            for entry in first..last {
                df[entry] = scale * dot(error, decoder_row(w_dec, latents[entry], d_out));
            }
            last = first;
        }
        squares
    }
}

/// Number of `latents` (ascending) below `end`.
#[inline(always)]
fn entries_before(latents: &[u32], end: usize) -> usize {
    latents.partition_point(|&latent| (latent as usize) < end)
}

#[inline(always)]
fn decoder_row(w_dec: &[f32], latent: u32, d_out: usize) -> &[f32] {
    &w_dec[latent as usize * d_out..][..d_out]
}

/// Cuts a vector with one number per entry into one part per task of [`decode_error`].
fn split_at_tasks<'a>(mut per_entry: &'a mut [f32], acts: &FeatureActs) -> Vec<&'a mut [f32]> {
    let mut parts = Vec::new();
    for first_row in (0..acts.n_rows()).step_by(ROWS_PER_TASK) {
        let last_row = (first_row + ROWS_PER_TASK).min(acts.n_rows());
        let (part, rest) = per_entry.split_at_mut(acts.offsets[last_row] - acts.offsets[first_row]);
        parts.push(part);
        per_entry = rest;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plain;

    #[test]
    fn error_loss_and_df_agree_with_the_dense_formulas() {
        let (n, d_in, d_sae, k) = (130, 40, 96, 6);
        let (x_c, w_dec) = (plain::random(n * d_in, 1), plain::random(d_sae * d_in, 2));
        let acts = plain::top_k(&plain::random(n * d_sae, 3), &vec![0.0; d_sae], k);
        let mut error: Vec<f32> = x_c.iter().map(|x| -x).collect();
        let mut df = Vec::new();
        let loss = decode_error(&acts, &w_dec, &[d_sae], 2.0 / n as f32, &mut error, &mut df) / n as f64;

        let plain_error = plain::error(&acts, &w_dec, &x_c, d_in);
        let plain_loss: f64 = plain_error.iter().map(|e| e * e).sum::<f64>() / n as f64;
        assert!((loss / plain_loss - 1.0).abs() < 1e-6, "{loss} against {plain_loss}");
        for row in 0..n {
            for (entry, &latent) in acts.range(row).zip(acts.row(row).0) {
                let e = &plain_error[row * d_in..][..d_in];
                let w = &w_dec[latent as usize * d_in..][..d_in];
                let plain_df = 2.0 / n as f64 * e.iter().zip(w).map(|(e, &w)| e * f64::from(w)).sum::<f64>();
                assert!((f64::from(df[entry]) - plain_df).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn rows_do_not_depend_on_their_neighbors() {
        let (n, d_in, d_sae) = (70, 33, 50);
        let w_dec = plain::random(d_sae * d_in, 2);
        let acts = plain::top_k(&plain::random(n * d_sae, 3), &vec![0.0; d_sae], 5);
        let mut all = vec![0.0; n * d_in];
        add_decoded(&acts, &w_dec, d_in, &mut all);
        let (latents, values) = acts.row(66);
        let one = FeatureActs { offsets: vec![0, latents.len()], latents: latents.to_vec(), values: values.to_vec() };
        let mut alone = vec![0.0; d_in];
        add_decoded(&one, &w_dec, d_in, &mut alone);
        assert_eq!(alone, all[66 * d_in..67 * d_in]);
    }
}
