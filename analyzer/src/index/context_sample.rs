//! [`ContextSample`]: whole contexts chosen by a hash of their numbers, the smallest first, until a budget is full. So
//! the choice does not depend on the order of the contexts, nor on how the text was cut into parts.
//!
//! ```text
//! sample = the contexts with hash < cut,    cut = the smallest hash at which all contexts up to it exceed the budget
//! ```

use std::collections::BTreeMap;

use crate::{features::Sample, halves};

/// Most of what a sample may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Budget {
    /// Tokens and their active latents, together.
    Entries(u64),
    /// Tokens.
    Tokens(u64),
}

/// Contexts chosen so far.
#[derive(Debug, PartialEq)]
pub(crate) struct ContextSample {
    budget: Budget,
    cut: u64,
    size: u64,
    /// By hash, then number.
    contexts: BTreeMap<(u64, u64), Sample>,
}

impl ContextSample {
    /// A sample of the contexts with a hash below `cut`.
    pub(crate) fn new(budget: Budget, cut: u64) -> Self {
        Self { budget, cut, size: 0, contexts: BTreeMap::new() }
    }

    /// The hash below which every context is in the sample.
    pub(crate) fn cut(&self) -> u64 {
        self.cut
    }

    /// True if the context with this number, whose first token is of `document`, would be in the sample.
    pub(crate) fn wants(&self, document: u64, context: u64) -> bool {
        hash(document, context) < self.cut
    }

    /// Adds one context.
    pub(crate) fn add(&mut self, context: Sample) {
        let rows = &context.encoded.rows;
        let (Some(&document), Some(&number)) = (rows.document.first(), rows.context.first()) else { return };
        self.insert((hash(document, number), number), context);
    }

    fn insert(&mut self, key: (u64, u64), context: Sample) {
        if key.0 >= self.cut {
            return;
        }
        self.size += self.budget.size(&context);
        self.contexts.insert(key, context);
        while self.size > self.budget.most() {
            let Some((&(hash, _), _)) = self.contexts.last_key_value() else { return };
            self.cut_at(hash);
        }
    }

    /// Leaves only contexts with a hash below `cut`.
    fn cut_at(&mut self, cut: u64) {
        self.cut = self.cut.min(cut);
        let dropped = self.contexts.split_off(&(self.cut, 0));
        self.size -= dropped.values().map(|context| self.budget.size(context)).sum::<u64>();
    }

    /// Adds the sample of another text.
    pub(crate) fn merge(&mut self, other: Self) {
        self.cut_at(other.cut);
        other.contexts.into_iter().for_each(|(key, context)| self.insert(key, context));
    }

    /// Its contexts one after the other, in the order of their numbers.
    pub(crate) fn joined(&self) -> Sample {
        join(self.contexts.iter())
    }

    /// Its contexts with a hash below `cut`, as [`Self::joined`].
    pub(crate) fn below(&self, cut: u64) -> Sample {
        join(self.contexts.range(..(cut, 0)))
    }

    /// Adds the contexts of a sample that was saved with its `cut`.
    pub(crate) fn restore_below(&mut self, cut: u64, joined: &Sample) {
        self.cut_at(cut);
        self.restore(joined);
    }

    /// Adds the contexts of [`Self::joined`].
    pub(crate) fn restore(&mut self, joined: &Sample) {
        joined.encoded.rows.contexts().into_iter().for_each(|rows| self.add(joined.part(rows)));
    }
}

/// Contexts one after the other, in the order of their numbers.
fn join<'a>(contexts: impl Iterator<Item = (&'a (u64, u64), &'a Sample)>) -> Sample {
    let mut contexts: Vec<_> = contexts.collect();
    contexts.sort_by_key(|((_, number), _)| *number);
    let mut joined = Sample::default();
    contexts.into_iter().for_each(|(_, context)| joined.append(context));
    joined
}

impl Budget {
    fn most(self) -> u64 {
        match self {
            Self::Entries(most) | Self::Tokens(most) => most,
        }
    }

    fn size(self, context: &Sample) -> u64 {
        match self {
            Self::Entries(_) => context.entries(),
            Self::Tokens(_) => context.len() as u64,
        }
    }
}

/// The hash of a context.
fn hash(document: u64, context: u64) -> u64 {
    mixed(mixed(document) ^ context)
}

/// The number that splitmix64 draws in the state `number`.
pub(crate) fn mixed(number: u64) -> u64 {
    halves::mixed(number.wrapping_add(0x9e37_79b9_7f4a_7c15))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::SampleRow;

    fn context(number: u64, tokens: usize) -> Sample {
        let mut sample = Sample::default();
        (0..tokens).for_each(|_| sample.push(SampleRow { context: number, ..SampleRow::default() }));
        sample
    }

    #[test]
    fn it_holds_the_smallest_hashes_that_fit() {
        let mut sample = ContextSample::new(Budget::Tokens(20), u64::MAX);
        (0..100).for_each(|number| sample.add(context(number, 3)));
        let mut hashes: Vec<u64> = (0..100).map(|number| hash(0, number)).collect();
        hashes.sort_unstable();
        assert_eq!(sample.contexts.keys().map(|key| key.0).collect::<Vec<_>>(), hashes[..6]);
        assert_eq!((sample.cut(), sample.size), (hashes[6], 18));
    }

    /// A context that is too large for one part's sample must not be passed over by that of the whole.
    #[test]
    fn parts_merge_to_the_sample_of_the_whole() {
        let contexts = || (0..60).map(|number| context(number, 1 + (number * 7 % 11) as usize));
        let of = |contexts: &mut dyn Iterator<Item = Sample>| {
            let mut sample = ContextSample::new(Budget::Tokens(50), u64::MAX);
            contexts.for_each(|context| sample.add(context));
            sample
        };
        let whole = of(&mut contexts());
        for parts in 2..7 {
            let mut samples = (0..parts).map(|part| of(&mut contexts().skip(part).step_by(parts)));
            let mut merged = samples.next().expect("two parts or more");
            samples.for_each(|part| merged.merge(part));
            assert_eq!(merged, whole);
        }
        let mut restored = ContextSample::new(Budget::Tokens(50), u64::MAX);
        restored.restore_below(whole.cut(), &whole.joined());
        assert_eq!(restored, whole);
    }
}
