//! [`Weights`]: the parameters of an SAE while it is trained. A latent's encoder row and decoder row are both
//! contiguous, since after the encoder's product everything works latent by latent.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::kernels::simd::{Kernel, sum_of_squares, wide};

/// `hidden_pre = (x - b_dec) W_enc^T + b_enc`, `x_hat = f W_dec + b_dec`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Weights {
    pub(crate) d_in: usize,
    pub(crate) d_sae: usize,
    /// `[d_sae, d_in]`
    pub(crate) w_enc: Vec<f32>,
    /// `[d_sae]`
    pub(crate) b_enc: Vec<f32>,
    /// `[d_sae, d_in]`, rows of norm 1.
    pub(crate) w_dec: Vec<f32>,
    /// `[d_in]`
    pub(crate) b_dec: Vec<f32>,
}

impl Weights {
    /// Random decoder rows of norm 1, the encoder its transpose (tied at the start only), no encoder bias.
    pub(crate) fn random(d_sae: usize, b_dec: Vec<f32>, seed: u64) -> Self {
        let d_in = b_dec.len();
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::MAX); // the shuffle's streams begin at 0
        let mut w_dec: Vec<f32> = (0..d_sae * d_in).map(|_| normal(&mut random)).collect();
        w_dec.par_chunks_exact_mut(d_in).for_each(|row| wide(Normalise(row)));
        Self { d_in, d_sae, w_enc: w_dec.clone(), b_enc: vec![0.0; d_sae], w_dec, b_dec }
    }

    #[inline(always)]
    pub(crate) fn encoder_row(&self, latent: usize) -> &[f32] {
        &self.w_enc[latent * self.d_in..][..self.d_in]
    }

    #[inline(always)]
    pub(crate) fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec[latent * self.d_in..][..self.d_in]
    }
}

/// row / |row|; a zero row stays.
#[inline(always)]
pub(crate) fn normalise(row: &mut [f32]) {
    let norm = sum_of_squares(row).sqrt();
    let inverse = if norm > 0.0 { 1.0 / norm } else { 1.0 };
    for value in row {
        *value *= inverse;
    }
}

struct Normalise<'a>(&'a mut [f32]);

impl Kernel for Normalise<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        normalise(self.0);
    }
}

/// A standard normal number (Box and Muller), from a generator whose stream is specified.
fn normal(random: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.random::<f64>()).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_norm_one_and_the_seed_decides() {
        let weights = Weights::random(50, vec![0.0; 24], 3);
        for latent in 0..50 {
            let norm: f32 = weights.decoder_row(latent).iter().map(|w| w * w).sum();
            assert!((norm - 1.0).abs() < 1e-5);
        }
        assert_eq!(weights, Weights::random(50, vec![0.0; 24], 3));
        assert_ne!(weights, Weights::random(50, vec![0.0; 24], 4));
    }
}
