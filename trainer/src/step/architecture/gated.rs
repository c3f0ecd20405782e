//! [`Gated`]: one path decides which latents are active, another how strongly. So the penalty that makes the first
//! sparse does not shrink the second (Rajamanoharan et al. 2024a, section 3). Both share the encoder's directions.
//!
//! ```text
//! pi = x_c W_enc^T + b_gate          f = 1[pi > 0] relu((x_c W_enc^T) exp(r_mag) + b_mag)
//! L  = mean |f W_dec + b_dec - x|^2 + c (1/n) sum_ij relu(pi_ij) + mean |relu(pi) W_dec' + b_dec' - x|^2
//! ```
//!
//! W_dec' and b_dec' are W_dec and b_dec held constant: the last term trains only the gate. b_gate is `b_enc` here.
//! With m = dL/df where f > 0, and g = dL/drelu(pi) of the last two terms:
//!
//! ```text
//! dL/dpi = g    dL/d(x_c W_enc^T) = g + m exp(r_mag)    db_mag = sum_i m    dr_mag = sum_i m (x_c W_enc^T) exp(r_mag)
//! ```

use rayon::prelude::*;

use super::relu::start_sparse;
use crate::{
    kernels::{decode::decode_error, feature_acts::FeatureActs, select},
    step::{
        encoder_pass::EncoderPass,
        gradients::Gradients,
        recipe::{Backward, Recipe},
        weights::{B_MAG, Parameter, R_MAG, Weights},
    },
};

#[derive(Debug, Default)]
pub(crate) struct Gated {
    k: usize,
    /// The positive entries of relu(pi).
    gate: FeatureActs,
    /// The gate's own reconstruction minus x. `[n, d_in]`
    error: Vec<f32>,
    df: Vec<f32>,
}

impl Gated {
    pub(crate) fn new(k: usize) -> Self {
        Self { k, ..Self::default() }
    }
}

impl Recipe for Gated {
    fn start(&self, d_sae: usize, mean: Vec<f32>, seed: u64) -> Weights {
        let extra = [R_MAG, B_MAG].map(|name| Parameter { name, values: vec![0.0; d_sae], lr_scale: 1.0 });
        Weights { extra: extra.into(), ..Weights::random(d_sae, mean, seed) }
    }

    /// Both paths start as the same ReLU.
    fn begin(&self, weights: &mut Weights, x_c: &[f32]) {
        start_sparse(weights, x_c, self.k);
        weights.extra[1].values.clone_from(&weights.b_enc);
    }

    fn first_coefficient(&self) -> f64 {
        1.0
    }

    fn select(&mut self, pass: &mut EncoderPass<'_>) {
        pass.run(|hidden, b_enc, acts| select::above(hidden, b_enc, select::Threshold::Global(0.0), acts));
        let weights = pass.weights;
        let (r_mag, b_mag) = (&weights.extra[0].values, &weights.extra[1].values);
        pass.timed_select(|acts| {
            self.gate.clone_from(acts);
            acts.values.par_iter_mut().zip(&acts.latents).with_min_len(4096).for_each(|(value, &latent)| {
                let latent = latent as usize;
                *value = ((*value - weights.b_enc[latent]) * r_mag[latent].exp() + b_mag[latent]).max(0.0);
            });
        });
    }

    fn backward(&mut self, step: Backward<'_>) -> f64 {
        let n = step.n();
        let Backward { weights, x_c, acts, by_latent, df, extra, coefficient, .. } = step;
        self.error.clear();
        self.error.extend(x_c.iter().map(|x| -x));
        let scale = (2.0 / n) as f32;
        decode_error(&self.gate, &weights.w_dec, &[weights.d_sae], scale, &mut self.error, &mut self.df);
        let (r_mag, b_gate) = (&weights.extra[0].values, &weights.b_enc);
        let (gate, df_f) = (&self.gate, &*df);
        let (g_r, g_b) = extra.split_at_mut(1);
        g_r[0].par_iter_mut().zip(&mut g_b[0]).enumerate().with_min_len(64).for_each(|(latent, (g_r, g_b))| {
            let entries = by_latent.entries(latent).iter().map(|&entry| entry as usize);
            let active = entries.filter(|&entry| acts.values[entry] > 0.0);
            let scale = r_mag[latent].exp();
            (*g_r, *g_b) = active.fold((0.0, 0.0), |(g_r, g_b), entry| {
                let m = df_f[entry];
                (g_r + m * (gate.values[entry] - b_gate[latent]) * scale, g_b + m)
            });
        });
        let penalty = (coefficient / n) as f32;
        df.par_iter_mut().enumerate().with_min_len(4096).for_each(|(entry, df)| {
            let m = if acts.values[entry] > 0.0 { *df * r_mag[acts.latents[entry] as usize].exp() } else { 0.0 };
            *df = m + self.df[entry] + penalty;
        });
        self.gate.values.iter().map(|&pi| f64::from(pi)).sum::<f64>() / n
    }

    /// The sum over dL/d(x_c W_enc^T) includes the magnitude path, which `b_gate` is not part of.
    fn finish_gradients(&self, weights: &Weights, gradients: &mut Gradients) {
        let Gradients { b_enc, extra, .. } = gradients;
        for ((b_gate, r_mag), g_b_mag) in b_enc.iter_mut().zip(&weights.extra[0].values).zip(&extra[1]) {
            *b_gate -= r_mag.exp() * g_b_mag;
        }
    }
}
