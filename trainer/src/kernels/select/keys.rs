//! Keys: a value and its index in one integer, so that ties are broken in the same way in any order of the work.

/// Keeps the `k` largest keys and returns the smallest value among them, or 0 if there are fewer than `k`.
#[inline(always)]
pub(super) fn cut_to_largest(keys: &mut Vec<u64>, k: usize) -> f32 {
    if k == 0 || keys.len() < k {
        return 0.0;
    }
    let (_, &mut smallest, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    keys.truncate(k);
    value_of(smallest)
}

/// A positive value and its index as one integer. A larger key means a larger value, or the same value at a lower
/// index. (The bits of positive floats ascend with the float.)
#[inline(always)]
pub(super) fn key(value: f32, index: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(!index)
}

#[inline(always)]
pub(super) fn value_of(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32)
}

#[inline(always)]
pub(super) fn latent_of(key: u64) -> u32 {
    !(key as u32)
}
