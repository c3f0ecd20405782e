//! The formulas of the parent module as dense loops in f64, to compare the kernels with. Compiled for tests only.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::kernels::feature_acts::FeatureActs;

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
    let mut indices: Vec<usize> = (0..pre.len()).filter(|&at| pre[at] > 0.0).collect();
    indices.sort_by(|&a, &b| pre[b].total_cmp(&pre[a]).then(a.cmp(&b)));
    indices.truncate(count);
    indices.sort_unstable();
    let mut acts = FeatureActs::default();
    for row in 0..pre.len() / d_sae {
        for &at in indices.iter().filter(|&&at| at / d_sae == row) {
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
