//! [`Sae::encode`]: activations to active latents. [`Encoder`]: the same for many blocks of rows, with buffers that stay.

use rayon::prelude::*;

use super::{Nonlinearity, Sae, SaeWeights};
use crate::{
    Error, Result,
    kernels::{
        feature_acts::FeatureActs,
        gated::gated,
        product::product_transposed,
        select::{self, Threshold},
    },
};

/// Pre-activations computed at a time, at most: 134 MB. With fewer rows at a time the product packs the weights more
/// often, which takes 4 % of its time at 1,024 rows.
const TILE: usize = 1 << 25;
/// Rows encoded at a time, at most. With more the product is not faster.
const ROWS_PER_TILE: usize = 4096;

/// Encodes blocks of rows. Its buffers stay from one block to the next: fresh memory of this size is cleared by the
/// system first.
#[derive(Debug)]
pub struct Encoder<'a> {
    sae: &'a Sae,
    buffers: Buffers,
}

/// Rows of a tile, and their pre-activations without bias. `[tile, d_in]`, `[tile, d_sae]`
#[derive(Debug, Default)]
struct Buffers {
    x: Vec<f32>,
    hidden: Vec<f32>,
}

impl<'a> Encoder<'a> {
    /// An encoder without buffers yet.
    pub fn new(sae: &'a Sae) -> Self {
        Self { sae, buffers: Buffers::default() }
    }

    /// Width of the rows.
    pub fn d_in(&self) -> usize {
        self.sae.d_in()
    }

    /// The active latents of `n` rows, as [`Sae::encode`] gives them. `read` writes the row of a number to a slice
    /// `[d_in]`.
    pub fn encode(&mut self, n: usize, read: impl Fn(usize, &mut [f32]) + Sync) -> FeatureActs {
        self.sae.encode_with((n, &read), &mut self.buffers)
    }
}

impl Sae {
    /// The active latents of each row of `x`.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn encode(&self, x: &[f32]) -> Result<FeatureActs> {
        self.check_rows(x)?;
        let d_in = self.d_in();
        Ok(Encoder::new(self).encode(x.len() / d_in, |row, to| to.copy_from_slice(&x[row * d_in..][..d_in])))
    }

    pub(super) fn check_rows(&self, x: &[f32]) -> Result<()> {
        let d_in = self.d_in();
        if x.len().is_multiple_of(d_in) {
            return Ok(());
        }
        let expected = format!("whole rows of d_in = {d_in} values");
        Err(Error::invalid("activations to encode", expected, format!("{} values", x.len())))
    }

    /// Encodes `n` rows, which `read` writes.
    fn encode_with(
        &self,
        (n, read): (usize, &(impl Fn(usize, &mut [f32]) + Sync)),
        buffers: &mut Buffers,
    ) -> FeatureActs {
        let SaeWeights { w_enc, b_enc, nonlinearity, .. } = &self.weights;
        let (d_in, n_latents) = (self.d_in(), b_enc.len());
        let tile = (TILE / n_latents.max(1)).clamp(1, ROWS_PER_TILE).min(n.max(1));
        let mut acts = FeatureActs::default();
        let Buffers { x, hidden } = buffers;
        x.resize(x.len().max(tile * d_in), 0.0);
        hidden.resize(hidden.len().max(tile * n_latents), 0.0);
        for start in (0..n).step_by(tile) {
            let rows = tile.min(n - start);
            let x = &mut x[..rows * d_in];
            x.par_chunks_exact_mut(d_in).enumerate().for_each(|(row, to)| {
                read(start + row, to);
                self.center(to);
            });
            let hidden = &mut hidden[..rows * n_latents];
            product_transposed(x, w_enc, d_in, hidden);
            select(nonlinearity, hidden, b_enc, &mut acts);
        }
        acts
    }

    /// Makes of a row the input of the encoder's product: normalized and without `b_dec`. `[d_in]`
    pub(super) fn center(&self, x: &mut [f32]) {
        self.config.input_norm.apply(x, self.d_in());
        if self.config.apply_b_dec_to_input {
            x.iter_mut().zip(&self.weights.b_dec).for_each(|(x, b)| *x -= b);
        }
    }
}

/// Appends the active latents of each row to `acts`.
///
/// # Shapes
/// For m latents, `hidden` `[n, m]`, without bias; `b_enc` and the parameters of `nonlinearity` `[m]`.
pub(super) fn select(nonlinearity: &Nonlinearity, hidden: &[f32], b_enc: &[f32], acts: &mut FeatureActs) {
    match nonlinearity {
        Nonlinearity::Standard => select::above(hidden, b_enc, Threshold::Global(0.0), acts),
        Nonlinearity::TopK { k } => select::top_k(hidden, b_enc, *k, acts),
        Nonlinearity::JumpRelu { threshold } => select::above(hidden, b_enc, Threshold::PerLatent(threshold), acts),
        Nonlinearity::Gated { r_mag, b_mag } => gated(hidden, b_enc, (r_mag, b_mag), acts),
        Nonlinearity::Dense => select::everything(hidden, b_enc, acts),
    }
}
