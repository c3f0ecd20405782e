//! [`Row`] and its [`Block`]s: 64 neighboring values of a row, compared at once. This part is a file of its own because
//! it must compile to vector comparisons.

use super::keys::{cut_to_largest, key};

/// Values compared together. The result is a mask of 64 bits, one for each value above the threshold, and usually all
/// zero.
pub(super) const BLOCK: usize = u64::BITS as usize;

/// The inputs of selection for one row.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) hidden: &'a [f32],
    pub(super) b_enc: &'a [f32],
}

impl<'a> Row<'a> {
    /// Cuts the row into blocks. The last one may be shorter.
    #[inline(always)]
    pub(super) fn blocks(self) -> impl Iterator<Item = Block<'a>> {
        let pairs = self.hidden.chunks(BLOCK).zip(self.b_enc.chunks(BLOCK));
        pairs.enumerate().map(|(at, (hidden, b_enc))| Block { first: at * BLOCK, hidden, b_enc })
    }

    /// Writes the keys of all values above `threshold` to `keys`. If there are very many, it keeps only those that can
    /// be among the `k` largest.
    #[inline(always)]
    pub(super) fn keys_above(self, mut threshold: f32, k: usize, keys: &mut Vec<u64>) {
        keys.clear();
        let room = 8 * k + BLOCK;
        for block in self.blocks() {
            for i in set_bits(block.over(threshold)) {
                keys.push(key(block.value(i), (block.first + i) as u32));
            }
            if keys.len() > room {
                threshold = cut_to_largest(keys, k);
            }
        }
    }
}

/// Some neighboring values of a row. A value is computed twice, for the comparison and again when it is taken: storing
/// it in between would cost more than the addition.
pub(super) struct Block<'a> {
    pub(super) first: usize,
    hidden: &'a [f32],
    b_enc: &'a [f32],
}

impl Block<'_> {
    #[inline(always)]
    pub(super) fn value(&self, i: usize) -> f32 {
        self.hidden[i] + self.b_enc[i]
    }

    /// One bit per value, set if it exceeds `threshold`. A whole block compiles to vector comparisons.
    #[inline(always)]
    pub(super) fn over(&self, threshold: f32) -> u64 {
        let mut mask = 0;
        if let (Ok(hidden), Ok(b_enc)) = (<&[f32; BLOCK]>::try_from(self.hidden), <&[f32; BLOCK]>::try_from(self.b_enc))
        {
            for i in 0..BLOCK {
                mask |= u64::from(hidden[i] + b_enc[i] > threshold) << i;
            }
        } else {
            for i in 0..self.hidden.len() {
                mask |= u64::from(self.value(i) > threshold) << i;
            }
        }
        mask
    }

    /// One bit per value, set if it exceeds its own threshold.
    #[inline(always)]
    pub(super) fn over_each(&self, thresholds: &[f32]) -> u64 {
        let mut mask = 0;
        if let (Ok(hidden), Ok(b_enc), Ok(thresholds)) = (
            <&[f32; BLOCK]>::try_from(self.hidden),
            <&[f32; BLOCK]>::try_from(self.b_enc),
            <&[f32; BLOCK]>::try_from(thresholds),
        ) {
            for i in 0..BLOCK {
                mask |= u64::from(hidden[i] + b_enc[i] > thresholds[i]) << i;
            }
        } else {
            for (i, &threshold) in thresholds.iter().enumerate() {
                mask |= u64::from(self.value(i) > threshold) << i;
            }
        }
        mask
    }
}

/// The indices of the bits that are set in `mask`, ascending.
#[inline(always)]
pub(super) fn set_bits(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (bit < BLOCK).then_some(bit)
    })
}
