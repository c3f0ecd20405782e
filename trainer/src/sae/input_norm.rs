//! [`InputNorm`]: the normalization that some SAEs apply to each token's activations before encoding and undo after
//! decoding.
//!
//! ```text
//! centered        x' = x - mu,                      x_hat = x_hat' + mu              mu: the mean over the dimensions
//! layer norm      x' = (x - mu) / (std + eps),      x_hat = x_hat' std + mu          std with n - 1 in the denominator
//! constant norm   x' = x sqrt(d_in) / |x|,          x_hat = x_hat' |x| / sqrt(d_in)
//! ```
//!
//! As in OpenAI's autoencoders and SAELens' `layer_norm`, `eps` is added only before encoding. Centered are the
//! activations of a model whose writing weights TransformerLens has centered (`center_writing_weights`): its layer
//! norms remove the mean anyway, so its logits are those of the model as it was published.

use std::fmt;

/// Normalization of each token's activations.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum InputNorm {
    /// Nothing: raw activations.
    #[default]
    None,
    /// Mean 0 over the dimensions.
    Centered,
    /// Mean 0 and standard deviation 1.
    LayerNorm {
        /// Added to the standard deviation before dividing by it.
        eps: f32,
    },
    /// Length `sqrt(d_in)`.
    ConstantNorm,
}

impl fmt::Display for InputNorm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::Centered => f.pad("mean over the dimensions taken off"),
            Self::LayerNorm { eps } => write!(f, "layer norm with eps {eps:e}"),
            Self::ConstantNorm => f.pad("constant norm"),
        }
    }
}

/// Statistics of one row.
struct RowStats {
    shift: f32,
    /// The row is divided by this.
    divisor: f32,
    /// A reconstruction is multiplied by this.
    scale: f32,
}

impl InputNorm {
    /// Normalizes each row in place.
    ///
    /// # Shapes
    /// `x` `[n, d]`
    pub(crate) fn apply(self, x: &mut [f32], d: usize) {
        if self == Self::None {
            return;
        }
        for row in x.chunks_exact_mut(d) {
            let RowStats { shift, divisor, .. } = self.stats(row);
            row.iter_mut().for_each(|x| *x = (*x - shift) / divisor);
        }
    }

    /// Gives each row of `x_hat` back the mean and scale of the same row of `x`.
    ///
    /// # Shapes
    /// `x` and `x_hat` `[n, d]`
    pub(crate) fn undo(self, x: &[f32], x_hat: &mut [f32], d: usize) {
        if self == Self::None {
            return;
        }
        for (row, x_hat) in x.chunks_exact(d).zip(x_hat.chunks_exact_mut(d)) {
            let RowStats { shift, scale, .. } = self.stats(row);
            x_hat.iter_mut().for_each(|x| *x = *x * scale + shift);
        }
    }

    /// The factor from normalized to raw activations for the row `x`: a decoder direction is multiplied by it before it
    /// is added to `x`.
    pub fn scale(self, x: &[f32]) -> f32 {
        if self == Self::None { 1.0 } else { self.stats(x).scale }
    }

    fn stats(self, row: &[f32]) -> RowStats {
        let n = row.len() as f64;
        match self {
            Self::None => RowStats { shift: 0.0, divisor: 1.0, scale: 1.0 },
            Self::Centered => RowStats { shift: mean(row) as f32, divisor: 1.0, scale: 1.0 },
            Self::LayerNorm { eps } => {
                let mean = mean(row);
                let squares: f64 = row.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
                let std = (squares / (n - 1.0).max(1.0)).sqrt();
                RowStats { shift: mean as f32, divisor: std as f32 + eps, scale: std as f32 }
            }
            Self::ConstantNorm => {
                let norm = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                // A row of zeros stays zero; SAELens turns it into NaN.
                let scale = (norm / n.sqrt()) as f32;
                RowStats { shift: 0.0, divisor: if scale == 0.0 { 1.0 } else { scale }, scale }
            }
        }
    }
}

fn mean(row: &[f32]) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum::<f64>() / row.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        // Mean 2, deviations -1, 0, 1: standard deviation 1 with n - 1.
        let mut row = [1.0, 2.0, 3.0];
        InputNorm::LayerNorm { eps: 0.0 }.apply(&mut row, 3);
        assert_eq!(row, [-1.0, 0.0, 1.0]);
        let mut x_hat = [2.0, 0.0, 0.5];
        InputNorm::LayerNorm { eps: 0.0 }.undo(&[10.0, 20.0, 30.0], &mut x_hat, 3);
        assert_eq!(x_hat, [40.0, 20.0, 25.0]);
        let mut row = [1.0, 2.0, 6.0];
        InputNorm::Centered.apply(&mut row, 3);
        assert_eq!(row, [-2.0, -1.0, 3.0]);
        let mut x_hat = [2.0, 0.0, 0.5];
        InputNorm::Centered.undo(&[1.0, 2.0, 6.0], &mut x_hat, 3);
        assert_eq!((x_hat, InputNorm::Centered.scale(&[1.0, 2.0, 6.0])), ([5.0, 3.0, 3.5], 1.0));
        // Length 5 becomes sqrt(2).
        let mut row = [3.0, 4.0];
        InputNorm::ConstantNorm.apply(&mut row, 2);
        assert!((row[0] * row[0] + row[1] * row[1] - 2.0).abs() < 1e-6);
        assert!((InputNorm::ConstantNorm.scale(&[3.0, 4.0]) - 5.0 / 2f32.sqrt()).abs() < 1e-6);
        assert_eq!(InputNorm::None.scale(&[3.0, 4.0]), 1.0);
    }

    #[test]
    fn a_row_without_spread_stays_finite() {
        for norm in [InputNorm::Centered, InputNorm::LayerNorm { eps: 1e-5 }, InputNorm::ConstantNorm] {
            let mut row = [0.0; 4];
            norm.apply(&mut row, 4);
            assert_eq!(row, [0.0; 4]);
        }
    }
}
