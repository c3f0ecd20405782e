//! Selects the latents that stay active: the nonlinearity between the encoder's product and the sparse rest.
//!
//! ```text
//! top_k          keep, in each row, the k largest relu(hidden + b_enc)
//! above          keep every positive hidden + b_enc above a threshold (one for all, or one per latent)
//! top_k_among    like top_k, but only among some latents (dead ones, for the auxiliary loss)
//! keep_largest   keep the `count` largest values of all rows together, after `above` (BatchTopK)
//! above_each     keep every hidden + b_enc above its latent's threshold, positive or negative
//! everything     keep every hidden + b_enc
//! ```
//!
//! Ties go to the lower latent, then to the earlier row, so the result never depends on threads or on the method. Only
//! the last two keep values that are not positive; for the others, zero is inactive.

use harvester::simd::{Kernel, wide};
use rayon::prelude::*;

use self::{
    blocks::{BLOCK, Block, Row, set_bits},
    keys::{cut_to_largest, key, latent_of, value_of},
};
use crate::kernels::feature_acts::FeatureActs;

mod blocks;
mod keys;

/// Rows that one task selects from: enough to amortize the task's cost, few enough to share the work evenly.
const ROWS_PER_TASK: usize = 64;
/// The search of a row begins at this share of the k-th largest value of the row before.
const FLOOR_SHARE: f32 = 0.8;

/// The threshold that a value must exceed to be kept by [`above`]. Negative thresholds count as 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Threshold<'a> {
    /// One threshold for every latent.
    Global(f32),
    /// One threshold per latent. `[d_sae]`
    PerLatent(&'a [f32]),
}

/// Appends to `acts`, for each row, its `k` largest positive `hidden + b_enc`.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`.
pub(crate) fn top_k(hidden: &[f32], b_enc: &[f32], k: usize, acts: &mut FeatureActs) {
    select_rows(hidden, b_enc.len(), acts, |hidden, scratch, acts| {
        let Scratch { floor, kept, .. } = scratch;
        wide(TopKOfRow { row: Row { hidden, b_enc }, k, floor, kept });
        for &key in kept.iter() {
            acts.latents.push(latent_of(key));
            acts.values.push(value_of(key));
        }
    });
}

/// Like [`top_k`], but only among the latents listed in `among` (ascending).
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`, `among` `[n_among]`.
pub(crate) fn top_k_among(hidden: &[f32], b_enc: &[f32], among: &[u32], k: usize, acts: &mut FeatureActs) {
    let b_among: Vec<f32> = among.iter().map(|&latent| b_enc[latent as usize]).collect();
    select_rows(hidden, b_enc.len(), acts, |hidden, scratch, acts| {
        let Scratch { floor, kept, gathered } = scratch;
        gathered.clear();
        gathered.extend(among.iter().map(|&latent| hidden[latent as usize]));
        wide(TopKOfRow { row: Row { hidden: gathered, b_enc: &b_among }, k, floor, kept });
        for &key in kept.iter() {
            acts.latents.push(among[latent_of(key) as usize]);
            acts.values.push(value_of(key));
        }
    });
}

/// Appends to `acts` every `hidden + b_enc` that exceeds both the threshold and zero.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`.
pub(crate) fn above(hidden: &[f32], b_enc: &[f32], threshold: Threshold<'_>, acts: &mut FeatureActs) {
    match threshold {
        Threshold::Global(threshold) => select_rows(hidden, b_enc.len(), acts, |hidden, _, acts| {
            wide(AboveGlobal { row: Row { hidden, b_enc }, threshold: threshold.max(0.0), acts });
        }),
        Threshold::PerLatent(thresholds) => {
            let positive: Vec<f32> = thresholds.iter().map(|threshold| threshold.max(0.0)).collect();
            above_each(hidden, b_enc, &positive, acts);
        }
    }
}

/// Appends to `acts` every `hidden + b_enc` that exceeds its latent's threshold, even a negative one.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` and `thresholds` `[d_sae]`.
pub(crate) fn above_each(hidden: &[f32], b_enc: &[f32], thresholds: &[f32], acts: &mut FeatureActs) {
    select_rows(hidden, b_enc.len(), acts, |hidden, _, acts| {
        wide(AboveEach { row: Row { hidden, b_enc }, thresholds, acts });
    });
}

/// Appends to `acts` every `hidden + b_enc`.
///
/// # Shapes
/// `hidden` `[n, d_sae]`, `b_enc` `[d_sae]`.
pub(crate) fn everything(hidden: &[f32], b_enc: &[f32], acts: &mut FeatureActs) {
    select_rows(hidden, b_enc.len(), acts, |hidden, _, acts| {
        acts.latents.extend(0..b_enc.len() as u32);
        acts.values.extend(hidden.iter().zip(b_enc).map(|(hidden, bias)| hidden + bias));
    });
}

/// Keeps the `count` largest entries of all rows together, and returns the smallest value kept.
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

/// Buffers and the search floor that a task carries from row to row.
#[derive(Default)]
pub(super) struct Scratch {
    floor: f32,
    kept: Vec<u64>,
    gathered: Vec<f32>,
}

/// Runs `select(row, scratch, acts)` over the rows in parallel and appends the results in row order.
pub(super) fn select_rows(
    hidden: &[f32],
    d_sae: usize,
    acts: &mut FeatureActs,
    select: impl Fn(&[f32], &mut Scratch, &mut FeatureActs) + Sync,
) {
    let parts: Vec<FeatureActs> = hidden
        .par_chunks(ROWS_PER_TASK * d_sae)
        .map(|rows| {
            let (mut part, mut scratch) = (FeatureActs::default(), Scratch::default());
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

/// Writes the keys of the `k` largest values of one row to `kept`, latents ascending.
struct TopKOfRow<'a> {
    row: Row<'a>,
    k: usize,
    /// The search begins at this value, which was low enough for the row before.
    floor: &'a mut f32,
    kept: &'a mut Vec<u64>,
}

impl Kernel for TopKOfRow<'_> {
    type Output = ();

    /// Gathers the values above the floor. Neighboring rows are alike, so these are usually a few more than k. If they
    /// are fewer, the row is searched again from zero.
    #[inline(always)]
    fn run(self) {
        let Self { row, k, floor, kept } = self;
        row.keys_above(*floor, k, kept);
        if kept.len() < k && *floor > 0.0 {
            row.keys_above(0.0, k, kept);
        }
        *floor = FLOOR_SHARE * cut_to_largest(kept, k);
        kept.sort_unstable_by_key(|&key| latent_of(key));
    }
}

/// Takes every value of one row above one threshold.
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
        for block in row.blocks() {
            push(acts, &block, block.over(threshold));
        }
    }
}

/// Takes every value of one row above its latent's threshold.
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
        for (block, thresholds) in row.blocks().zip(thresholds.chunks(BLOCK)) {
            push(acts, &block, block.over_each(thresholds));
        }
    }
}

/// Appends the values of a block whose bits are set in `mask`.
#[inline(always)]
fn push(acts: &mut FeatureActs, block: &Block<'_>, mask: u64) {
    for i in set_bits(mask) {
        acts.latents.push((block.first + i) as u32);
        acts.values.push(block.value(i));
    }
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
    fn everything_is_kept_whatever_its_sign() {
        let mut acts = FeatureActs::default();
        everything(&[1.0, -2.0, 0.0, 3.0], &[0.5, 0.5], &mut acts);
        assert_eq!((acts.offsets, acts.latents), (vec![0, 2, 4], vec![0, 1, 0, 1]));
        assert_eq!(acts.values, [1.5, -1.5, 0.5, 3.5]);
    }

    #[test]
    fn a_threshold_per_latent_is_strict_and_never_below_zero() {
        let mut acts = FeatureActs::default();
        above(&[0.5, 0.5, -0.1, 0.2], &[0.0; 4], Threshold::PerLatent(&[0.5, 0.4, -1.0, -1.0]), &mut acts);
        assert_eq!(acts.latents, [1, 3]);
    }

    #[test]
    fn each_value_is_compared_with_its_own_threshold_in_whole_blocks_and_in_the_rest() {
        let (n, d_sae) = (3, 2 * BLOCK + 5);
        let (hidden, b_enc) = coarse(n, d_sae);
        let thresholds = plain::random(d_sae, 9);
        let mut acts = FeatureActs::default();
        above_each(&hidden, &b_enc, &thresholds, &mut acts);
        for row in 0..n {
            let expected: Vec<u32> = (0..d_sae)
                .filter(|&latent| hidden[row * d_sae + latent] + b_enc[latent] > thresholds[latent])
                .map(|latent| latent as u32)
                .collect();
            assert_eq!(acts.row(row).0, expected);
        }
        assert!(acts.values.iter().any(|&value| value < 0.0), "negative values over negative thresholds are kept");
    }
}
