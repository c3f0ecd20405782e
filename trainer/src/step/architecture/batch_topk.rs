//! [`BatchTopK`]: `f = the k * n largest of relu(hidden_pre)` over a batch of n tokens (Bussmann et al. 2024).

use crate::{
    kernels::select::{self, Threshold},
    step::{encoder_pass::EncoderPass, recipe::Recipe},
};

/// Only values above this share of the last batch's threshold are candidates. Any share gives the same result: if there
/// are too few candidates, the batch is encoded again.
const FILTER_SHARE: f32 = 0.9;
/// Rows from which the first filter is estimated, so that not every positive value of the first batch is a candidate.
const FIRST_ROWS: usize = 64;

#[derive(Debug)]
pub(crate) struct BatchTopK {
    k: usize,
    /// Values at or below this are not candidates. `None` before the first batch.
    filter: Option<f32>,
}

impl BatchTopK {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, filter: None }
    }
}

impl Recipe for BatchTopK {
    /// Gathers the candidates tile by tile. Once all are known, it cuts them to exactly the largest.
    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        let count = self.k * pass.n_rows();
        let mut filter = match self.filter {
            Some(filter) => filter,
            None => FILTER_SHARE * EncoderPass::threshold(pass.weights, pass.x_c, self.k, FIRST_ROWS),
        };
        loop {
            pass.run(|hidden, b_enc, acts| select::above(hidden, b_enc, Threshold::Global(filter), acts));
            if pass.acts.n_active() >= count || filter == 0.0 {
                break;
            }
            // Divided by 4, an infinite filter would stay infinite. `run::health` detects weights that overflow.
            filter = if filter > 1e-3 && filter.is_finite() { filter / 4.0 } else { 0.0 };
        }
        let smallest = pass.timed_select(|acts| select::keep_largest(acts, count));
        self.filter = smallest.map(|smallest| FILTER_SHARE * smallest);
    }
}
