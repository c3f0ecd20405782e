//! [`Standard`]: the scale that training applies to each column, and the mean of the scaled rows.
//!
//! ```text
//! scale_c = sqrt(width_c / sum_i std_ci^2)        dimensions of a column have variance 1 on average
//! mean    = (scale_0 mean_0, scale_1 mean_1, ..)  the initial `b_dec`
//! ```
//!
//! If the latents have to learn the mean, most of them die (arXiv 2605.31518).

use std::borrow::Cow;

use rayon::prelude::*;

use crate::{Error, Result, data::training_data::TrainingData};

/// Converts raw values to training units.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standard {
    /// Multiplies the raw values of each column. `[columns]`
    pub(crate) scales: Vec<f32>,
    /// Mean of the scaled rows. `[sum of widths]`
    pub(crate) mean: Vec<f32>,
}

impl Standard {
    /// Computes the scales and the mean over all of `data`.
    pub(crate) fn of(data: &dyn TrainingData) -> Result<Self> {
        let mut standard = Self { scales: vec![], mean: vec![] };
        for column in data.columns()? {
            let variance: f64 = column.std.iter().map(|&std| f64::from(std).powi(2)).sum();
            let scale = (column.std.len() as f64 / variance).sqrt() as f32;
            if !scale.is_finite() || scale <= 0.0 {
                let found = format!("a variance of {variance} at {}", column.name);
                let hint = "Train on another column, or on more rows";
                return Err(Error::malformed(data.location().to_string(), "values that vary", found, hint));
            }
            standard.scales.push(scale);
            standard.mean.extend(column.mean.iter().map(|mean| scale * mean));
        }
        Ok(standard)
    }

    /// The rows of `x`, in training units, with those shortened whose input is further from the mean than `limit` times
    /// the usual distance, `sqrt(d_in)`: a row of ten times the usual length would count as a hundred.
    ///
    /// # Shapes
    /// `x` `[n, sum of widths]`; the first `d_in` values of a row are its input.
    pub(crate) fn shortened<'a>(&self, x: &'a [f32], d_in: usize, limit: f64) -> Cow<'a, [f32]> {
        let longest = (limit * (d_in as f64).sqrt()) as f32;
        let factor = |row: &[f32]| {
            let squares: f32 = row[..d_in].iter().zip(&self.mean).map(|(x, mean)| (x - mean).powi(2)).sum();
            longest / squares.sqrt()
        };
        let width = self.mean.len();
        let is_long = |row: &&[f32]| factor(row) < 1.0;
        if !limit.is_finite() || !x.par_chunks_exact(width).any(|row| is_long(&row)) {
            return Cow::Borrowed(x);
        }
        let mut x = x.to_vec();
        for row in x.chunks_exact_mut(width) {
            let factor = factor(row).min(1.0);
            row.iter_mut().zip(&self.mean).for_each(|(x, mean)| *x = mean + factor * (*x - mean));
        }
        Cow::Owned(x)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::Path;

    use harvester::Location;

    use super::*;
    use crate::{
        data::training_data::{ColumnSummary, HeldOut, Label, Provenance, Split},
        sae::HookPoints,
    };

    struct TwoColumns {
        place: Location,
        std_of_a: [f32; 2],
    }

    impl TwoColumns {
        fn new(std_of_a: [f32; 2]) -> Self {
            Self { place: Path::new("two-columns").into(), std_of_a }
        }
    }

    impl TrainingData for TwoColumns {
        fn location(&self) -> &Location {
            &self.place
        }

        fn hook_points(&self) -> HookPoints {
            unreachable!("standardizing asks the columns alone")
        }

        fn columns(&self) -> Result<Vec<ColumnSummary<'_>>> {
            let column = |name: &str, mean, std| ColumnSummary { name: name.to_string(), mean, std };
            Ok(vec![column("a", &[1.0, 2.0], &self.std_of_a), column("b", &[-4.0], &[4.0])])
        }

        fn split(&self, _: HeldOut) -> Result<Split<'_>> {
            unreachable!("standardizing reads no rows")
        }

        fn provenance(&self) -> Result<Provenance> {
            unreachable!("standardizing writes no manifest")
        }

        fn label(&self) -> Label {
            unreachable!("standardizing saves no SAE")
        }
    }

    #[test]
    fn each_column_has_its_own_scale() {
        // sqrt(2 / (0.3^2 + 0.4^2)) = sqrt(8); sqrt(1 / 4^2) = 1/4
        let standard = Standard::of(&TwoColumns::new([0.3, 0.4])).unwrap();
        let near = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&standard.scales, &[8f32.sqrt(), 0.25]), "{standard:?}");
        assert!(near(&standard.mean, &[8f32.sqrt(), 2.0 * 8f32.sqrt(), -1.0]), "{standard:?}");
    }

    #[test]
    fn a_row_that_is_too_long_is_shortened_with_its_target() {
        let standard = Standard { scales: vec![1.0, 1.0], mean: vec![1.0, 1.0, 10.0] };
        // Inputs of length 5 and 10 from the mean; a limit of sqrt(12.5) times sqrt(2) is 5.
        let x = [4.0, 5.0, 7.0, 7.0, 9.0, 6.0];
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        let shortened = standard.shortened(&x, 2, 12.5f64.sqrt());
        assert!(near(&shortened, &[4.0, 5.0, 7.0, 4.0, 5.0, 8.0]), "{shortened:?}");
        for limit in [8.0, f64::INFINITY] {
            assert!(matches!(standard.shortened(&x, 2, limit), Cow::Borrowed(_)), "no copy, and the same bits");
        }
    }

    #[test]
    fn a_column_that_never_varies_is_named() {
        let message = Standard::of(&TwoColumns::new([0.0, 0.0])).unwrap_err().to_string();
        assert!(message.contains("two-columns") && message.contains("a variance of 0 at a"), "{message}");
    }
}
