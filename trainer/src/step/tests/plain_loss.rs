//! The losses of a step as dense loops in f64, for finite differences.

use crate::{kernels::feature_acts::FeatureActs, step::weights::Weights};

/// The parameters in f64, for finite differences.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    pub(crate) w_enc: Vec<f64>,
    pub(crate) b_enc: Vec<f64>,
    pub(crate) w_dec: Vec<f64>,
    pub(crate) b_dec: Vec<f64>,
}

impl From<&Weights> for Parameters {
    fn from(weights: &Weights) -> Self {
        let wide = |values: &[f32]| values.iter().copied().map(f64::from).collect();
        Self {
            w_enc: wide(&weights.w_enc),
            b_enc: wide(&weights.b_enc),
            w_dec: wide(&weights.w_dec),
            b_dec: wide(&weights.b_dec),
        }
    }
}

/// Mean squared error of the whole SAE for a given pattern of active latents. The loss is smooth around a point as long
/// as the pattern stays the same.
pub(crate) fn loss(parameters: &Parameters, x: &[f32], active: &FeatureActs) -> f64 {
    let d_in = parameters.b_dec.len();
    let mut loss = 0.0;
    for (row, x) in x.chunks_exact(d_in).enumerate() {
        let mut x_hat = parameters.b_dec.clone();
        for &latent in active.row(row).0 {
            let at = latent as usize * d_in;
            let f = pre_activation(parameters, x, latent);
            x_hat.iter_mut().zip(&parameters.w_dec[at..]).for_each(|(x_hat, w)| *x_hat += f * w);
        }
        loss += x_hat.iter().zip(x).map(|(x_hat, &x)| (x_hat - f64::from(x)).powi(2)).sum::<f64>();
    }
    loss / active.n_rows() as f64
}

/// `(x - b_dec) . W_enc[latent] + b_enc[latent]`.
pub(crate) fn pre_activation(parameters: &Parameters, x: &[f32], latent: u32) -> f64 {
    let w = &parameters.w_enc[latent as usize * x.len()..];
    let product = x.iter().zip(&parameters.b_dec).zip(w).map(|((&x, b), w)| (f64::from(x) - b) * w);
    parameters.b_enc[latent as usize] + product.sum::<f64>()
}

/// Mean squared error of the dead latents' reconstruction of the residual, without `b_dec`.
pub(crate) fn residual_loss(parameters: &Parameters, x: &[f32], active: &FeatureActs, residual: &[f64]) -> f64 {
    let d_in = parameters.b_dec.len();
    let mut loss = 0.0;
    for (row, x) in x.chunks_exact(d_in).enumerate() {
        let mut left = residual[row * d_in..][..d_in].to_vec();
        for &latent in active.row(row).0 {
            let f = pre_activation(parameters, x, latent);
            let w = &parameters.w_dec[latent as usize * d_in..];
            left.iter_mut().zip(w).for_each(|(left, w)| *left -= f * w);
        }
        loss += left.iter().map(|left| left * left).sum::<f64>();
    }
    loss / active.n_rows() as f64
}
