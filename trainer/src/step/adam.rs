//! `Adam`: the optimizer, fused so that each latent's weights and moments pass through memory once per step.
//!
//! ```text
//! m = beta1 m + (1 - beta1) g          m_hat = m / (1 - beta1^t)
//! v = beta2 v + (1 - beta2) g^2        v_hat = v / (1 - beta2^t)
//! w = w - lr m_hat / (sqrt(v_hat) + eps)
//! ```
//!
//! With Nesterov's momentum (Dozat 2016) the mean looks one step ahead:
//!
//! ```text
//! m_hat = beta1 m / (1 - beta1^(t+1)) + (1 - beta1) g / (1 - beta1^t)
//! ```
//!
//! Encoder rows shrink by 1 - lr weight_decay before their step (Loshchilov and Hutter 2019); decoder rows have norm 1
//! anyway, and biases do not shrink. The results equal torch.optim.Adam's and optax.nadamw's: moments of latents
//! without a gradient decay, and still move the weights. After its update a decoder row is scaled back to norm 1 (for a
//! crosscoder, the norms of its blocks are scaled to add up to 1). The moments are plain vectors, so a run can be
//! saved.

use std::str::FromStr;

use harvester::simd::{Kernel, wide};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    step::{
        gradients::Gradients,
        weights::{Weights, normalize},
    },
};

/// Latents that one task updates.
const LATENTS_PER_TASK: usize = 16;

/// Constants of the optimizer. The learning rate comes from the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamConfig {
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// True: use Nesterov's momentum. A recorded run without this setting had none.
    #[serde(default)]
    pub nesterov: bool,
}

impl FromStr for AdamConfig {
    type Err = Error;

    /// The defaults, with (`nadam`) or without (`adam`) Nesterov's momentum.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "nadam" | "adam" => Ok(Self { nesterov: text == "nadam", ..Self::default() }),
            _ => Err(Error::invalid("optimizer", "nadam or adam", format!("`{text}`"))),
        }
    }
}

impl Default for AdamConfig {
    /// beta1 0.9, beta2 0.999, eps 1e-8 (Kingma and Ba, section 2); Nesterov's momentum, which gave better results
    /// (this crate's README, quality).
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, nesterov: true }
    }
}

/// First and second moment of one parameter tensor.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Moments {
    pub(crate) m: Vec<f32>,
    pub(crate) v: Vec<f32>,
}

impl Moments {
    fn zeros(n: usize) -> Self {
        Self { m: vec![0.0; n], v: vec![0.0; n] }
    }
}

/// Moments of all parameters, and the number of steps taken.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Adam {
    pub(crate) config: AdamConfig,
    /// Share by which the encoder's weights shrink per step, per unit of learning rate.
    pub(crate) weight_decay: f64,
    pub(crate) step: u64,
    pub(crate) w_enc: Moments,
    pub(crate) b_enc: Moments,
    pub(crate) w_dec: Moments,
    pub(crate) b_dec: Moments,
    /// Moments of [`Weights::extra`], in its order.
    pub(crate) extra: Vec<Moments>,
}

impl Adam {
    pub(crate) fn new(config: AdamConfig, weight_decay: f64, weights: &Weights) -> Self {
        let of = |values: &[f32]| Moments::zeros(values.len());
        Self {
            config,
            weight_decay,
            step: 0,
            w_enc: of(&weights.w_enc),
            b_enc: of(&weights.b_enc),
            w_dec: of(&weights.w_dec),
            b_dec: of(&weights.b_dec),
            extra: weights.extra.iter().map(|parameter| of(&parameter.values)).collect(),
        }
    }

    /// One step; `gradient_scale` multiplies every gradient (clipping).
    pub(crate) fn update(&mut self, weights: &mut Weights, gradients: &Gradients, lr: f64, gradient_scale: f32) {
        self.step += 1;
        let rates = Rates::at(self.config, self.step, lr, gradient_scale);
        let (d_in, d_out) = (weights.d_in, weights.d_out);
        let encoder_rates = Rates { keep: (1.0 - lr * self.weight_decay) as f32, ..rates };
        let encoder = Rows::split(&mut weights.w_enc, &mut self.w_enc, &gradients.w_enc, LATENTS_PER_TASK * d_in);
        let decoder = Rows::split(&mut weights.w_dec, &mut self.w_dec, &gradients.w_dec, LATENTS_PER_TASK * d_out);
        let biases = Rows::split(&mut weights.b_enc, &mut self.b_enc, &gradients.b_enc, LATENTS_PER_TASK);
        let tasks: Vec<_> = encoder.into_iter().zip(decoder).zip(biases).enumerate().collect();
        tasks.into_par_iter().for_each(|(task, ((encoder, decoder), biases))| {
            let inactive = &gradients.inactive[task * LATENTS_PER_TASK..];
            wide(UpdateLatents {
                encoder_rates,
                rates,
                d_in,
                blocks: &weights.blocks,
                encoder,
                decoder,
                biases,
                inactive,
            });
        });
        wide(UpdateVector { rates, vector: Rows::whole(&mut weights.b_dec, &mut self.b_dec, &gradients.b_dec) });
        for ((parameter, moments), g) in weights.extra.iter_mut().zip(&mut self.extra).zip(&gradients.extra) {
            let rates = Rates::at(self.config, self.step, parameter.lr_scale * lr, gradient_scale);
            wide(UpdateVector { rates, vector: Rows::whole(&mut parameter.values, moments, g) });
        }
    }
}

/// Some rows of one parameter, its moments and its gradient.
struct Rows<'a> {
    w: &'a mut [f32],
    m: &'a mut [f32],
    v: &'a mut [f32],
    g: &'a [f32],
}

impl<'a> Rows<'a> {
    fn whole(w: &'a mut [f32], moments: &'a mut Moments, g: &'a [f32]) -> Self {
        Self { w, m: &mut moments.m, v: &mut moments.v, g }
    }

    fn split(w: &'a mut [f32], moments: &'a mut Moments, g: &'a [f32], width: usize) -> Vec<Self> {
        let moments = moments.m.chunks_mut(width).zip(moments.v.chunks_mut(width));
        let rows = w.chunks_mut(width).zip(moments).zip(g.chunks(width));
        rows.map(|((w, (m, v)), g)| Self { w, m, v, g }).collect()
    }

    /// Row `i`: its weights, first and second moments, and gradient. Each `[width]`
    #[inline(always)]
    fn row(&mut self, i: usize, width: usize) -> (&mut [f32], &mut [f32], &mut [f32], &[f32]) {
        let row = i * width..(i + 1) * width;
        (&mut self.w[row.clone()], &mut self.m[row.clone()], &mut self.v[row.clone()], &self.g[row])
    }
}

/// The update of some latents.
struct UpdateLatents<'a> {
    encoder_rates: Rates,
    /// For all parameters except the encoder's rows.
    rates: Rates,
    d_in: usize,
    /// Widths of the blocks of a decoder row.
    blocks: &'a [usize],
    encoder: Rows<'a>,
    decoder: Rows<'a>,
    biases: Rows<'a>,
    inactive: &'a [bool],
}

impl Kernel for UpdateLatents<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { encoder_rates, rates, d_in, blocks, mut encoder, mut decoder, biases, inactive } = self;
        let d_out = blocks.iter().sum();
        for (i, &inactive) in inactive.iter().take(biases.w.len()).enumerate() {
            let (w, m, v, g) = encoder.row(i, d_in);
            encoder_rates.apply(w, m, v, (!inactive).then_some(g));
            let (w, m, v, g) = decoder.row(i, d_out);
            rates.apply(w, m, v, (!inactive).then_some(g));
            normalize(w, blocks);
        }
        UpdateVector { rates, vector: biases }.run();
    }
}

/// The update of one vector whose gradient is complete.
struct UpdateVector<'a> {
    rates: Rates,
    vector: Rows<'a>,
}

impl Kernel for UpdateVector<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Rows { w, m, v, g } = self.vector;
        self.rates.apply(w, m, v, Some(g));
    }
}

/// Factors that all parameters share in one step.
#[derive(Debug, Clone, Copy)]
struct Rates {
    beta1: f32,
    beta2: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    /// Factor of `m` in the change of a weight: lr times its factor in m_hat.
    of_mean: f32,
    /// Factor of the gradient itself; 0 without Nesterov's momentum.
    of_gradient: f32,
    /// 1 / sqrt(1 - beta2^t)
    inverse_root: f32,
    eps: f32,
    gradient_scale: f32,
    /// Factor of the old weight: 1 minus its decay.
    keep: f32,
}

impl Rates {
    fn at(config: AdamConfig, step: u64, lr: f64, gradient_scale: f32) -> Self {
        let AdamConfig { beta1, beta2, eps, nesterov } = config;
        let t = step as f64;
        let (of_mean, of_gradient) = match nesterov {
            true => (beta1 / (1.0 - beta1.powf(t + 1.0)), (1.0 - beta1) / (1.0 - beta1.powf(t))),
            false => (1.0 / (1.0 - beta1.powf(t)), 0.0),
        };
        Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            one_minus_beta1: (1.0 - beta1) as f32,
            one_minus_beta2: (1.0 - beta2) as f32,
            of_mean: (lr * of_mean) as f32,
            of_gradient: (lr * of_gradient) as f32,
            inverse_root: (1.0 / (1.0 - beta2.powf(t)).sqrt()) as f32,
            eps: eps as f32,
            gradient_scale,
            keep: 1.0,
        }
    }

    /// Updates one row; `None` is a zero gradient.
    #[inline(always)]
    fn apply(self, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: Option<&[f32]>) {
        // Giving all slices the same length first removes every bounds check. `for`, because a closure is not inlined.
        let n = w.len();
        let (m, v) = (&mut m[..n], &mut v[..n]);
        if let Some(g) = g {
            let g = &g[..n];
            for i in 0..n {
                let g = g[i] * self.gradient_scale;
                m[i] = self.one_minus_beta1.mul_add(g, self.beta1 * m[i]);
                v[i] = (self.one_minus_beta2 * g).mul_add(g, self.beta2 * v[i]);
                w[i] = self.keep.mul_add(w[i], -self.change(m[i], g, v[i]));
            }
        } else {
            for i in 0..n {
                m[i] *= self.beta1;
                v[i] *= self.beta2;
                w[i] = self.keep.mul_add(w[i], -self.change(m[i], 0.0, v[i]));
            }
        }
    }

    #[inline(always)]
    fn change(self, m: f32, g: f32, v: f32) -> f32 {
        self.of_mean.mul_add(m, self.of_gradient * g) / v.sqrt().mul_add(self.inverse_root, self.eps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It moves by lr, or with Nesterov's momentum by lr (1 + beta1 / (1 + beta1)), as t is 1.
    #[test]
    fn the_first_step_is_against_the_sign_of_the_gradient() {
        for (nesterov, change) in [(false, 0.1), (true, 0.1 * (1.0 + 0.9 / 1.9))] {
            let (mut w, mut m, mut v) = ([1.0, 1.0, 1.0], [0.0; 3], [0.0; 3]);
            let config = AdamConfig { nesterov, ..AdamConfig::default() };
            Rates::at(config, 1, 0.1, 1.0).apply(&mut w, &mut m, &mut v, Some(&[5.0, -0.01, 0.0]));
            for (w, expected) in w.iter().zip([1.0 - change, 1.0 + change, 1.0]) {
                assert!((w - expected).abs() < 1e-6, "{w} is not {expected}");
            }
        }
    }

    #[test]
    fn a_run_recorded_before_nesterovs_momentum_had_none() {
        let recorded = serde_json::from_str::<AdamConfig>(r#"{"beta1": 0.9, "beta2": 0.999, "eps": 1e-8}"#);
        assert!(recorded.is_ok_and(|config| !config.nesterov));
    }

    #[test]
    fn a_zero_gradient_and_no_gradient_are_the_same() {
        let start = ([1.0f32, -2.0], [0.3f32, -0.1], [0.5f32, 0.2]);
        let rates = Rates::at(AdamConfig::default(), 7, 0.01, 1.0);
        let (mut zero, mut none) = (start, start);
        rates.apply(&mut zero.0, &mut zero.1, &mut zero.2, Some(&[0.0, 0.0]));
        rates.apply(&mut none.0, &mut none.1, &mut none.2, None);
        assert_eq!(zero, none);
    }
}
