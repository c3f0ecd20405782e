//! The same SAE with other weights: some formats store a parameter separately that others fold into the weights.
//!
//! ```text
//! (x - b_dec) W_enc^T + b_enc = x W_enc^T + (b_enc - b_dec W_enc^T)         b_dec subtracted from the input, or not
//! f W_dec = (f |W_dec|) (W_dec / |W_dec|)                                  decoder rows of norm 1, or not
//! ```

use std::borrow::Cow;

use super::{Nonlinearity, Sae, SaeWeights};
use crate::kernels::simd::{dot, multiply, sum_of_squares};

impl Sae {
    /// The same function with `b_dec` subtracted from the input, or not.
    pub(crate) fn applying_b_dec(&self, apply: bool) -> Cow<'_, Self> {
        if apply == self.config.apply_b_dec_to_input || self.config.d_in != self.config.d_out {
            return Cow::Borrowed(self);
        }
        let mut sae = self.clone();
        let sign = if apply { 1.0 } else { -1.0 };
        sae.config.apply_b_dec_to_input = apply;
        for (latent, w_enc) in self.weights.w_enc.chunks_exact(self.d_in()).enumerate() {
            let shift = sign * dot(&self.weights.b_dec, w_enc);
            sae.weights.b_enc[latent] += shift;
            if let Nonlinearity::Gated { r_mag, b_mag } = &mut sae.weights.nonlinearity {
                b_mag[latent] += shift * r_mag[latent].exp();
            }
        }
        Cow::Owned(sae)
    }
}

impl SaeWeights {
    /// The same reconstructions with decoder rows of norm 1. Activations and thresholds are multiplied by the old
    /// norms, so `topk` may select other latents: this is for formats that select by `f |W_dec|`. A row of zeros stays
    /// zero.
    #[must_use]
    pub(crate) fn with_unit_decoder(mut self) -> Self {
        let (d_out, d_sae) = (self.b_dec.len(), self.b_enc.len());
        let d_in = self.w_enc.len() / d_sae.max(1);
        for latent in 0..d_sae {
            let w_dec = &mut self.w_dec[latent * d_out..][..d_out];
            let norm = sum_of_squares(w_dec).sqrt();
            if norm == 0.0 {
                continue;
            }
            w_dec.iter_mut().for_each(|w| *w /= norm);
            multiply(&mut self.w_enc[latent * d_in..][..d_in], norm);
            self.b_enc[latent] *= norm;
            if let Some(values) = self.nonlinearity.in_activation_units() {
                values[latent] *= norm;
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::plain,
        sae::{Architecture, tests::example},
    };

    #[test]
    fn folded_weights_are_the_same_function() {
        let x = plain::random(40 * 12, 9);
        for architecture in Architecture::ALL {
            let sae = example(architecture, 12, 50);
            let (acts, x_hat) = sae.reconstruct(&x).expect("whole rows");
            let folded = sae.applying_b_dec(false);
            assert_ne!(folded.weights.b_enc, sae.weights.b_enc);
            let (other_acts, other) = folded.reconstruct(&x).expect("whole rows");
            assert_eq!(other_acts.latents, acts.latents, "{architecture}");
            assert!(other.iter().zip(&x_hat).all(|(a, b)| (a - b).abs() < 1e-4), "{architecture}");
            let back = folded.applying_b_dec(true);
            let pairs = || back.weights.b_enc.iter().zip(&sae.weights.b_enc);
            assert!(pairs().all(|(a, b)| (a - b).abs() < 1e-5), "{architecture}");
            if architecture != Architecture::TopK {
                let weights = sae.weights.clone().with_unit_decoder();
                let unit = Sae::new(sae.config.clone(), weights).expect("whole");
                let (_, unit) = unit.reconstruct(&x).expect("whole rows");
                assert!(unit.iter().zip(&x_hat).all(|(a, b)| (a - b).abs() < 1e-4), "{architecture}");
            }
        }
    }
}
