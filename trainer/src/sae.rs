//! [`Sae`]: a finished sparse autoencoder: turns activations into features and back. Used by every later stage; on
//! disk it is SAELens' folder (`formats/saelens.rs`).
//!
//! ```text
//! hidden_pre = (x - b_dec) W_enc^T + b_enc
//! f          = topk: the k largest of relu(hidden_pre);  jumprelu: hidden_pre where it exceeds threshold;  relu
//! x_hat      = f W_dec + b_dec
//! ```

use std::{fmt, path::Path, str::FromStr};

use harvester::HookPoint;

use crate::{
    Error, Result,
    feature_acts::FeatureActs,
    formats::saelens,
    kernels::{
        decode::add_decoded,
        encode::encoder_product,
        select::{self, Threshold},
    },
};

/// Rows encoded at a time: bounds the memory, and costs the product little.
const ROWS_PER_TILE: usize = 1024;

/// The nonlinearity of a finished SAE, under SAELens' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `standard`: every positive pre-activation.
    Standard,
    /// `topk`: the k largest of each token.
    TopK,
    /// `jumprelu`: those over a threshold a latent. What BatchTopK is saved as.
    JumpRelu,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 3] = [Self::Standard, Self::TopK, Self::JumpRelu];
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standard => "standard",
            Self::TopK => "topk",
            Self::JumpRelu => "jumprelu",
        })
    }
}

impl FromStr for Architecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.to_string() == text).ok_or_else(|| {
            Error::invalid("architecture", Self::ALL.map(|name| name.to_string()).join(", "), format!("`{text}`"))
        })
    }
}

/// What an SAE is, apart from its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeConfig {
    /// The nonlinearity.
    pub architecture: Architecture,
    /// Width of the activations.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Active latents a token; of `topk` only.
    pub k: Option<usize>,
    /// Whether `b_dec` is subtracted before encoding. Ours always do.
    pub apply_b_dec_to_input: bool,
    /// Where in the model its activations are from; `None` where they are vectors of no model.
    pub hook_point: Option<HookPoint>,
    /// The model, as its manifest names it.
    pub model_name: String,
    /// Tokens a context in training.
    pub ctx_len: Option<usize>,
    /// Whether contexts began with a beginning-of-sequence token.
    pub prepend_bos: bool,
    /// The text it was trained on.
    pub dataset: String,
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
    /// A latent a row. `[d_sae, d_in]`
    pub w_dec: Vec<f32>,
    /// `[d_in]`
    pub b_dec: Vec<f32>,
    /// Of `jumprelu` only. `[d_sae]`
    pub threshold: Option<Vec<f32>>,
}

impl Sae {
    /// Reads a SAELens folder.
    ///
    /// # Errors
    /// Names the file, and the tensor or field, that is missing, unknown, of another shape or type, or not finite.
    pub fn load(dir: &Path) -> Result<Self> {
        saelens::load(dir)
    }

    /// Writes `cfg.json` and `sae_weights.safetensors` into `dir`, each of them whole or not at all.
    ///
    /// # Errors
    /// When a tensor has the wrong length, or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.check(dir)?;
        saelens::save(self, dir)
    }

    /// Width of the activations.
    pub fn d_in(&self) -> usize {
        self.config.d_in
    }

    /// Number of latents.
    pub fn d_sae(&self) -> usize {
        self.config.d_sae
    }

    /// The direction that `latent` writes. `[d_in]`
    pub fn decoder_row(&self, latent: usize) -> &[f32] {
        &self.w_dec[latent * self.d_in()..][..self.d_in()]
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
            encoder_product(&self.centred(x), &self.w_enc, d_in, hidden);
            self.select(hidden, &mut acts);
        }
        Ok(acts)
    }

    /// `f W_dec + b_dec` for each row of `acts`. `[n, d_in]`
    pub fn decode(&self, acts: &FeatureActs) -> Vec<f32> {
        let mut x_hat = self.b_dec.repeat(acts.n_rows());
        add_decoded(acts, &self.w_dec, self.d_in(), &mut x_hat);
        x_hat
    }

    fn centred(&self, x: &[f32]) -> Vec<f32> {
        if !self.config.apply_b_dec_to_input {
            return x.to_vec();
        }
        x.iter().zip(self.b_dec.iter().cycle()).map(|(x, b)| x - b).collect()
    }

    fn select(&self, hidden: &[f32], acts: &mut FeatureActs) {
        match (self.config.architecture, &self.threshold) {
            (Architecture::TopK, _) => {
                select::top_k(hidden, &self.b_enc, self.config.k.unwrap_or(self.d_sae()), acts);
            }
            (_, Some(threshold)) => select::above(hidden, &self.b_enc, Threshold::PerLatent(threshold), acts),
            (_, None) => select::above(hidden, &self.b_enc, Threshold::Global(0.0), acts),
        }
    }

    /// Checks every length against `d_in` and `d_sae`, that every number is finite, and that the architecture has what
    /// it needs. `place` is what a message names.
    pub(crate) fn check(&self, place: &Path) -> Result<()> {
        let SaeConfig { architecture, d_in, d_sae, k, .. } = self.config;
        let hint = "The file is damaged, or belongs to another SAE";
        let wrong = |expected: String, found: String| Err(Error::malformed(place, expected, found, hint));
        let tensors = [
            ("W_enc", Some(&self.w_enc), d_sae * d_in),
            ("b_enc", Some(&self.b_enc), d_sae),
            ("W_dec", Some(&self.w_dec), d_sae * d_in),
            ("b_dec", Some(&self.b_dec), d_in),
            ("threshold", self.threshold.as_ref(), d_sae),
        ];
        for (name, tensor, len) in tensors {
            let Some(tensor) = tensor else { continue };
            if tensor.len() != len {
                return wrong(format!("{len} values of {name}"), format!("{}", tensor.len()));
            }
            if let Some(at) = tensor.iter().position(|value| !value.is_finite()) {
                return wrong(format!("finite numbers in {name}"), format!("{} at index {at}", tensor[at]));
            }
        }
        match (architecture, k) {
            (Architecture::TopK, Some(k)) if k == 0 || k > d_sae => {
                wrong(format!("k from 1 to d_sae = {d_sae}"), format!("k = {k}"))
            }
            (Architecture::TopK, None) => wrong("k of a topk SAE".into(), "none".into()),
            (Architecture::JumpRelu, _) if self.threshold.is_none() => {
                wrong("the thresholds of a jumprelu SAE".into(), "none".into())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::kernels::plain;

    /// Random weights.
    pub(crate) fn example(architecture: Architecture, d_in: usize, d_sae: usize) -> Sae {
        Sae {
            config: SaeConfig {
                architecture,
                d_in,
                d_sae,
                k: (architecture == Architecture::TopK).then_some(4),
                apply_b_dec_to_input: true,
                hook_point: Some(HookPoint::resid_post(3)),
                model_name: "tiny".into(),
                ctx_len: Some(256),
                prepend_bos: false,
                dataset: "made up".into(),
            },
            w_enc: plain::random(d_sae * d_in, 1),
            b_enc: plain::random(d_sae, 2),
            w_dec: plain::random(d_sae * d_in, 3),
            b_dec: plain::random(d_in, 4),
            threshold: (architecture == Architecture::JumpRelu)
                .then(|| plain::random(d_sae, 5).iter().map(|t| t.abs()).collect()),
        }
    }

    #[test]
    fn a_row_is_encoded_and_decoded_alike_alone_and_in_a_batch() {
        for architecture in Architecture::ALL {
            let sae = example(architecture, 24, 100);
            let x = plain::random(1500 * 24, 9); // more than a tile
            let all = sae.encode(&x).expect("whole rows");
            let x_hat = sae.decode(&all);
            for row in [0, 700, 1023, 1024, 1499] {
                let one = sae.encode(&x[row * 24..(row + 1) * 24]).expect("one row");
                assert_eq!(one.row(0), all.row(row), "{architecture}, row {row}");
                assert_eq!(sae.decode(&one), x_hat[row * 24..(row + 1) * 24]);
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
