//! [`ReconstructionMetrics`]: how well and how sparsely an SAE reconstructs a set of activations, accumulated over the
//! whole set. Sums are in f64 and row by row, so the result is bit-identical for any division of the set into batches.
//!
//! ```text
//! l0  = mean active latents per token
//! fvu = sum_i |x_i - x_hat_i|^2 / sum_i |x_i - mean|^2        mean over the whole set
//! explained_variance = 1 - fvu
//! ```
//!
//! If a row has several columns (a crosscoder's), `fvu` is the mean of the columns' values, weighted by width:
//! otherwise columns with large values would hide the others. This equals the fraction in training units, in which
//! every column has the same variance.

use serde::{Deserialize, Serialize};

use super::{HookPoints, Sae};
use crate::kernels::feature_acts::FeatureActs;

/// Accumulates over batches; [`Self::finish`] returns the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconstructionMetrics {
    n_tokens: u64,
    /// The columns side by side in a row.
    columns: Vec<Column>,
    /// Sum of each dimension. `[sum of widths]`
    sum: Vec<f64>,
    /// Tokens on which each latent is active. `[d_sae]`
    fired: Vec<u64>,
}

/// Sums over one column.
#[derive(Debug, Clone, PartialEq)]
struct Column {
    width: usize,
    squared_error: f64,
    sum_of_squares: f64,
}

/// The result of [`ReconstructionMetrics`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reconstruction {
    /// Tokens measured.
    pub tokens: u64,
    /// Mean number of active latents per token.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// `1 - fvu`.
    pub explained_variance: f64,
    /// Share of latents that were active at least once.
    pub frac_alive: f64,
}

impl ReconstructionMetrics {
    /// Empty metrics for the reconstructions of `sae`: one column, except for a crosscoder.
    pub fn of(sae: &Sae) -> Self {
        match &sae.config().hook_points {
            HookPoints::Crosscoder(columns) => {
                let widths: Vec<usize> = columns.iter().map(|(_, width)| *width).collect();
                Self::of_columns(&widths, sae.d_sae())
            }
            HookPoints::Autoencoder(_) | HookPoints::Transcoder { .. } => Self::new(sae.d_out(), sae.d_sae()),
        }
    }

    /// Empty metrics for rows of `d` values.
    pub(crate) fn new(d: usize, d_sae: usize) -> Self {
        Self::of_columns(&[d], d_sae)
    }

    /// The same for rows of several columns.
    pub(crate) fn of_columns(widths: &[usize], d_sae: usize) -> Self {
        let column = |&width: &usize| Column { width, squared_error: 0.0, sum_of_squares: 0.0 };
        let columns = widths.iter().map(column).collect();
        Self { n_tokens: 0, columns, sum: vec![0.0; widths.iter().sum()], fired: vec![0; d_sae] }
    }

    /// Tokens added so far.
    pub(crate) fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// Adds a batch.
    ///
    /// # Shapes
    /// `x` and `x_hat` `[n, sum of widths]`, `acts` of the same n rows.
    pub fn add(&mut self, x: &[f32], x_hat: &[f32], acts: &FeatureActs) {
        let width = self.sum.len();
        for (x, x_hat) in x.chunks_exact(width).zip(x_hat.chunks_exact(width)) {
            self.n_tokens += 1;
            let mut first = 0;
            for column in &mut self.columns {
                let place = first..first + column.width;
                column.add(&x[place.clone()], &x_hat[place.clone()], &mut self.sum[place]);
                first += column.width;
            }
        }
        acts.latents.iter().for_each(|&latent| self.fired[latent as usize] += 1);
    }

    /// The metrics of all added rows; `None` while they do not vary, so that there is no variance to explain.
    pub fn finish(&self) -> Option<Reconstruction> {
        let n = self.n_tokens.max(1) as f64;
        let width = self.sum.len() as f64;
        let weighted = self.columns.iter().zip(self.fvu_of_columns()?);
        let fvu = weighted.map(|(column, fvu)| column.width as f64 / width * fvu).sum();
        let alive = self.fired.iter().filter(|&&fired| fired > 0).count();
        Some(Reconstruction {
            tokens: self.n_tokens,
            l0: self.fired.iter().sum::<u64>() as f64 / n,
            fvu,
            explained_variance: 1.0 - fvu,
            frac_alive: alive as f64 / self.fired.len().max(1) as f64,
        })
    }

    /// Fraction of variance unexplained per column; `None` while a column does not vary.
    pub fn fvu_of_columns(&self) -> Option<Vec<f64>> {
        if self.n_tokens < 2 {
            return None;
        }
        let mut sums = self.sum.iter();
        let fvu = |column: &Column| {
            let of_mean: f64 = sums.by_ref().take(column.width).map(|sum| sum * sum / self.n_tokens as f64).sum();
            let variance = column.sum_of_squares - of_mean;
            (variance > 0.0).then(|| column.squared_error / variance)
        };
        self.columns.iter().map(fvu).collect()
    }

    /// Share of tokens on which each latent is active. `[d_sae]`
    pub(crate) fn feature_density(&self) -> Vec<f32> {
        let n = self.n_tokens.max(1) as f64;
        self.fired.iter().map(|&fired| (fired as f64 / n) as f32).collect()
    }
}

impl Column {
    /// Adds a row.
    fn add(&mut self, x: &[f32], x_hat: &[f32], sum: &mut [f64]) {
        for ((sum, &x), &x_hat) in sum.iter_mut().zip(x).zip(x_hat) {
            let (x, x_hat) = (f64::from(x), f64::from(x_hat));
            *sum += x;
            self.sum_of_squares += x * x;
            self.squared_error += (x - x_hat).powi(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plain;

    #[test]
    fn known_answers() {
        // Mean (2, 1); squared distances from it 1 + 4, 1 + 4, 0 + 0: 10. Squared errors 1, 0, 4: 5.
        let x = [1.0, 3.0, 3.0, -1.0, 2.0, 1.0];
        let x_hat = [1.0, 2.0, 3.0, -1.0, 4.0, 1.0];
        let acts = FeatureActs { offsets: vec![0, 2, 2, 3], latents: vec![0, 3, 3], values: vec![1.0, 1.0, 1.0] };
        let mut metrics = ReconstructionMetrics::new(2, 4);
        metrics.add(&x, &x_hat, &acts);
        let found = metrics.finish();
        let expected = Reconstruction { tokens: 3, l0: 1.0, fvu: 0.5, explained_variance: 0.5, frac_alive: 0.5 };
        assert_eq!(found, Some(expected));
        assert_eq!(metrics.feature_density(), [1.0 / 3.0, 0.0, 0.0, 2.0 / 3.0]);
    }

    #[test]
    fn a_column_counts_by_its_width_whatever_its_scale() {
        // One column of 1, 3: variance 2, error 1; two of (0, 0), (2000, 2000): variance 4e6, error 1e6.
        let (x, x_hat) = ([1.0, 0.0, 0.0, 3.0, 2000.0, 2000.0], [1.0, 0.0, 1000.0, 2.0, 2000.0, 2000.0]);
        let mut metrics = ReconstructionMetrics::of_columns(&[1, 2], 1);
        metrics.add(&x, &x_hat, &FeatureActs { offsets: vec![0, 0, 0], ..FeatureActs::default() });
        assert_eq!(metrics.fvu_of_columns(), Some(vec![0.5, 0.25]));
        let fvu = metrics.finish().map(|found| found.fvu);
        assert!(fvu.is_some_and(|fvu| (fvu - (0.5 + 2.0 * 0.25) / 3.0).abs() < 1e-12), "{fvu:?}");
        let mut silent = ReconstructionMetrics::of_columns(&[1, 2], 1);
        silent.add(
            &[1.0, 0.0, 0.0, 3.0, 0.0, 0.0],
            &[0.0; 6],
            &FeatureActs { offsets: vec![0; 3], ..FeatureActs::default() },
        );
        assert_eq!(silent.finish(), None, "a column that does not vary");
    }

    #[test]
    fn the_mean_is_that_of_the_whole_set_and_the_cut_does_not_matter() {
        let (n, d_in, d_sae) = (57, 5, 9);
        let x: Vec<f32> = plain::random(n * d_in, 1).iter().map(|x| x + 100.0).collect();
        let x_hat: Vec<f32> = plain::random(n * d_in, 2).iter().map(|x| x + 100.0).collect();
        let acts = plain::top_k(&plain::random(n * d_sae, 3), &[0.0; 9], 2);
        let cut_every = |rows: usize| {
            let mut metrics = ReconstructionMetrics::new(d_in, d_sae);
            for first in (0..n).step_by(rows) {
                let last = n.min(first + rows);
                let mut part = FeatureActs::default();
                for row in first..last {
                    part.latents.extend_from_slice(acts.row(row).0);
                    part.values.extend_from_slice(acts.row(row).1);
                    part.end_row();
                }
                metrics.add(&x[first * d_in..last * d_in], &x_hat[first * d_in..last * d_in], &part);
            }
            metrics
        };
        assert_eq!(cut_every(n), cut_every(1));
        assert_eq!(cut_every(n), cut_every(10));
    }

    #[test]
    fn what_does_not_vary_has_no_fraction_unexplained() {
        let mut metrics = ReconstructionMetrics::new(2, 4);
        assert_eq!(metrics.finish(), None);
        let silent = FeatureActs { offsets: vec![0, 0], ..FeatureActs::default() };
        for _ in 0..3 {
            metrics.add(&[1.0, 2.0], &[1.0, 1.0], &silent);
            assert_eq!(metrics.finish(), None);
        }
    }
}
