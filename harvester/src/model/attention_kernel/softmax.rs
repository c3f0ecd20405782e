//! [`ExpRows`]: the softmax of scores without its final division.

use super::Scores;
use crate::numbers::simd::{Kernel, exp, tanh};

/// Computes `exp(score - largest score)` for each row of a tile of scores, zero for keys that the query does not see,
/// and the inverse of each row's sum. The final multiplication of the softmax is left to the shorter rows of `z`.
pub(super) struct ExpRows<'a> {
    /// `[rows, width]`, for keys from `from` on and queries from `query` on.
    pub(super) scores: &'a mut [f32],
    pub(super) width: usize,
    pub(super) from: usize,
    pub(super) query: usize,
    pub(super) rule: Scores,
    /// `[rows]`
    pub(super) inverses: &'a mut [f32],
}

impl Kernel for ExpRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let rows = self.scores.chunks_exact_mut(self.width).zip(self.inverses);
        for (query, (scores, inverse)) in (self.query..).zip(rows) {
            let (past, rest) = scores.split_at_mut(self.rule.first_key(query) - self.from);
            let (visible, future) = rest.split_at_mut(query + 1 - self.from - past.len());
            past.fill(0.0);
            future.fill(0.0);
            let scale = match self.rule.softcap {
                Some(cap) => {
                    for score in visible.iter_mut() {
                        *score = cap * tanh(*score * self.rule.scale / cap);
                    }
                    1.0
                }
                None => self.rule.scale,
            };
            *inverse = 1.0 / exp_row(visible, scale);
        }
    }
}

/// `exp(scale (score - largest score))` in place; returns the sum.
#[inline(always)]
fn exp_row(seen: &mut [f32], scale: f32) -> f32 {
    // Separate lanes, because the compiler must not reorder a floating-point reduction.
    let mut lanes = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = seen.as_chunks::<16>();
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    let max = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut lanes = [0f32; 16];
    let mut chunks = seen.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *score = exp((*score - max) * scale);
            *lane += *score;
        }
    }
    for score in chunks.into_remainder() {
        *score = exp((*score - max) * scale);
        lanes[0] += *score;
    }
    lanes.iter().sum()
}
