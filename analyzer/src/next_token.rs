//! The model's predictions of the next token, and how far two of them are apart.

use candle_core::Tensor;
use harvester::{
    LanguageModel,
    simd::{Kernel, exp, wide},
};
use rayon::prelude::*;

use crate::Result;

/// Log-probabilities of the next token after each row. `resid`: `[rows, d_model]` -> `[rows][d_vocab]`
pub(crate) fn log_probs(model: &LanguageModel, resid: &Tensor) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = model.unembed(resid)?.to_vec2()?;
    rows.par_iter_mut().for_each(|logits| {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
        let log_sum = f64::from(max) + sum.ln();
        logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - log_sum) as f32);
    });
    Ok(rows)
}

/// `sum_t p(t) (log p(t) - log q(t))`
pub(crate) fn kl(log_p: &[f32], log_q: &[f32]) -> f64 {
    log_p.iter().zip(log_q).map(|(p, q)| f64::from(p.exp()) * (f64::from(*p) - f64::from(*q))).sum()
}

/// A distribution of the next token: `log p(t) = logits[t] - log_sum`, with `log_sum = log sum_t exp(logits[t])`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Prediction<'a> {
    /// `[d_vocab]`
    pub(crate) logits: &'a [f32],
    /// The largest logit.
    pub(crate) max: f32,
    pub(crate) log_sum: f64,
}

impl<'a> Prediction<'a> {
    pub(crate) fn new(logits: &'a [f32]) -> Self {
        let max = wide(Max(logits));
        Self { logits, max, log_sum: f64::from(max) + wide(SumExp { logits, max }).ln() }
    }

    pub(crate) fn log_p(&self, token: u32) -> f64 {
        f64::from(self.logits[token as usize]) - self.log_sum
    }

    /// Log probability of the likeliest token.
    pub(crate) fn log_p_max(&self) -> f64 {
        f64::from(self.max) - self.log_sum
    }

    /// Number of tokens that are likelier than one of this logit.
    pub(crate) fn rank(&self, logit: f32) -> usize {
        self.logits.iter().filter(|other| **other > logit).count()
    }
}

/// The distribution that others are compared with.
#[derive(Debug)]
pub(crate) struct Reference {
    logits: Vec<f32>,
    /// Probabilities. `[d_vocab]`
    p: Vec<f32>,
    /// Sum of `p`: 1 up to rounding.
    sum: f64,
}

impl Reference {
    pub(crate) fn new(logits: Vec<f32>) -> Self {
        let log_sum = Prediction::new(&logits).log_sum;
        let p: Vec<f32> = logits.iter().map(|logit| (f64::from(*logit) - log_sum).exp() as f32).collect();
        let sum = p.iter().map(|p| f64::from(*p)).sum();
        Self { logits, p, sum }
    }

    pub(crate) fn prediction(&self) -> Prediction<'_> {
        Prediction::new(&self.logits)
    }

    /// Probabilities. `[d_vocab]`
    pub(crate) fn p(&self) -> &[f32] {
        &self.p
    }

    /// `KL = sum_t p(t) (log p(t) - log q(t))`, in nats; exactly 0 for the same logits.
    ///
    /// With `change(t)` of a logit and `d` of the log sum, it is `d sum_t p(t) - sum_t p(t) change(t)`.
    pub(crate) fn kl(&self, log_sum: f64, q: &Prediction<'_>) -> f64 {
        let gain = wide(Gain { p: &self.p, before: &self.logits, after: q.logits });
        let kl = (q.log_sum - log_sum) * self.sum - gain;
        // Not `max`, which makes 0 of NaN.
        if kl < 0.0 { 0.0 } else { kl }
    }

    /// Adds each logit's change to `changes`, and its probability to `p`. `[d_vocab]` both
    pub(crate) fn add_changes(&self, q: &Prediction<'_>, changes: &mut [f32], p: &mut [f32]) {
        wide(AddChanges { before: &self.logits, after: q.logits, log_sum: q.log_sum as f32, changes, p });
    }
}

/// Values whose sum is kept in f32: the loop is fast, and the sum of all such sums, in f64, loses nothing.
const BLOCK: usize = 1024;

/// Lanes of a loop: separate sums, because the compiler must not reorder a floating-point sum.
const LANES: usize = 32;

struct Max<'a>(&'a [f32]);

impl Kernel for Max<'_> {
    type Output = f32;

    #[inline(always)]
    fn run(self) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        for chunk in chunks {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane = if *value > *lane { *value } else { *lane };
            }
        }
        lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
    }
}

/// `sum_t exp(logits[t] - max)`
struct SumExp<'a> {
    logits: &'a [f32],
    max: f32,
}

impl Kernel for SumExp<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut sum = 0.0;
        for block in self.logits.chunks(BLOCK) {
            let mut lanes = [0f32; LANES];
            let (chunks, rest) = block.as_chunks::<LANES>();
            for chunk in chunks {
                for (lane, logit) in lanes.iter_mut().zip(chunk) {
                    *lane += exp(*logit - self.max);
                }
            }
            for (lane, logit) in lanes.iter_mut().zip(rest) {
                *lane += exp(*logit - self.max);
            }
            sum += f64::from(lanes.iter().sum::<f32>());
        }
        sum
    }
}

/// `sum_t p(t) (after[t] - before[t])`
struct Gain<'a> {
    p: &'a [f32],
    before: &'a [f32],
    after: &'a [f32],
}

impl Kernel for Gain<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        let mut sum = 0.0;
        let blocks = self.p.chunks(BLOCK).zip(self.before.chunks(BLOCK)).zip(self.after.chunks(BLOCK));
        for ((p, before), after) in blocks {
            let mut lanes = [0f32; LANES];
            let rows = p.chunks(LANES).zip(before.chunks(LANES)).zip(after.chunks(LANES));
            for ((p, before), after) in rows {
                for (lane, ((p, before), after)) in lanes.iter_mut().zip(p.iter().zip(before).zip(after)) {
                    *lane = p.mul_add(after - before, *lane);
                }
            }
            sum += f64::from(lanes.iter().sum::<f32>());
        }
        sum
    }
}

struct AddChanges<'a> {
    before: &'a [f32],
    after: &'a [f32],
    log_sum: f32,
    changes: &'a mut [f32],
    p: &'a mut [f32],
}

impl Kernel for AddChanges<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let sums = self.changes.iter_mut().zip(self.p.iter_mut());
        for ((change, p), (before, after)) in sums.zip(self.before.iter().zip(self.after)) {
            *change += after - before;
            *p += exp(after - self.log_sum);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_of_a_known_pair() {
        // KL((1/2, 1/2) || (1/4, 3/4)) = ln(2) - ln(3) / 2 = 0.143841
        let log = |p: [f32; 2]| p.map(f32::ln);
        assert!((kl(&log([0.5, 0.5]), &log([0.25, 0.75])) - 0.143_841).abs() < 1e-6);
        assert_eq!(kl(&log([0.3, 0.7]), &log([0.3, 0.7])), 0.0);
        let reference = Reference::new(log([0.5, 0.5]).to_vec());
        let kl_of = |q: [f32; 2]| reference.kl(reference.prediction().log_sum, &Prediction::new(&q));
        assert!((kl_of(log([0.25, 0.75])) - 0.143_841).abs() < 1e-6);
        assert_eq!(kl_of(log([0.5, 0.5])), 0.0);
        assert!(kl_of([f32::NAN, 0.0]).is_nan(), "a prediction of NaN is not the same prediction");
    }
}
