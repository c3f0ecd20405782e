//! Rotary positions in `config.json`: the older keys `rope_theta` and `rope_scaling`, and `rope_parameters` of
//! transformers 5, which replaces both.

use serde::Deserialize;

use super::Unsupported;
use crate::model::{Positions, RopeScaling};

/// The keys at the top of `config.json`.
#[derive(Deserialize)]
pub(super) struct Json {
    rope_theta: Option<f64>,
    rope_scaling: Option<Parameters>,
    rope_parameters: Option<Parameters>,
    partial_rotary_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
}

/// `rope_scaling`, or `rope_parameters`, which also holds the base.
#[derive(Clone, Default, Deserialize)]
pub(super) struct Parameters {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    rope_theta: Option<f64>,
    partial_rotary_factor: Option<f64>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<usize>,
    short_factor: Option<Vec<f32>>,
    long_factor: Option<Vec<f32>>,
    attention_factor: Option<f64>,
}

impl Json {
    /// Applies the base and the rotated share that some files store under other names, if given.
    pub(super) fn or(mut self, base: Option<f64>, share: Option<f64>) -> Self {
        self.rope_theta = base.or(self.rope_theta);
        self.partial_rotary_factor = share.or(self.partial_rotary_factor);
        self
    }

    /// Positions of heads of `d_head` dimensions in a model made for `ctx_len` tokens.
    pub(super) fn positions(self, d_head: usize, ctx_len: usize) -> Result<Positions, Unsupported> {
        let mut parameters = self.rope_parameters.or(self.rope_scaling).unwrap_or_default();
        parameters.rope_theta = parameters.rope_theta.or(self.rope_theta);
        parameters.partial_rotary_factor = parameters.partial_rotary_factor.or(self.partial_rotary_factor);
        let original = parameters.original_max_position_embeddings.or(self.original_max_position_embeddings);
        parameters.original_max_position_embeddings = original;
        parameters.positions(d_head, ctx_len)
    }
}

impl Parameters {
    pub(super) fn base(&self) -> Result<f64, Unsupported> {
        self.rope_theta.ok_or_else(|| Unsupported::new("a key rope_theta", "none"))
    }

    /// True if frequencies are not scaled.
    pub(super) fn is_plain(&self) -> bool {
        self.rope_type.as_deref().is_none_or(|kind| kind == "default")
    }

    pub(super) fn positions(&self, d_head: usize, ctx_len: usize) -> Result<Positions, Unsupported> {
        let rotary_dim = (d_head as f64 * self.partial_rotary_factor.unwrap_or(1.0)) as usize;
        Ok(Positions::Rotary { base: self.base()?, rotary_dim, scaling: self.scaling(ctx_len)? })
    }

    fn scaling(&self, ctx_len: usize) -> Result<RopeScaling, Unsupported> {
        let kind = self.rope_type.as_deref().unwrap_or("default");
        let needed = |key: &str, value: Option<f64>| {
            value.ok_or_else(|| Unsupported::new(format!("a key {key} for rope_type `{kind}`"), "none"))
        };
        let original_ctx_len = self.original_max_position_embeddings.unwrap_or(ctx_len);
        match kind {
            "default" => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor: needed("factor", self.factor)? }),
            "llama3" => Ok(RopeScaling::Llama3 {
                factor: needed("factor", self.factor)?,
                low_freq_factor: needed("low_freq_factor", self.low_freq_factor)?,
                high_freq_factor: needed("high_freq_factor", self.high_freq_factor)?,
                original_ctx_len,
            }),
            // `su` is the name in the first Phi-3 checkpoints.
            "longrope" | "su" => {
                let (Some(short), Some(long)) = (self.short_factor.clone(), self.long_factor.clone()) else {
                    return Err(Unsupported::new(
                        format!("short_factor and long_factor for rope_type `{kind}`"),
                        "none",
                    ));
                };
                let factor = self.factor.unwrap_or(ctx_len as f64 / original_ctx_len as f64);
                let attention_factor =
                    self.attention_factor.unwrap_or_else(|| long_rope_amplitude(factor, original_ctx_len));
                Ok(RopeScaling::LongRope { short, long, original_ctx_len, attention_factor })
            }
            other => {
                let known = "rope_type default, linear, llama3 or longrope";
                Err(Unsupported::new(known, format!("rope_type `{other}`")))
            }
        }
    }
}

/// LongRoPE's default amplitude (arXiv 2402.13753, as in Phi-3): `sqrt(1 + ln(factor) / ln(original_ctx_len))`.
pub(super) fn long_rope_amplitude(factor: f64, original_ctx_len: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_ctx_len as f64).ln()).sqrt() }
}
