//! The same SAE in other weights: what one format keeps apart, another has folded into its weights.
//!
//! ```text
//! (x - b_dec) W_enc^T + b_enc = x W_enc^T + (b_enc - b_dec W_enc^T)         b_dec subtracted from the input, or not
//! f W_dec = (f |W_dec|) (W_dec / |W_dec|)                                  decoder rows of norm 1, or not
//! ```

use std::borrow::Cow;

use super::{Architecture, Gate, Sae};
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
        for (latent, w_enc) in self.w_enc.chunks_exact(self.d_in()).enumerate() {
            let shift = sign * dot(&self.b_dec, w_enc);
            sae.b_enc[latent] += shift;
            if let Some(Gate { r_mag, b_mag }) = &mut sae.gate {
                b_mag[latent] += shift * r_mag[latent].exp();
            }
        }
        Cow::Owned(sae)
    }

    /// The same reconstructions from decoder rows of norm 1. Activations and thresholds are multiplied by what the
    /// norms were, so that of `topk` other latents may be selected: it is for formats that select by
    /// `f |W_dec|`. A row of zeros stays.
    pub(crate) fn with_unit_decoder(mut self) -> Self {
        let (d_in, d_out) = (self.config.d_in, self.config.d_out);
        for latent in 0..self.d_sae() {
            let w_dec = &mut self.w_dec[latent * d_out..][..d_out];
            let norm = sum_of_squares(w_dec).sqrt();
            if norm == 0.0 {
                continue;
            }
            w_dec.iter_mut().for_each(|w| *w /= norm);
            multiply(&mut self.w_enc[latent * d_in..][..d_in], norm);
            self.b_enc[latent] *= norm;
            if let Some(threshold) = &mut self.threshold {
                threshold[latent] *= norm;
            }
            if let Some(gate) = &mut self.gate {
                gate.b_mag[latent] *= norm;
            }
        }
        self
    }

    /// The thresholds of its latents, none of them below zero: those of `standard` are zero. `None` where it is neither
    /// that nor `jumprelu`.
    pub(crate) fn thresholds(&self) -> Option<Vec<f32>> {
        match (self.config.architecture, &self.threshold) {
            (Architecture::Standard, _) => Some(vec![0.0; self.d_sae()]),
            (Architecture::JumpRelu, Some(threshold)) => Some(threshold.iter().map(|t| t.max(0.0)).collect()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{kernels::plain, sae::tests::example};

    #[test]
    fn folded_weights_are_the_same_function() {
        let x = plain::random(40 * 12, 9);
        for architecture in Architecture::ALL {
            let sae = example(architecture, 12, 50);
            let (acts, x_hat) = sae.reconstruct(&x).expect("whole rows");
            let folded = sae.applying_b_dec(false);
            assert_ne!(folded.b_enc, sae.b_enc);
            let (other_acts, other) = folded.reconstruct(&x).expect("whole rows");
            assert_eq!(other_acts.latents, acts.latents, "{architecture}");
            assert!(other.iter().zip(&x_hat).all(|(a, b)| (a - b).abs() < 1e-4), "{architecture}");
            let back = folded.applying_b_dec(true);
            assert!(back.b_enc.iter().zip(&sae.b_enc).all(|(a, b)| (a - b).abs() < 1e-5), "{architecture}");
            if architecture != Architecture::TopK {
                let (_, unit) = sae.clone().with_unit_decoder().reconstruct(&x).expect("whole rows");
                assert!(unit.iter().zip(&x_hat).all(|(a, b)| (a - b).abs() < 1e-4), "{architecture}");
            }
        }
    }
}
