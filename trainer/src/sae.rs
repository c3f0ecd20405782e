//! [`Sae`]: a finished sparse autoencoder: turns activations into features and back. Used by every later stage; on
//! disk it is SAELens' folder, and those of other tools are read too (`formats`).
//!
//! ```text
//! x'         = input_norm(x) - b_dec
//! hidden_pre = x' W_enc^T + b_enc
//! f          = topk: the k largest of relu(hidden_pre);  jumprelu: hidden_pre where it exceeds threshold;  relu
//!              gated: relu(x' W_enc^T exp(r_mag) + b_mag) where hidden_pre > 0;  dense: hidden_pre
//! x_hat      = input_norm^-1(f W_dec + b_dec) + x W_skip^T
//! ```
//!
//! A transcoder is the same with an `x_hat` of another place, without `b_dec` in the first line; a crosscoder reads
//! and rebuilds several places, one after the other in `x`.

mod check;
mod config;
mod fold;
pub(crate) mod input_norm;
pub(crate) mod metrics;

pub use self::config::{Architecture, SaeConfig};
use crate::{
    Error, Result,
    kernels::{
        decode::add_decoded,
        feature_acts::FeatureActs,
        gated::gated,
        product::{add_product_transposed, product_transposed},
        select::{self, Threshold},
    },
};

/// Rows encoded at a time: bounds the memory, and costs the product little.
const ROWS_PER_TILE: usize = 1024;

/// What a gated SAE has beside its gate, whose bias is `b_enc`.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Logarithm of what the product is multiplied by for the magnitude. `[d_sae]`
    pub r_mag: Vec<f32>,
    /// Bias of the magnitude. `[d_sae]`
    pub b_mag: Vec<f32>,
}

/// A sparse autoencoder. Inputs and outputs are raw harvested activations: any scale used in training is folded in.
#[derive(Debug, Clone, PartialEq)]
pub struct Sae {
    /// What it is.
    pub config: SaeConfig,
    /// A latent a row (on disk the other way round). `[d_sae, d_in]`
    pub w_enc: Vec<f32>,
    /// `[d_sae]`
    pub b_enc: Vec<f32>,
    /// A latent a row. `[d_sae, d_out]`
    pub w_dec: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// Of `jumprelu` only. `[d_sae]`
    pub threshold: Option<Vec<f32>>,
    /// Of `gated` only.
    pub gate: Option<Gate>,
    /// What is added of the input without passing a latent. `[d_out, d_in]`
    pub w_skip: Option<Vec<f32>>,
}

impl Sae {
    /// Width of the activations that it reads.
    pub fn d_in(&self) -> usize {
        self.config.d_in
    }

    /// Width of what it rebuilds.
    pub fn d_out(&self) -> usize {
        self.config.d_out
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.config.d_sae
    }

    /// The direction that `latent` writes, in normalised activations where there is an `input_norm`. `[d_out]`
    pub fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec[latent * self.d_out()..][..self.d_out()]
    }

    /// The direction that `latent` reads. `[d_in]`
    pub fn encoder_row(&self, latent: usize) -> &[f32] {
        &self.w_enc[latent * self.d_in()..][..self.d_in()]
    }

    /// The active latents of each row of `x`.
    ///
    /// # Shapes
    /// `x` `[n, d_in]`, row-major.
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn encode(&self, x: &[f32]) -> Result<FeatureActs> {
        let (d_in, d_sae) = (self.d_in(), self.d_sae());
        if !x.len().is_multiple_of(d_in) {
            let expected = format!("whole rows of d_in = {d_in} values");
            return Err(Error::invalid("activations to encode", expected, format!("{} values", x.len())));
        }
        let mut acts = FeatureActs::default();
        let mut hidden = vec![0.0; ROWS_PER_TILE.min(x.len() / d_in) * d_sae];
        for x in x.chunks(ROWS_PER_TILE * d_in) {
            let hidden = &mut hidden[..x.len() / d_in * d_sae];
            product_transposed(&self.centred(x), &self.w_enc, d_in, hidden);
            self.select(hidden, &mut acts);
        }
        Ok(acts)
    }

    /// The active latents of each row of `x`, and the row that they rebuild.
    ///
    /// # Shapes
    /// `x` `[n, d_in]` -> x_hat `[n, d_out]`
    ///
    /// # Errors
    /// When `x` is not a whole number of rows.
    pub fn reconstruct(&self, x: &[f32]) -> Result<(FeatureActs, Vec<f32>)> {
        let acts = self.encode(x)?;
        let mut x_hat = self.decode(&acts);
        self.config.input_norm.undo(x, &mut x_hat, self.d_out());
        if let Some(w_skip) = &self.w_skip {
            add_product_transposed(x, w_skip, self.d_in(), &mut x_hat);
        }
        Ok((acts, x_hat))
    }

    /// `f W_dec + b_dec` for each row of `acts`. `[n, d_out]` What depends on the row encoded is not in it: its norm
    /// and a skip connection, which [`Sae::reconstruct`] has.
    pub fn decode(&self, acts: &FeatureActs) -> Vec<f32> {
        let mut x_hat = self.b_dec.repeat(acts.n_rows());
        add_decoded(acts, &self.w_dec, self.d_out(), &mut x_hat);
        x_hat
    }

    /// What the encoder's product is made with. `[n, d_in]` both
    fn centred(&self, x: &[f32]) -> Vec<f32> {
        let mut x = x.to_vec();
        self.config.input_norm.apply(&mut x, self.d_in());
        if self.config.apply_b_dec_to_input {
            x.iter_mut().zip(self.b_dec.iter().cycle()).for_each(|(x, b)| *x -= b);
        }
        x
    }

    fn select(&self, hidden: &[f32], acts: &mut FeatureActs) {
        match (self.config.architecture, &self.threshold, &self.gate) {
            (Architecture::TopK, ..) => {
                select::top_k(hidden, &self.b_enc, self.config.k.unwrap_or(self.d_sae()), acts);
            }
            (Architecture::Gated, _, Some(gate)) => {
                gated(hidden, &self.b_enc, (&gate.r_mag, &gate.b_mag), acts);
            }
            (Architecture::Dense, ..) => select::everything(hidden, &self.b_enc, acts),
            (_, Some(threshold), _) => select::above(hidden, &self.b_enc, Threshold::PerLatent(threshold), acts),
            (_, None, _) => select::above(hidden, &self.b_enc, Threshold::Global(0.0), acts),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use harvester::HookPoint;

    use super::*;
    use crate::{kernels::plain, sae::input_norm::InputNorm};

    /// Random weights.
    pub(crate) fn example(architecture: Architecture, d_in: usize, d_sae: usize) -> Sae {
        let positive = |seed| plain::random(d_sae, seed).iter().map(|t| t.abs()).collect();
        let gate = || Gate { r_mag: plain::random(d_sae, 6), b_mag: plain::random(d_sae, 7) };
        Sae {
            config: SaeConfig {
                k: (architecture == Architecture::TopK).then_some(4),
                hook_point: Some(HookPoint::resid_post(3)),
                model_name: "tiny".into(),
                ctx_len: Some(256),
                dataset: "made up".into(),
                ..SaeConfig::new(architecture, d_in, d_sae)
            },
            w_enc: plain::random(d_sae * d_in, 1),
            b_enc: plain::random(d_sae, 2),
            w_dec: plain::random(d_sae * d_in, 3),
            b_dec: plain::random(d_in, 4),
            threshold: (architecture == Architecture::JumpRelu).then(|| positive(5)),
            gate: (architecture == Architecture::Gated).then(gate),
            w_skip: None,
        }
    }

    #[test]
    fn a_row_is_encoded_and_decoded_alike_alone_and_in_a_batch() {
        for architecture in Architecture::ALL {
            for (norm, skip) in [(InputNorm::None, true), (InputNorm::LayerNorm { eps: 1e-5 }, false)] {
                let mut sae = example(architecture, 24, 100);
                sae.config.input_norm = norm;
                sae.w_skip = skip.then(|| plain::random(24 * 24, 8));
                let x = plain::random(1500 * 24, 9); // more than a tile
                let (all, x_hat) = sae.reconstruct(&x).expect("whole rows");
                for row in [0, 700, 1023, 1024, 1499] {
                    let (one, one_hat) = sae.reconstruct(&x[row * 24..(row + 1) * 24]).expect("one row");
                    assert_eq!(one.row(0), all.row(row), "{architecture}, row {row}");
                    assert_eq!(one_hat, x_hat[row * 24..(row + 1) * 24]);
                }
            }
        }
    }

    #[test]
    fn jumprelu_keeps_what_exceeds_its_threshold() {
        let sae = example(Architecture::JumpRelu, 8, 20);
        let x = plain::random(8, 9);
        let acts = sae.encode(&x).expect("one row");
        for latent in 0..20 {
            let pre: f32 =
                sae.b_enc[latent] + (0..8).map(|i| (x[i] - sae.b_dec[i]) * sae.w_enc[latent * 8 + i]).sum::<f32>();
            let threshold = sae.threshold.as_ref().expect("jumprelu has one")[latent];
            let expected = if pre > threshold { pre } else { 0.0 };
            assert!((acts.get(0, latent as u32) - expected).abs() < 1e-5);
        }
    }

    #[test]
    fn half_a_row_is_refused() {
        let message = example(Architecture::TopK, 8, 20).encode(&[0.0; 12]).map_err(|error| error.to_string());
        assert_eq!(
            message,
            Err("activations to encode: expected whole rows of d_in = 8 values, found 12 values".into())
        );
    }
}
