//! [`Row`] and its [`Block`]s: 64 neighbouring values of a row, compared at once. It stands apart from what is selected
//! because this is the part that must compile to comparisons of vectors.

use super::keys::{cut_to_largest, key};

/// Values looked at together: what exceeds the threshold among them is a mask of 64 bits, most often all zero.
pub(super) const BLOCK: usize = u64::BITS as usize;

/// What selection from one row reads.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    pub(super) hidden: &'a [f32],
    pub(super) b_enc: &'a [f32],
}

impl<'a> Row<'a> {
    /// The row in blocks. The last one may be shorter.
    #[inline(always)]
    pub(super) fn blocks(self) -> impl Iterator<Item = Block<'a>> {
        let pairs = self.hidden.chunks(BLOCK).zip(self.b_enc.chunks(BLOCK));
        pairs.enumerate().map(|(at, (hidden, b_enc))| Block { first: at * BLOCK, hidden, b_enc })
    }

    /// The keys of all values over `threshold`; of very many, only those that can be among the `k` largest.
    #[inline(always)]
    pub(super) fn keys_above(self, mut threshold: f32, k: usize, keys: &mut Vec<u64>) {
        keys.clear();
        let room = 8 * k + BLOCK;
        for block in self.blocks() {
            for i in places(block.over(threshold)) {
                keys.push(key(block.value(i), (block.first + i) as u32));
            }
            if keys.len() > room {
                threshold = cut_to_largest(keys, k);
            }
        }
    }
}

/// Some neighbouring values of a row. They are computed twice, to be compared and when one is taken: keeping them in
/// between would cost more than the addition.
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

    /// One bit a value: whether it exceeds `threshold`. A whole block compiles to comparisons of vectors.
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

    /// One bit a value: whether it exceeds its own threshold.
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

/// The places of the ones in a mask, ascending.
#[inline(always)]
pub(super) fn places(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let place = mask.trailing_zeros() as usize;
        mask &= mask.wrapping_sub(1);
        (place < BLOCK).then_some(place)
    })
}
