//! [`Matryoshka`]: BatchTopK with a loss for each of several prefixes of the dictionary (Bussmann et al. 2025). The
//! first latents must reconstruct as well as they can alone, so they stay general, and later ones refine them.
//!
//! ```text
//! L = (1/G) sum_g (1/n) sum_i |f_i[..m_g] W_dec[..m_g] + b_dec - x_i|^2        m_1 < .. < m_G = d_sae
//! ```
//!
//! The mean over prefixes, as in dictionary_learning, keeps the loss in the same units as that of the other
//! architectures; SAELens uses the sum.

use super::batch_topk::BatchTopK;
use crate::step::{encoder_pass::EncoderPass, recipe::Recipe};

#[derive(Debug)]
pub(crate) struct Matryoshka {
    selection: BatchTopK,
    /// Ends of the prefixes, ascending; the last one is d_sae.
    prefixes: Vec<usize>,
}

impl Matryoshka {
    pub(crate) fn new(k: usize, prefixes: Vec<usize>) -> Self {
        Self { selection: BatchTopK::new(k), prefixes }
    }
}

impl Recipe for Matryoshka {
    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        self.selection.select(pass);
    }

    fn prefixes(&self, _d_sae: usize) -> Vec<usize> {
        self.prefixes.clone()
    }
}
