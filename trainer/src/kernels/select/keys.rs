//! Keys: a value and its place in one integer, so that ties fall the same way whatever the order of the work.

/// Keeps the `k` largest keys and returns the smallest value among them; 0 where there are fewer than `k`.
#[inline(always)]
pub(super) fn cut_to_largest(keys: &mut Vec<u64>, k: usize) -> f32 {
    if k == 0 || keys.len() < k {
        return 0.0;
    }
    let (_, &mut smallest, _) = keys.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
    keys.truncate(k);
    value_of(smallest)
}

/// A positive value and its place as one integer: larger means a larger value, or the same value at an earlier place.
/// (The bits of positive floats ascend with the float.)
#[inline(always)]
pub(super) fn key(value: f32, place: u32) -> u64 {
    u64::from(value.to_bits()) << 32 | u64::from(!place)
}

#[inline(always)]
pub(super) fn value_of(key: u64) -> f32 {
    f32::from_bits((key >> 32) as u32)
}

#[inline(always)]
pub(super) fn latent_of(key: u64) -> u32 {
    !(key as u32)
}
