//! [`auc`]: how well numbers tell two groups apart.

/// Probability that a number of `first` is above one of `second`, where equal ones count 1/2: the area under the ROC
/// curve. Neither is empty.
pub(crate) fn auc(first: &[f64], second: &[f64]) -> f64 {
    let mut sorted = second.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let below = |x: &f64| {
        let below = sorted.partition_point(|y| y < x) as f64;
        let equal = sorted.partition_point(|y| y <= x) as f64 - below;
        below + equal / 2.0
    };
    first.iter().map(below).sum::<f64>() / (first.len() * second.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_order_are_counted_and_equal_ones_by_half() {
        // Of six pairs, 3 > 1, 3 > 2, 2 > 1 are in order and 2 = 2 is half of one.
        assert_eq!(auc(&[3.0, 2.0, 0.0], &[1.0, 2.0]), 3.5 / 6.0);
        assert_eq!(auc(&[1.0], &[f64::NEG_INFINITY]), 1.0);
    }
}
