//! [`Weights`]: the parameters of an SAE while it is trained. A latent's encoder row and decoder row are both
//! contiguous, because everything after the encoder's product works latent by latent.

use harvester::simd::{Kernel, wide};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use crate::kernels::simd::sum_of_squares;

/// Names of the parameters that only some architectures have, also used in checkpoints.
pub(crate) const THRESHOLD: &str = "threshold";
pub(crate) const R_MAG: &str = "r_mag";
pub(crate) const B_MAG: &str = "b_mag";
pub(crate) const W_SKIP: &str = "w_skip";

/// `hidden_pre = (x - b_dec) W_enc^T + b_enc`, `x_hat = f W_dec + b_dec`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Weights {
    pub(crate) d_in: usize,
    /// Width of the reconstruction: `d_in`, except for a transcoder.
    pub(crate) d_out: usize,
    pub(crate) d_sae: usize,
    /// `[d_sae, d_in]`
    pub(crate) w_enc: Vec<f32>,
    /// `[d_sae]`
    pub(crate) b_enc: Vec<f32>,
    /// `[d_sae, d_out]`, rows of norm 1.
    pub(crate) w_dec: Vec<f32>,
    /// `[d_out]`
    pub(crate) b_dec: Vec<f32>,
    /// Parameters that only some architectures have.
    pub(crate) extra: Vec<Parameter>,
    /// Constant that centers the input instead of `b_dec`, if input and target differ (a transcoder). `[d_in]`
    pub(crate) b_in: Option<Vec<f32>>,
    /// Widths of the blocks of a decoder row, whose norms add up to 1: one block, except for a crosscoder.
    pub(crate) blocks: Vec<usize>,
}

/// A parameter that only some architectures have.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameter {
    /// Its name in checkpoints.
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f32>,
    /// Its learning rate, relative to that of the other parameters.
    pub(crate) lr_scale: f64,
}

/// Random streams of encoder and decoder; the shuffle's streams begin at 0.
const DECODER_STREAM: u64 = u64::MAX;
const ENCODER_STREAM: u64 = u64::MAX - 1;

impl Weights {
    /// Random decoder rows of norm 1. The encoder is the decoder's transpose (tied only at the start); its bias is 0.
    ///
    /// # Shapes
    /// `b_dec` `[d_in]`.
    pub(crate) fn random(d_sae: usize, b_dec: Vec<f32>, seed: u64) -> Self {
        let width = b_dec.len();
        Self::random_blocks(d_sae, b_dec, vec![width], seed)
    }

    /// The same for decoder rows of several blocks. The dot product of encoder row and decoder row is 1.
    ///
    /// # Shapes
    /// `b_dec` `[d_in]`, `blocks` `[n_blocks]`, which add up to `d_in`.
    pub(crate) fn random_blocks(d_sae: usize, b_dec: Vec<f32>, blocks: Vec<usize>, seed: u64) -> Self {
        let d_in = b_dec.len();
        let mut w_enc = random_rows(d_sae, d_in, seed, DECODER_STREAM);
        let mut w_dec = w_enc.clone();
        if blocks.len() > 1 {
            w_dec.par_chunks_exact_mut(d_in).for_each(|row| wide(Normalize(row, &blocks)));
            w_enc.par_chunks_exact_mut(d_in).zip(w_dec.par_chunks_exact(d_in)).for_each(|(w_enc, w_dec)| {
                let product = sum_of_squares(w_dec);
                w_enc.iter_mut().zip(w_dec).for_each(|(w_enc, w_dec)| *w_enc = w_dec / product);
            });
        }
        let b_enc = vec![0.0; d_sae];
        Self { d_in, d_out: d_in, d_sae, w_enc, b_enc, w_dec, b_dec, extra: Vec::new(), b_in: None, blocks }
    }

    /// Random weights of a transcoder, which maps vectors of mean `b_in` to vectors of mean `b_dec`. Encoder and
    /// decoder rows are independent, each of norm 1.
    ///
    /// # Shapes
    /// `b_in` `[d_in]`, `b_dec` `[d_out]`.
    pub(crate) fn random_map(d_sae: usize, b_in: Vec<f32>, b_dec: Vec<f32>, seed: u64) -> Self {
        let (d_in, d_out) = (b_in.len(), b_dec.len());
        Self {
            d_in,
            d_out,
            d_sae,
            w_enc: random_rows(d_sae, d_in, seed, ENCODER_STREAM),
            b_enc: vec![0.0; d_sae],
            w_dec: random_rows(d_sae, d_out, seed, DECODER_STREAM),
            b_dec,
            extra: Vec::new(),
            b_in: Some(b_in),
            blocks: vec![d_out],
        }
    }

    /// Width of a training row: the input, followed by the target if that differs from the input.
    pub(crate) fn row_width(&self) -> usize {
        self.b_in.as_ref().map_or(self.d_in, |b_in| b_in.len() + self.d_out)
    }

    /// The values of an extra parameter.
    pub(crate) fn extra(&self, name: &str) -> Option<&[f32]> {
        self.extra.iter().find(|parameter| parameter.name == name).map(|parameter| parameter.values.as_slice())
    }

    /// Takes the values of an extra parameter out.
    pub(crate) fn take_extra(&mut self, name: &str) -> Option<Vec<f32>> {
        let found = self.extra.iter_mut().find(|parameter| parameter.name == name);
        found.map(|parameter| std::mem::take(&mut parameter.values))
    }

    /// The values of an extra parameter, or an empty slice if there is none of this name.
    pub(crate) fn extra_mut(&mut self, name: &str) -> &mut [f32] {
        let found = self.extra.iter_mut().find(|parameter| parameter.name == name);
        found.map_or(&mut [], |parameter| parameter.values.as_mut_slice())
    }

    /// `[d_in]`
    #[inline(always)]
    pub(crate) fn encoder_row(&self, latent: usize) -> &[f32] {
        &self.w_enc[latent * self.d_in..][..self.d_in]
    }

    /// `[d_out]`
    #[inline(always)]
    pub(crate) fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec[latent * self.d_out..][..self.d_out]
    }
}

/// Scales a row `[d_out]` so that the norms of its blocks add up to 1. A zero row stays zero.
#[inline(always)]
pub(crate) fn normalize(row: &mut [f32], blocks: &[usize]) {
    let norm = norm_of_blocks(row, blocks);
    let inverse = if norm > 0.0 { 1.0 / norm } else { 1.0 };
    for value in row {
        *value *= inverse;
    }
}

/// The sum of the norms of the blocks of a row `[d_out]`.
#[inline(always)]
pub(crate) fn norm_of_blocks(row: &[f32], blocks: &[usize]) -> f32 {
    let mut norm = 0.0;
    let mut first = 0;
    for &block in blocks {
        norm += sum_of_squares(&row[first..first + block]).sqrt();
        first += block;
    }
    norm
}

struct Normalize<'a>(&'a mut [f32], &'a [usize]);

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        normalize(self.0, self.1);
    }
}

/// Rows of norm 1 in random directions. `[n, width]`
fn random_rows(n: usize, width: usize, seed: u64, stream: u64) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    let mut rows: Vec<f32> = (0..n * width).map(|_| normal(&mut random)).collect();
    rows.par_chunks_exact_mut(width).for_each(|row| wide(Normalize(row, &[width])));
    rows
}

/// A standard normal number (Box and Muller). The generator's stream of random numbers is specified, so the result
/// never changes.
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

    #[test]
    fn the_norms_of_blocks_add_up_to_one_and_rows_invert_each_other() {
        let weights = Weights::random_blocks(50, vec![0.0; 24], vec![10, 14], 3);
        for latent in 0..50 {
            let norm = |block: &[f32]| block.iter().map(|w| w * w).sum::<f32>().sqrt();
            let (first, second) = weights.decoder_row(latent).split_at(10);
            assert!((norm(first) + norm(second) - 1.0).abs() < 1e-5);
            let pairs = weights.decoder_row(latent).iter().zip(weights.encoder_row(latent));
            assert!((pairs.map(|(a, b)| a * b).sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
