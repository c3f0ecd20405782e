//! [`Control`]: a dictionary of random directions, of the same size as the SAE's and with as many latents active on
//! each token. What its latents seem to mean is the chance level for those of the SAE.
//!
//! ```text
//! W_dec[j] = g / |g|, g ~ N(0, 1)      W_enc = W_dec      b_enc = 0      f = the n largest of relu(x' W_enc^T)
//! n        = number of the SAE's active latents on the same token
//! ```

use rayon::prelude::*;
use trainer::{FeatureActs, HookPoints, Nonlinearity, Sae};

use super::context_sample::mixed;
use crate::Result;

/// A random dictionary.
#[derive(Debug)]
pub(crate) struct Control {
    /// Its k is the largest number of latents that a token has had so far.
    sae: Option<Sae>,
}

impl Control {
    /// The random dictionary of the size and the input of `sae`.
    pub(crate) fn of(sae: &Sae) -> Result<Self> {
        let (mut config, mut weights) = sae.clone().into_parts();
        let width = config.d_in;
        weights.w_enc.par_chunks_exact_mut(width).enumerate().for_each(|(latent, row)| {
            for (i, weight) in row.iter_mut().enumerate() {
                *weight = normal((latent * width + i) as u64);
            }
            let norm = row.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>().sqrt() as f32;
            row.iter_mut().for_each(|weight| *weight /= norm);
        });
        weights.w_dec.clone_from(&weights.w_enc);
        weights.b_enc.fill(0.0);
        weights.nonlinearity = Nonlinearity::TopK { k: 1 };
        weights.w_skip = None;
        if config.d_out != width {
            weights.b_dec = vec![0.0; width];
            config.d_out = width;
        }
        config.hook_points = HookPoints::Autoencoder(config.hook_points.reads().first().copied());
        Ok(Self { sae: Some(Sae::new(config, weights)?) })
    }

    /// The `n[row]` strongest latents of each row of `x`. `[rows, d_in]`
    pub(crate) fn encode(&mut self, x: &[f32], n: &[usize]) -> Result<FeatureActs> {
        let most = n.iter().copied().max().unwrap_or(0);
        let sae = self.sae.take().expect("it is put back below");
        let sae = if sae.nonlinearity().k() < Some(most) {
            let (config, weights) = sae.into_parts();
            let nonlinearity = Nonlinearity::TopK { k: most };
            Sae::new(config, trainer::SaeWeights { nonlinearity, ..weights })?
        } else {
            sae
        };
        let all = sae.encode(x)?;
        self.sae = Some(sae);
        let mut kept = FeatureActs::default();
        for (row, &n) in n.iter().enumerate() {
            let (latents, values) = all.row(row);
            let weakest = nth_largest(values, n);
            let before = kept.latents.len();
            for (&latent, &value) in latents.iter().zip(values) {
                if value >= weakest && kept.latents.len() - before < n {
                    kept.latents.push(latent);
                    kept.values.push(value);
                }
            }
            kept.offsets.push(kept.latents.len());
        }
        Ok(kept)
    }
}

/// The `n`th largest value, counted from 1; the smallest number if there are fewer, infinity for `n` of 0.
fn nth_largest(values: &[f32], n: usize) -> f32 {
    if n == 0 || n > values.len() {
        return if n == 0 { f32::INFINITY } else { f32::MIN };
    }
    let mut values = values.to_vec();
    *values.select_nth_unstable_by(n - 1, |a, b| b.total_cmp(a)).1
}

/// A standard normal number (Box and Muller), a function of its number only.
pub(super) fn normal(number: u64) -> f32 {
    let uniform = |stream: u64| (mixed(mixed(number) ^ stream) >> 11) as f64 / (1u64 << 53) as f64;
    let radius = (-2.0 * (1.0 - uniform(1)).ln()).sqrt();
    (radius * (std::f64::consts::TAU * uniform(2)).cos()) as f32
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use trainer::{SaeConfig, SaeWeights};

    use super::*;

    #[test]
    fn it_has_unit_rows_and_as_many_latents_as_asked_for() {
        let (d_in, d_sae) = (24, 200);
        let weights = SaeWeights {
            w_enc: vec![0.5; d_sae * d_in],
            b_enc: vec![1.0; d_sae],
            nonlinearity: Nonlinearity::JumpRelu { threshold: vec![0.1; d_sae] },
            w_dec: vec![0.5; d_sae * d_in],
            b_dec: vec![0.25; d_in],
            w_skip: None,
        };
        let mut control = Control::of(&Sae::new(SaeConfig::new(d_in, d_sae), weights).unwrap()).unwrap();
        let rows = control.sae.as_ref().unwrap().w_dec().to_vec();
        for row in rows.chunks(d_in) {
            assert!((row.iter().map(|w| w * w).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        let mean = rows.iter().sum::<f32>() / rows.len() as f32;
        assert!(mean.abs() < 0.01, "{mean}");
        let x: Vec<f32> = (0..3 * d_in).map(|i| normal(i as u64 + 99)).collect();
        let acts = control.encode(&x, &[2, 0, 7]).unwrap();
        assert_eq!([0, 1, 2].map(|row| acts.row(row).0.len()), [2, 0, 7]);
        // The seven strongest of the third row, by hand.
        let x = &x[2 * d_in..];
        let mut by_hand: Vec<(f32, u32)> = rows
            .chunks(d_in)
            .zip(0..)
            .map(|(row, latent)| (row.iter().zip(x).map(|(w, x)| w * (x - 0.25)).sum(), latent))
            .collect();
        by_hand.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut strongest: Vec<u32> = by_hand[..7].iter().map(|(_, latent)| *latent).collect();
        strongest.sort_unstable();
        assert_eq!(acts.row(2).0, strongest);
    }
}
