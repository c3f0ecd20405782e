//! Which latents stay active: the nonlinearity between the encoder's product and everything sparse.
//!
//! ```text
//! top_k          keep, in each row, the k largest relu(hidden + b_enc)
//! above          keep every hidden + b_enc over a threshold (one for all, or one a latent)
//! top_k_among    the same among some latents (dead ones, for the auxiliary loss)
//! keep_largest   of what `above` found, the `count` largest of all rows together (BatchTopK)
//! ```
//!
//! Ties go to the lower latent, then to the earlier row, so the result never depends on threads or on the method.
//! Only positive values are kept: zero is inactive.

use rayon::prelude::*;

use super::simd::{Kernel, wide};
use crate::feature_acts::FeatureActs;

/// Rows that one task selects from: long enough to amortise the task, short enough to share the work evenly.
const ROWS_PER_TASK: usize = 16;
/// Values looked at together: a block without a value over the threshold costs one comparison of vectors.
const BLOCK: usize = 64;

/// The least a value must exceed to be kept by [`above`].
#[derive(Debug, Clone, Copy)]
pub(crate) enum Threshold<'a> {
    /// One threshold for every latent.
    Global(f32),
    /// A threshold a latent. `[d_sae]`
    PerLatent(&'a [f32]),
}

/// Appends to `acts`, for each row, its `k` largest positive `hidden + b_enc`.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`.
pub(crate) fn top_k(hidden: &[f32], b_enc: &[f32], k: usize, acts: &mut FeatureActs) {
    select_rows(hidden, b_enc.len(), acts, |row, kept, acts| {
        wide(TopKOfRow { row: Row { hidden: row, b_enc }, k, kept: &mut *kept });
        for &key in kept.iter() {
            acts.latents.push(latent_of(key));
            acts.values.push(value_of(key));
        }
    });
}

/// Like [`top_k`], but of the latents listed in `among` (ascending) only.
pub(crate) fn top_k_among(hidden: &[f32], b_enc: &[f32], among: &[u32], k: usize, acts: &mut FeatureActs) {
    let b_among: Vec<f32> = among.iter().map(|&latent| b_enc[latent as usize]).collect();
    select_rows(hidden, b_enc.len(), acts, |row, kept, acts| {
        let row: Vec<f32> = among.iter().map(|&latent| row[latent as usize]).collect();
        wide(TopKOfRow { row: Row { hidden: &row, b_enc: &b_among }, k, kept: &mut *kept });
        for &key in kept.iter() {
            acts.latents.push(among[latent_of(key) as usize]);
            acts.values.push(value_of(key));
        }
    });
}

/// Appends to `acts` every `hidden + b_enc` that exceeds the threshold, and zero.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`.
pub(crate) fn above(hidden: &[f32], b_enc: &[f32], threshold: Threshold<'_>, acts: &mut FeatureActs) {
    select_rows(hidden, b_enc.len(), acts, |hidden, _, acts| {
        let row = Row { hidden, b_enc };
        match threshold {
            Threshold::Global(threshold) => wide(AboveGlobal { row, threshold: threshold.max(0.0), acts }),
            Threshold::PerLatent(thresholds) => wide(AboveEach { row, thresholds, acts }),
        }
    });
}

/// Of all entries of all rows, keeps the `count` largest, and returns the smallest value kept.
pub(crate) fn keep_largest(acts: &mut FeatureActs, count: usize) -> Option<f32> {
    let mut keys: Vec<u64> = acts.values.iter().enumerate().map(|(entry, &value)| key(value, entry as u32)).collect();
    if count == 0 || keys.is_empty() {
        acts.retain(|_| false);
        return None;
    }
    let last = count.min(keys.len()) - 1;
    let (_, &mut cut, _) = keys.select_nth_unstable_by(last, |a, b| b.cmp(a));
    if count < keys.len() {
        let values = std::mem::take(&mut acts.values);
        let keep: Vec<bool> = values.iter().enumerate().map(|(at, &value)| key(value, at as u32) >= cut).collect();
        acts.values = values;
        acts.retain(|entry| keep[entry]);
    }
    Some(value_of(cut))
}

/// Runs `select(row, scratch, acts)` over the rows in parallel and appends the results in row order.
fn select_rows(
    hidden: &[f32],
    d_sae: usize,
    acts: &mut FeatureActs,
    select: impl Fn(&[f32], &mut Vec<u64>, &mut FeatureActs) + Sync,
) {
    let parts: Vec<FeatureActs> = hidden
        .par_chunks(ROWS_PER_TASK * d_sae)
        .map(|rows| {
            let (mut part, mut scratch) = (FeatureActs::default(), Vec::new());
            for row in rows.chunks_exact(d_sae) {
                select(row, &mut scratch, &mut part);
                part.end_row();
            }
            part
        })
        .collect();
    for part in &parts {
        acts.append(part);
    }
}

/// What selection from one row reads.
#[derive(Clone, Copy)]
struct Row<'a> {
    hidden: &'a [f32],
    b_enc: &'a [f32],
}

/// The `k` largest of one row as keys, latents ascending. One scan: a value is looked at closer only if it exceeds
/// the k-th largest known so far, which soon is a rare event.
struct TopKOfRow<'a> {
    row: Row<'a>,
    k: usize,
    kept: &'a mut Vec<u64>,
}

impl Kernel for TopKOfRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { row, k, kept } = self;
        kept.clear();
        let room = 4 * k + BLOCK;
        let mut threshold = 0.0f32;
        for block in 0..row.n_blocks() {
            let pre = row.block(block);
            if !any_exceeds(&pre, threshold) {
                continue;
            }
            for (i, &value) in pre.iter().enumerate() {
                if value > threshold {
                    kept.push(key(value, (block * BLOCK + i) as u32));
                }
            }
            if kept.len() > room {
                threshold = cut_to_largest(kept, k);
            }
        }
        cut_to_largest(kept, k);
        kept.sort_unstable_by_key(|&key| latent_of(key));
    }
}

/// Every value of one row over one threshold.
struct AboveGlobal<'a> {
    row: Row<'a>,
    threshold: f32,
    acts: &'a mut FeatureActs,
}

impl Kernel for AboveGlobal<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { row, threshold, acts } = self;
        for block in 0..row.n_blocks() {
            let pre = row.block(block);
            if any_exceeds(&pre, threshold) {
                for (i, &value) in pre.iter().enumerate() {
                    if value > threshold {
                        acts.latents.push((block * BLOCK + i) as u32);
                        acts.values.push(value);
                    }
                }
            }
        }
    }
}
/// Every value of one row over its latent's threshold.
struct AboveEach<'a> {
    row: Row<'a>,
    thresholds: &'a [f32],
    acts: &'a mut FeatureActs,
}

impl Kernel for AboveEach<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { row, thresholds, acts } = self;
        for block in 0..row.n_blocks() {
            let pre = row.block(block);
            let thresholds = &thresholds[block * BLOCK..];
            // Values that are not over zero never count, and most blocks have few over it.
            if any_exceeds(&pre, 0.0) {
                for (i, (&value, &threshold)) in pre.iter().zip(thresholds).enumerate() {
                    if value > threshold.max(0.0) {
                        acts.latents.push((block * BLOCK + i) as u32);
                        acts.values.push(value);
                    }
                }
            }
        }
    }
}
impl Row<'_> {
    #[inline(always)]
    fn n_blocks(self) -> usize {
        self.hidden.len().div_ceil(BLOCK)
    }

    /// `hidden + b_enc` of a block; the last one is filled up with minus infinity, which nothing selects.
    #[inline(always)]
    fn block(self, block: usize) -> [f32; BLOCK] {
        let (hidden, b_enc) = (&self.hidden[block * BLOCK..], &self.b_enc[block * BLOCK..]);
        let mut pre = [f32::NEG_INFINITY; BLOCK];
        if let (Some(hidden), Some(b_enc)) = (hidden.first_chunk::<BLOCK>(), b_enc.first_chunk::<BLOCK>()) {
            for i in 0..BLOCK {
                pre[i] = hidden[i] + b_enc[i];
            }
        } else {
            for (pre, (hidden, bias)) in pre.iter_mut().zip(hidden.iter().zip(b_enc)) {
                *pre = hidden + bias;
            }
        }
        pre
    }
}

#[inline(always)]
fn any_exceeds(values: &[f32; BLOCK], threshold: f32) -> bool {
    let mut any = false;
    // No early exit: the whole block is compared as vectors.
    for &value in values {
        any |= value > threshold;
    }
    any
}

/// Keeps the `k` largest keys and returns the smallest value among them; 0 while there are fewer.
#[inline(always)]
fn cut_to_largest(keys: &mut Vec<u64>, k: usize) -> f32 {
    if keys.len() > k {
        keys.select_nth_unstable_by(k.max(1) - 1, |a, b| b.cmp(a));
        keys.truncate(k);
        return keys.last().map_or(f32::INFINITY, |&key| value_of(key));
    }
    0.0
}

/// A positive value and its place as one integer: larger means a larger value, or the same value at an earlier place.
/// (The bits of positive floats ascend with the float.)
#[inline(always)]
fn key(value: f32, place: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(!place)
}

#[inline(always)]
fn value_of(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32)
}

#[inline(always)]
fn latent_of(key: u64) -> u32 {
    !(key as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::plain;

    /// Rows with many equal values, so that the tie rule is exercised.
    fn coarse(n: usize, d_sae: usize) -> (Vec<f32>, Vec<f32>) {
        let hidden = plain::random(n * d_sae, 7).iter().map(|v| (v * 4.0).round() / 4.0).collect();
        let b_enc = plain::random(d_sae, 8).iter().map(|v| (v * 2.0).round() / 4.0).collect();
        (hidden, b_enc)
    }

    #[test]
    fn top_k_equals_a_full_sort() {
        for (n, d_sae, k) in [(3, 10, 3), (40, 500, 8), (17, 1000, 1000), (5, 64, 1), (20, 3000, 200)] {
            let (hidden, b_enc) = coarse(n, d_sae);
            let mut acts = FeatureActs::default();
            top_k(&hidden, &b_enc, k, &mut acts);
            assert_eq!(acts, plain::top_k(&hidden, &b_enc, k), "n {n}, d_sae {d_sae}, k {k}");
        }
    }

    #[test]
    fn batch_top_k_equals_a_full_sort_from_any_threshold_that_is_low_enough() {
        let (n, d_sae, k) = (30, 400, 5);
        let (hidden, b_enc) = coarse(n, d_sae);
        let expected = plain::batch_top_k(&hidden, &b_enc, n * k);
        for threshold in [-1.0, 0.0, 0.2] {
            let mut acts = FeatureActs::default();
            above(&hidden, &b_enc, Threshold::Global(threshold), &mut acts);
            let smallest = keep_largest(&mut acts, n * k);
            assert_eq!(acts, expected);
            assert_eq!(smallest, expected.values.iter().copied().reduce(f32::min));
        }
    }

    #[test]
    fn fewer_positive_values_than_k_are_all_kept() {
        let mut acts = FeatureActs::default();
        top_k(&[-1.0, 2.0, 0.0, 1.0, -3.0, -1.0], &[0.0; 3], 2, &mut acts);
        assert_eq!((acts.offsets.as_slice(), acts.latents.as_slice()), ([0, 1, 2].as_slice(), [1, 0].as_slice()));
        assert_eq!(keep_largest(&mut acts, 5), Some(1.0));
        assert_eq!(acts.n_active(), 2);
    }

    #[test]
    fn a_threshold_per_latent_is_strict_and_never_below_zero() {
        let mut acts = FeatureActs::default();
        above(&[0.5, 0.5, -0.1, 0.2], &[0.0; 4], Threshold::PerLatent(&[0.5, 0.4, -1.0, -1.0]), &mut acts);
        assert_eq!(acts.latents, [1, 3]);
    }
}
