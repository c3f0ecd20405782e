//! [`Counts`]: how often and how strongly each latent fires. Counts of two texts add up in any order.

use crate::features::histogram::{self, BINS, Histogram};

/// Units of a sum of activations in an activation of 1. Whole numbers add up to the same in any order.
pub(crate) const UNITS: f64 = (1 << 24) as f64;

/// Counts of one latent.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct LatentCounts {
    pub(crate) n_active: u64,
    /// In [`UNITS`]; it stays at the largest number.
    pub(crate) sum: u64,
    pub(crate) max: f32,
}

/// Counts of every latent.
#[derive(Debug, PartialEq)]
pub(crate) struct Counts {
    pub(crate) latents: Vec<LatentCounts>,
    /// Tokens per bin of activation; a count stays at the largest number. `[d_sae, BINS]`
    histogram: Vec<u32>,
    /// Active tokens of each source. `[d_sae, n_sources]`
    by_source: Vec<u64>,
    n_sources: usize,
}

impl Counts {
    pub(crate) fn new(d_sae: usize, n_sources: usize) -> Self {
        Self {
            latents: vec![LatentCounts::default(); d_sae],
            histogram: vec![0; d_sae * BINS],
            by_source: vec![0; d_sae * n_sources],
            n_sources,
        }
    }

    /// Counts the active latents of a token.
    pub(crate) fn add(&mut self, latents: &[u32], activations: &[f32], source: Option<usize>) {
        for (&latent, &activation) in latents.iter().zip(activations) {
            let latent = latent as usize;
            let counts = &mut self.latents[latent];
            counts.n_active += 1;
            counts.sum = counts.sum.saturating_add((f64::from(activation) * UNITS) as u64);
            counts.max = counts.max.max(activation);
            let bin = &mut self.histogram[latent * BINS + histogram::bin(activation)];
            *bin = bin.saturating_add(1);
            if let Some(source) = source {
                self.by_source[latent * self.n_sources + source] += 1;
            }
        }
    }

    /// Adds the counts of another text.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (counts, other) in self.latents.iter_mut().zip(&other.latents) {
            counts.n_active += other.n_active;
            counts.sum = counts.sum.saturating_add(other.sum);
            counts.max = counts.max.max(other.max);
        }
        let bins = self.histogram.iter_mut().zip(&other.histogram);
        bins.for_each(|(bin, other)| *bin = bin.saturating_add(*other));
        self.by_source.iter_mut().zip(&other.by_source).for_each(|(count, other)| *count += other);
    }

    pub(crate) fn histogram(&self, latent: usize) -> Histogram {
        Histogram::trimmed(&self.histogram[latent * BINS..][..BINS])
    }

    pub(crate) fn by_source(&self, latent: usize) -> &[u64] {
        &self.by_source[latent * self.n_sources..][..self.n_sources]
    }

    /// Sets the counts of a latent that were saved. `None` if they do not fit.
    pub(crate) fn restore(
        &mut self,
        latent: usize,
        counts: LatentCounts,
        histogram: &Histogram,
        by_source: &[u64],
    ) -> Option<()> {
        *self.latents.get_mut(latent)? = counts;
        let bins = &mut self.histogram[latent * BINS..][..BINS];
        bins.get_mut(histogram.start as usize..)?.get_mut(..histogram.counts.len())?.copy_from_slice(&histogram.counts);
        (by_source.len() == self.n_sources).then_some(())?;
        self.by_source[latent * self.n_sources..][..self.n_sources].copy_from_slice(by_source);
        Some(())
    }
}
