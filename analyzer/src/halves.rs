//! [`Half`]: a fixed split of documents in two, so that a thing is chosen on one half and measured on the other.

/// One half of the documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Half {
    /// Documents on which a rule or an order is chosen.
    Choose,
    /// Documents on which it is measured.
    Report,
}

impl Half {
    /// The half of a document, or of a context, by its number.
    pub(crate) fn of(number: u64) -> Self {
        if mixed(number) & 1 == 0 { Self::Choose } else { Self::Report }
    }
}

/// A number whose bits all depend on all bits of `x` (the finalizer of splitmix64).
pub(crate) fn mixed(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
