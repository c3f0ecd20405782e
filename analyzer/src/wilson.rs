//! [`wilson`]: the interval of a proportion.

/// 95 % quantile of the normal distribution, two-sided.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's 95 % interval of a proportion; everything, without a trial.
pub(crate) fn wilson(successes: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (n as f64, successes as f64 / n as f64);
    let middle = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let reach = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    [middle - reach, middle + reach]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of statsmodels: `proportion_confint(8, 10, method="wilson")`. Differences of two are tested in `find`.
    #[test]
    fn an_interval_is_that_of_statsmodels() {
        let [low, high] = wilson(8, 10);
        assert!(
            (low - 0.490_162_471_536_64).abs() < 1e-12 && (high - 0.943_317_848_545_62).abs() < 1e-12,
            "{low} {high}"
        );
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
    }
}
