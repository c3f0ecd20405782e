//! The statistics of a contrast, of values that are mostly zeros.

use rand::{SeedableRng, seq::index::sample};
use rand_chacha::ChaCha8Rng;

use crate::wilson::wilson;

/// Values of two groups of documents, where most values are 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TwoGroups<'a> {
    /// The values that are not 0, and true for those of the first group. They are positive.
    pub(crate) active: &'a [(f32, bool)],
    /// Number of documents of each group, with those whose value is 0.
    pub(crate) n: [usize; 2],
}

/// Mann-Whitney's U of the first group, and the size of the ties.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct MannWhitney {
    /// Number of pairs in which the first group's value is larger; a tie counts 1/2.
    u: f64,
    /// `sum (t^3 - t)` over the groups of `t` equal values.
    ties: f64,
    n: [usize; 2],
}

impl TwoGroups<'_> {
    /// The number of documents of each group whose value is not 0.
    pub(crate) fn n_active(&self) -> [usize; 2] {
        let first = self.active.iter().filter(|(_, first)| *first).count();
        [first, self.active.len() - first]
    }

    pub(crate) fn mann_whitney(&self) -> MannWhitney {
        let mut sorted = self.active.to_vec();
        sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let cube = |t: usize| (t as f64).powi(3) - t as f64;
        let active = self.n_active();
        let zeros = [self.n[0] - active[0], self.n[1] - active[1]];
        let (mut u, mut ties) = (zeros[0] as f64 * zeros[1] as f64 / 2.0, cube(zeros[0] + zeros[1]));
        let mut below = zeros[1];
        for equal in sorted.chunk_by(|a, b| a.0 == b.0) {
            let first = equal.iter().filter(|(_, first)| *first).count();
            let second = equal.len() - first;
            u += first as f64 * (below as f64 + second as f64 / 2.0);
            ties += cube(equal.len());
            below += second;
        }
        MannWhitney { u, ties, n: self.n }
    }

    /// Median of one group's values.
    pub(crate) fn median(&self, first: bool) -> f32 {
        let mut values: Vec<f32> = self.active.iter().filter(|(_, of)| *of == first).map(|(value, _)| *value).collect();
        values.sort_unstable_by(f32::total_cmp);
        let n = self.n[usize::from(!first)];
        let zeros = n - values.len();
        let at = |rank: usize| if rank < zeros { 0.0 } else { values[rank - zeros] };
        match n {
            0 => 0.0,
            n if n % 2 == 1 => at(n / 2),
            n => (at(n / 2 - 1) + at(n / 2)) / 2.0,
        }
    }
}

impl MannWhitney {
    /// Area under the ROC curve: the probability that a document of the first group has the larger value.
    pub(crate) fn auc(&self) -> f64 {
        let pairs = self.n[0] as f64 * self.n[1] as f64;
        if pairs == 0.0 { 0.5 } else { self.u / pairs }
    }

    /// Two-sided p by the normal approximation, with the correction for ties and for continuity: `z = (|U - n_a n_b / 2|
    /// - 1/2) / s`, `s^2 = n_a n_b / 12 (n + 1 - sum (t^3 - t) / (n (n - 1)))`.
    pub(crate) fn p(&self) -> f64 {
        let [a, b] = self.n.map(|n| n as f64);
        let n = a + b;
        let variance = a * b / 12.0 * (n + 1.0 - self.ties / (n * (n - 1.0)));
        if variance <= 0.0 {
            return 1.0;
        }
        let z = ((self.u - a * b / 2.0).abs() - 0.5) / variance.sqrt();
        libm::erfc(z / std::f64::consts::SQRT_2).min(1.0)
    }
}

/// Random assignments of documents to two groups, for Monte Carlo permutation tests of few documents.
#[derive(Debug)]
pub(crate) struct Permutations {
    /// The indices of the documents of the smaller group, for each assignment.
    assignments: Vec<Vec<usize>>,
}

impl Permutations {
    /// Largest number of assignments tried.
    const N: usize = 10_000;
    /// After so many that are at least as far from the middle, p is known well enough (Besag and Clifford's sequential
    /// test, which remains exact).
    const ENOUGH: usize = 50;

    pub(crate) fn new([first, second]: [usize; 2]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let smaller = |_| sample(&mut random, first + second, first.min(second)).into_vec();
        Self { assignments: (0..Self::N).map(smaller).collect() }
    }

    /// The smallest p: that of values which tell the groups apart wholly.
    pub(crate) fn floor(&self, n: [usize; 2]) -> f64 {
        let values: Vec<f32> = (0..n[0] + n[1]).rev().map(|value| value as f32).collect();
        self.p(&values, n[0])
    }

    /// Two-sided p of the AUC: the share of assignments with one at least as far from 1/2, where the one found counts
    /// too. `values`: of every document, those of the first group first.
    pub(crate) fn p(&self, values: &[f32], first: usize) -> f64 {
        let ranks = ranks(values);
        // Both groups' sums of ranks are equally far from their middles.
        let smaller = if 2 * first <= values.len() { &ranks[..first] } else { &ranks[first..] };
        let middle = ranks.iter().sum::<f64>() * smaller.len() as f64 / values.len() as f64;
        let far = |sum: f64| (sum - middle).abs();
        let found = far(smaller.iter().sum());
        let sum = |assignment: &[usize]| assignment.iter().map(|place| ranks[*place]).sum();
        let mut as_far = 0;
        for (tried, assignment) in (1..).zip(&self.assignments) {
            as_far += usize::from(far(sum(assignment)) >= found - 1e-9);
            if as_far == Self::ENOUGH {
                return as_far as f64 / tried as f64;
            }
        }
        (as_far + 1) as f64 / (Self::N + 1) as f64
    }
}

/// Rank of each value, from 1; equal values have the mean of their ranks.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        equal.iter().for_each(|place| ranks[*place] = rank);
        before += equal.len();
    }
    ranks
}

/// Newcombe's 95 % interval of the difference of two proportions, from Wilson's intervals of each (his method 10).
pub(crate) fn newcombe(successes: [usize; 2], n: [usize; 2]) -> [f64; 2] {
    let p = [0, 1].map(|group| successes[group] as f64 / n[group] as f64);
    let [first, second] = [0, 1].map(|group| wilson(successes[group], n[group]));
    let difference = p[0] - p[1];
    let low = ((p[0] - first[0]).powi(2) + (second[1] - p[1]).powi(2)).sqrt();
    let high = ((first[1] - p[0]).powi(2) + (p[1] - second[0]).powi(2)).sqrt();
    [difference - low, difference + high]
}

/// Benjamini and Hochberg's adjusted p-values: those at most q are the discoveries at a false discovery rate of q.
pub(crate) fn benjamini_hochberg(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_unstable_by(|a, b| p[*b].total_cmp(&p[*a]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 1.0f64;
    for (place, &test) in order.iter().enumerate() {
        least = least.min(p[test] * p.len() as f64 / (p.len() - place) as f64);
        adjusted[test] = least;
    }
    adjusted
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::Value;

    use super::*;

    fn numbers(value: &Value) -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    }

    /// `fixtures/find_statistics.json` holds figures of scipy and statsmodels; `find_statistics.py` beside it writes it. Both
    /// compute in f64, so the values agree to rounding.
    #[test]
    fn every_figure_is_that_of_scipy_and_statsmodels() {
        let cases: Value = serde_json::from_str(include_str!("../../tests/fixtures/find_statistics.json")).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9 * b.abs().max(1e-300) || (a - b).abs() < 1e-12;
        for case in cases["groups"].as_array().unwrap() {
            let [a, b] = ["a", "b"].map(|side| numbers(&case[side]));
            let active = |side: &[f64], first| {
                side.iter().filter(|v| **v != 0.0).map(|v| (*v as f32, first)).collect::<Vec<_>>()
            };
            let active = [active(&a, true), active(&b, false)].concat();
            let groups = TwoGroups { active: &active, n: [a.len(), b.len()] };
            let test = groups.mann_whitney();
            assert!(close(test.u, case["u"].as_f64().unwrap()), "{test:?} {case}");
            assert!(close(test.p(), case["p"].as_f64().unwrap()), "{} {case}", test.p());
            assert!(close(test.auc(), case["auc"].as_f64().unwrap()), "{} {case}", test.auc());
            let medians = [true, false].map(|first| f64::from(groups.median(first)));
            let wanted = numbers(&case["medians"]);
            assert!((medians[0] - wanted[0]).abs() < 1e-6 && (medians[1] - wanted[1]).abs() < 1e-6, "{case}");
        }
        for case in cases["proportions"].as_array().unwrap() {
            let of = |name: &str| numbers(&case[name]).iter().map(|n| *n as usize).collect::<Vec<_>>();
            let (successes, n) = (of("successes"), of("n"));
            let found = newcombe([successes[0], successes[1]], [n[0], n[1]]);
            let wanted = numbers(&case["newcombe"]);
            assert!(close(found[0], wanted[0]) && close(found[1], wanted[1]), "{found:?} {case}");
        }
        let adjusted = benjamini_hochberg(&numbers(&cases["p"]));
        assert!(adjusted.iter().zip(numbers(&cases["adjusted"])).all(|(a, b)| close(*a, b)), "{adjusted:?}");
    }

    #[test]
    fn permutations_agree_with_all_assignments() {
        // 3 of 6 documents: 20 assignments, of which 2 are as far from the middle as that of the three largest.
        let p = Permutations::new([3, 3]).p(&[4.0, 5.0, 6.0, 1.0, 2.0, 3.0], 3);
        assert!((p - 0.1).abs() < 0.04, "{p}"); // 50 of about 500: a standard error of 0.013
        assert_eq!(Permutations::new([2, 2]).p(&[0.0; 4], 2), 1.0);
    }

    #[test]
    fn the_larger_group_may_be_the_first() {
        // 2 of 7 documents: 21 assignments, of which 2 are as far from the middle as that of the two largest.
        let largest_first = Permutations::new([2, 5]).p(&[9.0, 8.0, 1.0, 2.0, 3.0, 4.0, 5.0], 2);
        let largest_last = Permutations::new([5, 2]).p(&[1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 8.0], 5);
        for p in [largest_first, largest_last] {
            assert!((p - 2.0 / 21.0).abs() < 0.04, "{p}");
        }
    }
}
