//! [`Histogram`]: how often a latent fires how strongly, in bins that are fine enough for quantiles.
//!
//! ```text
//! bin(a) = the exponent and the first 4 bits of the mantissa of a: 16 linear steps per octave, from 2^-12 to 2^12
//! ```

use serde::Serialize;

/// Bins per octave.
const STEPS: usize = 16;
/// Number of bins: 24 octaves.
pub(crate) const BINS: usize = 24 * STEPS;
/// Bits of an f32 below those that a bin is made of.
const LOW_BITS: u32 = 23 - STEPS.ilog2();
/// The upper bits of 2^-12, with which the first bin begins.
const FIRST: u32 = (127 - 12) << STEPS.ilog2();

/// The bin of a positive activation. The first and the last bin also hold what lies outside.
pub(crate) fn bin(activation: f32) -> usize {
    ((activation.to_bits() >> LOW_BITS).saturating_sub(FIRST) as usize).min(BINS - 1)
}

/// Activation at which a bin begins.
pub(crate) fn bin_start(bin: usize) -> f32 {
    f32::from_bits((FIRST + bin as u32) << LOW_BITS)
}

/// The bins between the first and the last that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Number of the first bin in `counts`. Bin `i` begins at `2^(i / 16 - 12) (1 + i % 16 / 16)`, with `/` that rounds
    /// down in the exponent.
    pub start: u32,
    /// Number of tokens in each bin.
    pub counts: Vec<u32>,
}

impl Histogram {
    /// The histogram of all bins, without the empty ones at both ends.
    pub(crate) fn trimmed(bins: &[u32]) -> Self {
        let filled = |count: &u32| *count > 0;
        let ends = bins.iter().position(filled).zip(bins.iter().rposition(filled));
        let Some((first, last)) = ends else { return Self::default() };
        Self { start: first as u32, counts: bins[first..=last].to_vec() }
    }

    /// The activation below which the share `q` of the tokens lies, interpolated within its bin, at most `max`.
    pub(crate) fn quantile(&self, q: f64, max: f32) -> f32 {
        let total: u64 = self.counts.iter().map(|count| u64::from(*count)).sum();
        let (rank, mut below) = (q * total as f64, 0.0);
        for (bin, &count) in (self.start as usize..).zip(&self.counts) {
            let count = f64::from(count);
            if below + count >= rank && count > 0.0 {
                let (from, to) = (f64::from(bin_start(bin)), f64::from(bin_start(bin + 1)));
                return ((from + (rank - below) / count * (to - from)) as f32).min(max);
            }
            below += count;
        }
        max
    }

    /// Tokens on which the activation is at least as large, within the width of a bin.
    pub(crate) fn at_least(&self, activation: f32) -> u64 {
        let below = bin(activation).saturating_sub(self.start as usize).min(self.counts.len());
        self.counts[below..].iter().map(|count| u64::from(*count)).sum()
    }

    /// Half-octaves as a row of blocks, with the activations at its ends.
    pub fn line(&self) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const GROUP: usize = STEPS / 2;
        if self.counts.is_empty() {
            return String::new();
        }
        let first = self.start as usize / GROUP;
        let last = (self.start as usize + self.counts.len() - 1) / GROUP;
        let mut groups = vec![0u64; last - first + 1];
        for (bin, &count) in (self.start as usize..).zip(&self.counts) {
            groups[bin / GROUP - first] += u64::from(count);
        }
        let most = groups.iter().copied().max().unwrap_or(1).max(1);
        let block = |count: &u64| match *count {
            0 => ' ',
            count => BLOCKS[(count * (BLOCKS.len() as u64 - 1)).div_ceil(most) as usize],
        };
        let bars: String = groups.iter().map(block).collect();
        format!("{} {bars} {}", short(bin_start(first * GROUP)), short(bin_start((last + 1) * GROUP)))
    }
}

/// A number with two digits after the point if it is small.
fn short(value: f32) -> String {
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(activations: &[f32]) -> Histogram {
        let mut bins = vec![0; BINS];
        activations.iter().for_each(|&activation| bins[bin(activation)] += 1);
        Histogram::trimmed(&bins)
    }

    #[test]
    fn a_bin_begins_where_it_says() {
        for number in 0..BINS {
            let (octave, step) = (number as i32 / 16, (number % 16) as f32);
            assert_eq!(bin_start(number), 2f32.powi(octave - 12) * (1.0 + step / 16.0));
            assert_eq!((bin(bin_start(number)), bin(bin_start(number + 1).next_down())), (number, number));
        }
        assert_eq!((bin(1e-9), bin(f32::MIN_POSITIVE / 2.0), bin(1e9), bin(f32::MAX)), (0, 0, BINS - 1, BINS - 1));
    }

    #[test]
    fn quantiles_are_within_a_bin_of_those_of_the_sorted_values() {
        let mut values: Vec<f32> = (0..10_000).map(|i| 0.01 * ((i * 7919 % 10_007) as f32).powf(1.3)).collect();
        let histogram = of(&values);
        values.sort_by(f32::total_cmp);
        for q in [0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0] {
            let exact = values[((q * values.len() as f64) as usize).min(values.len() - 1)];
            let found = histogram.quantile(q, values[values.len() - 1]);
            assert!((found - exact).abs() <= exact / 16.0 + 1e-3, "{q}: {found} {exact}");
        }
    }

    #[test]
    fn what_is_at_least_as_strong_is_counted_within_a_bin() {
        let histogram = of(&[1.0, 2.0, 2.0, 4.0]);
        assert_eq!([0.5, 1.0, 1.5, 2.0, 4.0, 5.0].map(|at| histogram.at_least(at)), [4, 4, 3, 3, 1, 0]);
        assert_eq!(Histogram::default().at_least(1.0), 0);
    }

    #[test]
    fn no_quantile_exceeds_the_maximum() {
        assert_eq!(of(&[5.0]).quantile(0.999, 5.0), 5.0);
        assert_eq!(Histogram::default().quantile(0.5, 0.0), 0.0);
        assert_eq!(of(&[1e-9]).quantile(0.5, 1e-9), 1e-9);
    }

    #[test]
    fn the_line_shows_half_octaves() {
        assert_eq!(of(&[1.0, 1.25, 1.6, 9.0]).line(), "1.00 █▅    ▅ 12");
    }
}
