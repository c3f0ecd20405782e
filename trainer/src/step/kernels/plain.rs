//! The formulas of the parent module as dense loops in f64, to compare the kernels with. Compiled for tests only.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::step::{feature_acts::FeatureActs, weights::Weights};

/// `n` numbers uniform in -1..1.
pub(crate) fn random(n: usize, seed: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| random.random_range(-1.0..1.0)).collect()
}

/// (row, latent, x W^T) of every pair.
pub(crate) fn product(x: &[f32], w: &[f32], d_in: usize) -> impl Iterator<Item = (usize, usize, f64)> {
    let (n, d_sae) = (x.len() / d_in, w.len() / d_in);
    (0..n).flat_map(move |row| (0..d_sae).map(move |latent| (row, latent))).map(move |(row, latent)| {
        let (x, w) = (&x[row * d_in..][..d_in], &w[latent * d_in..][..d_in]);
        (row, latent, x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum())
    })
}

/// The `k` largest positive values of each row, by sorting it.
pub(crate) fn top_k(hidden: &[f32], b_enc: &[f32], k: usize) -> FeatureActs {
    let mut acts = FeatureActs::default();
    for row in hidden.chunks_exact(b_enc.len()) {
        let one = batch_top_k(row, b_enc, k);
        acts.append(&one);
    }
    acts
}

/// The `count` largest positive values of all rows, by sorting them.
pub(crate) fn batch_top_k(hidden: &[f32], b_enc: &[f32], count: usize) -> FeatureActs {
    let d_sae = b_enc.len();
    let pre: Vec<f32> = hidden.iter().enumerate().map(|(at, h)| h + b_enc[at % d_sae]).collect();
    let mut places: Vec<usize> = (0..pre.len()).filter(|&at| pre[at] > 0.0).collect();
    places.sort_by(|&a, &b| pre[b].total_cmp(&pre[a]).then(a.cmp(&b)));
    places.truncate(count);
    places.sort_unstable();
    let mut acts = FeatureActs::default();
    for row in 0..pre.len() / d_sae {
        for &at in places.iter().filter(|&&at| at / d_sae == row) {
            acts.latents.push((at % d_sae) as u32);
            acts.values.push(pre[at]);
        }
        acts.end_row();
    }
    acts
}

/// `f W_dec - x_c`. `[n, d_in]`
pub(crate) fn error(acts: &FeatureActs, w_dec: &[f32], x_c: &[f32], d_in: usize) -> Vec<f64> {
    let mut error: Vec<f64> = x_c.iter().map(|&x| -f64::from(x)).collect();
    for row in 0..acts.n_rows() {
        let (latents, values) = acts.row(row);
        for (&latent, &value) in latents.iter().zip(values) {
            for i in 0..d_in {
                error[row * d_in + i] += f64::from(value) * f64::from(w_dec[latent as usize * d_in + i]);
            }
        }
    }
    error
}

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

/// Mean squared error of the whole SAE, with the pattern of active latents given: the loss is smooth around a point
/// as long as the pattern stays.
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

/// Mean squared error of dead latents rebuilding the residual, without `b_dec`.
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
