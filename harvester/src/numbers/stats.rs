//! [`HookPointStatistics`]: statistics of the harvested rows of one hook point, in one pass and constant memory. Each
//! part of a dataset has its own statistics. They are added in the order of the parts, so that a resumed run gets the
//! same numbers as an uninterrupted one, bit for bit.
//!
//! ```text
//! norm(x)         = sqrt(sum_i x_i^2)
//! mean_i          = sum(x_i) / n
//! std_i           = sqrt(sum(x_i^2) / n - mean_i^2)           over the n rows with position > 0 and norm <= sink_norm
//! mean_to_spread  = norm(mean) / sqrt(sum_i std_i^2)          same rows
//! quantiles of norm                                           over all rows with position > 0
//! sink_norm       = 10 * median norm of the first row group, position > 0
//! ```
//!
//! Attention sinks are left out of the mean and the deviation: a handful of them has nearly all the variance (norms of
//! 24,000 among norms of 150), and no reader trains on them. The threshold must be known before the first row is added,
//! so it uses the median of the first row group, not that of the dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Rows whose norm is above this multiple of the median are attention sinks (dictionary_learning's recommended
/// multiple).
pub const SINK_MULTIPLE: f32 = 10.0;

/// True if a row counts: SAEs are trained, indexed and measured on ordinary rows only. Rows at position 0 of a context
/// are not ordinary, and neither are attention sinks, whose norm is above `sink_norm`.
pub fn is_ordinary(position: u32, norm: f32, sink_norm: f32) -> bool {
    position > 0 && norm <= sink_norm
}

/// Sums over the rows of one hook point. Values are those stored in the shard, after rounding to its dtype.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HookPointStatistics {
    /// Rows above this norm are attention sinks and are not in the sums.
    sink_norm: f32,
    /// Rows in the sums.
    rows: u64,
    /// Rows with position > 0 that are sinks.
    sinks: u64,
    /// Sum of each dimension. `[width]`
    #[serde(with = "exact")]
    sum: Vec<f64>,
    /// Sum of squares of each dimension. `[width]`
    #[serde(with = "exact")]
    sum_of_squares: Vec<f64>,
    /// Norms of all rows with position > 0.
    norms: NormHistogram,
}

impl HookPointStatistics {
    /// Statistics of no rows.
    pub(crate) fn new(width: usize, sink_norm: f32) -> Self {
        let zeros = vec![0.0; width];
        Self {
            sink_norm,
            rows: 0,
            sinks: 0,
            sum: zeros.clone(),
            sum_of_squares: zeros,
            norms: NormHistogram::default(),
        }
    }

    /// Adds a row. `row`: `[width]`.
    pub(crate) fn observe(&mut self, row: &[f32], norm: f32, position: u32) {
        if position == 0 {
            return;
        }
        self.norms.observe(norm);
        if !is_ordinary(position, norm, self.sink_norm) {
            self.sinks += 1;
            return;
        }
        self.rows += 1;
        for ((sum, sum_of_squares), value) in self.sum.iter_mut().zip(&mut self.sum_of_squares).zip(row) {
            let value = f64::from(*value);
            *sum += value;
            *sum_of_squares += value * value;
        }
    }

    /// Adds the rows of a later part.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.rows += other.rows;
        self.sinks += other.sinks;
        add(&mut self.sum, &other.sum);
        add(&mut self.sum_of_squares, &other.sum_of_squares);
        self.norms.merge(&other.norms);
    }

    /// The norm above which a row is an attention sink.
    pub(crate) fn sink_norm(&self) -> f32 {
        self.sink_norm
    }

    /// Number of rows with position > 0 and a norm above [`Self::sink_norm`].
    pub(crate) fn sinks(&self) -> u64 {
        self.sinks
    }

    /// Norms of all rows with position > 0.
    pub(crate) fn norms(&self) -> &NormHistogram {
        &self.norms
    }

    /// Number of values per row.
    pub(crate) fn width(&self) -> usize {
        self.sum.len()
    }

    /// Mean of each dimension. `[width]`
    pub(crate) fn mean(&self) -> Vec<f64> {
        let n = self.rows.max(1) as f64;
        self.sum.iter().map(|sum| sum / n).collect()
    }

    /// Standard deviation of each dimension (divided by n). `[width]`
    pub(crate) fn std(&self) -> Vec<f64> {
        let n = self.rows.max(1) as f64;
        let pairs = self.sum.iter().zip(&self.sum_of_squares);
        pairs.map(|(sum, squares)| (squares / n - (sum / n).powi(2)).max(0.0).sqrt()).collect()
    }

    /// Distance of the rows' mean from zero, in units of their spread around it.
    pub(crate) fn mean_to_spread(&self) -> f64 {
        let spread = length(&self.std());
        if spread == 0.0 { 0.0 } else { length(&self.mean()) / spread }
    }
}

/// Euclidean norm of a row, summed in f64 in a fixed order, so that it is the same in every run.
pub fn norm(row: &[f32]) -> f32 {
    let mut lanes = [0.0_f64; 8]; // independent sums, so that the additions need not wait for each other
    let (chunks, rest) = row.as_chunks::<8>();
    let add = |lane: &mut f64, value: f32| *lane += f64::from(value) * f64::from(value);
    for chunk in chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, value)| add(lane, *value));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| add(lane, *value));
    lanes.iter().sum::<f64>().sqrt() as f32
}

fn length(vector: &[f64]) -> f64 {
    vector.iter().map(|value| value * value).sum::<f64>().sqrt()
}

fn add(total: &mut [f64], more: &[f64]) {
    for (total, more) in total.iter_mut().zip(more) {
        *total += more;
    }
}

/// Counts of norms in logarithmic bins. The upper 16 bits of the f32 are the bin's number: 128 bins per octave, no
/// logarithm, and the same bins on every machine. A quantile read from it is off by at most 1/256.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct NormHistogram {
    bins: BTreeMap<u16, u64>,
    max: f32,
}

impl NormHistogram {
    /// Adds a norm: finite and not negative.
    pub(crate) fn observe(&mut self, norm: f32) {
        *self.bins.entry((norm.to_bits() >> 16) as u16).or_default() += 1;
        self.max = self.max.max(norm);
    }

    /// Adds the norms of another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (bin, count) in &other.bins {
            *self.bins.entry(*bin).or_default() += count;
        }
        self.max = self.max.max(other.max);
    }

    /// Number of norms added.
    pub(crate) fn count(&self) -> u64 {
        self.bins.values().sum()
    }

    /// The largest norm, exactly.
    pub(crate) fn max(&self) -> f32 {
        self.max
    }

    /// The smallest norm that at least the fraction `p` of the norms does not exceed, within 0.4 %; 0 when empty.
    pub(crate) fn quantile(&self, p: f64) -> f32 {
        let rank = ((p * self.count() as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (bin, count) in &self.bins {
            seen += count;
            if seen >= rank {
                let middle = f32::from_bits((u32::from(*bin) << 16) | 0x8000);
                return middle.min(self.max);
            }
        }
        0.0
    }
}

/// f64 sums as hexadecimal bit patterns: decimal numbers in JSON need not come back as the same bits.
mod exact {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = values.iter().map(|value| format!("{:016x}", value.to_bits())).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.len() % 16 != 0 || !text.is_ascii() {
            return Err(D::Error::custom("expected 16 hexadecimal digits per number"));
        }
        let starts = (0..text.len()).step_by(16);
        starts
            .map(|start| {
                u64::from_str_radix(&text[start..start + 16], 16).map(f64::from_bits).map_err(D::Error::custom)
            })
            .collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Rows of a fixed sequence, spread over three decades.
    fn rows(n: usize, width: usize) -> Vec<Vec<f32>> {
        let value = |i: usize| ((i * 2_654_435_761) % 1000) as f32 * 0.01 - 3.0;
        (0..n).map(|row| (0..width).map(|i| value(row * width + i)).collect()).collect()
    }

    fn observe_all(statistics: &mut HookPointStatistics, rows: &[Vec<f32>]) {
        for row in rows {
            statistics.observe(row, norm(row), 1);
        }
    }

    #[test]
    fn mean_and_deviation_by_hand() {
        let mut statistics = HookPointStatistics::new(2, f32::INFINITY);
        observe_all(&mut statistics, &[vec![3.0, 0.0], vec![5.0, 0.0]]);
        assert_eq!(statistics.mean(), [4.0, 0.0]);
        assert_eq!(statistics.std(), [1.0, 0.0]);
        assert_eq!(statistics.mean_to_spread(), 4.0);
        assert_eq!(statistics.norms().max(), 5.0);
    }

    #[test]
    fn agrees_with_two_passes_in_f64() {
        let rows = rows(1000, 7);
        let mut statistics = HookPointStatistics::new(7, f32::INFINITY);
        observe_all(&mut statistics, &rows);
        for i in 0..7 {
            let column: Vec<f64> = rows.iter().map(|row| f64::from(row[i])).collect();
            let mean = column.iter().sum::<f64>() / 1000.0;
            let std = (column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1000.0).sqrt();
            assert!((statistics.mean()[i] - mean).abs() < 1e-12);
            assert!((statistics.std()[i] - std).abs() < 1e-12);
        }
    }

    #[test]
    fn position_zero_counts_nowhere_and_sinks_only_among_the_norms() {
        let mut statistics = HookPointStatistics::new(1, 100.0);
        statistics.observe(&[9000.0], 9000.0, 0);
        statistics.observe(&[500.0], 500.0, 7);
        statistics.observe(&[2.0], 2.0, 8);
        assert_eq!((statistics.rows, statistics.sinks()), (1, 1));
        assert_eq!(statistics.mean(), [2.0]);
        assert_eq!((statistics.norms().count(), statistics.norms().max()), (2, 500.0));
    }

    #[test]
    fn quantiles_are_within_half_a_percent() {
        let mut histogram = NormHistogram::default();
        (1..=10_000).for_each(|i| histogram.observe(i as f32 * 0.37));
        for (p, exact) in [(0.01, 37.0), (0.5, 1850.0), (0.99, 3663.0), (0.999, 3696.3), (1.0, 3700.0)] {
            let found = histogram.quantile(p);
            assert!((found / exact - 1.0).abs() < 0.004, "{p}: {found} instead of {exact}");
        }
        assert_eq!(NormHistogram::default().quantile(0.5), 0.0);
    }

    #[test]
    fn the_state_survives_json_bit_for_bit_and_merging_is_the_sum_of_parts() {
        let rows = rows(300, 5);
        let mut parts: Vec<_> = (0..3).map(|_| HookPointStatistics::new(5, 9.0)).collect();
        for (part, rows) in parts.iter_mut().zip(rows.chunks(100)) {
            observe_all(part, rows);
        }
        let fold = |parts: &[HookPointStatistics]| {
            let mut total = HookPointStatistics::new(5, 9.0);
            parts.iter().for_each(|part| total.merge(part));
            total
        };
        let stored = serde_json::to_string(&parts).unwrap();
        let resumed: Vec<HookPointStatistics> = serde_json::from_str(&stored).unwrap();
        assert_eq!(fold(&resumed), fold(&parts));
        assert!(fold(&parts).sinks() > 0, "the example should have sinks");
    }

    #[test]
    fn the_norm_of_a_row_that_is_no_multiple_of_the_lanes() {
        assert_eq!(norm(&[3.0, 4.0]), 5.0);
        assert_eq!(norm(&[1.0; 9]), 3.0);
        assert_eq!(norm(&[]), 0.0);
    }
}
