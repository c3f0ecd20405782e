//! [`Standard`]: the scale that training applies to each column, and the mean of the scaled rows.
//!
//! ```text
//! scale_c = sqrt(width_c / sum_i std_ci^2)        dimensions of a column have variance 1 on average
//! mean    = (scale_0 mean_0, scale_1 mean_1, ..)  the initial `b_dec`
//! ```
//!
//! If the latents have to learn the mean, most of them die (arXiv 2605.31518).

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
    fn a_column_that_never_varies_is_named() {
        let message = Standard::of(&TwoColumns::new([0.0, 0.0])).unwrap_err().to_string();
        assert!(message.contains("two-columns") && message.contains("a variance of 0 at a"), "{message}");
    }
}
