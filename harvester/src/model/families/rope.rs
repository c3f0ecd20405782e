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
#[derive(Clone, Default, PartialEq, Deserialize)]
pub(super) struct Parameters {
    rope_type: Option<String>,
    /// The older name of `rope_type`; many files have both.
    #[serde(rename = "type")]
    old_type: Option<String>,
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
    /// Takes the base and the rotated share from keys that have other names in this family.
    pub(super) fn with(self, base: f64, share: f64) -> Self {
        Self { rope_theta: Some(base), partial_rotary_factor: Some(share), ..self }
    }

    /// Takes `rope_parameters` from where this family has them.
    pub(super) fn set_parameters(&mut self, parameters: Option<Parameters>) {
        self.rope_parameters = parameters;
    }

    /// Positions of heads of `d_head` dimensions in a model made for `ctx_len` tokens.
    pub(super) fn positions(self, d_head: usize, ctx_len: usize) -> Result<Positions, Unsupported> {
        // In the order of transformers: the older key first, unless it is empty; the keys beside it where it is silent,
        // except for the original length, where they come first.
        let stated = |parameters: &Parameters| *parameters != Parameters::default();
        let mut parameters = self.rope_scaling.filter(stated).or(self.rope_parameters).unwrap_or_default();
        parameters.rope_theta = parameters.rope_theta.or(self.rope_theta);
        parameters.partial_rotary_factor = parameters.partial_rotary_factor.or(self.partial_rotary_factor);
        let original = self.original_max_position_embeddings.or(parameters.original_max_position_embeddings);
        parameters.original_max_position_embeddings = original;
        parameters.positions(d_head, ctx_len)
    }
}

impl Parameters {
    pub(super) fn base(&self) -> Result<f64, Unsupported> {
        self.rope_theta.ok_or_else(|| Unsupported::new("a key rope_theta", "none"))
    }

    fn kind(&self) -> &str {
        self.rope_type.as_deref().or(self.old_type.as_deref()).unwrap_or("default")
    }

    /// True if frequencies are not scaled.
    pub(super) fn is_plain(&self) -> bool {
        self.kind() == "default"
    }

    pub(super) fn positions(&self, d_head: usize, ctx_len: usize) -> Result<Positions, Unsupported> {
        let rotary_dim = (d_head as f64 * self.partial_rotary_factor.unwrap_or(1.0)) as usize;
        Ok(Positions::Rotary { base: self.base()?, rotary_dim, scaling: self.scaling(ctx_len)? })
    }

    fn scaling(&self, ctx_len: usize) -> Result<RopeScaling, Unsupported> {
        let kind = self.kind();
        let needed = |key: &str, value: Option<f64>| {
            value.ok_or_else(|| Unsupported::new(format!("a key {key} for rope_type `{kind}`"), "none"))
        };
        let original_ctx_len = self.original_max_position_embeddings.unwrap_or(ctx_len);
        match kind {
            // `dynamic` changes nothing within the context length, and no text is longer.
            "default" | "dynamic" => Ok(RopeScaling::None),
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
                let known = "rope_type default, linear, dynamic, llama3 or longrope";
                Err(Unsupported::new(known, format!("rope_type `{other}`")))
            }
        }
    }
}

/// LongRoPE's default amplitude (arXiv 2402.13753, as in Phi-3): `sqrt(1 + ln(factor) / ln(original_ctx_len))`.
pub(super) fn long_rope_amplitude(factor: f64, original_ctx_len: usize) -> f64 {
    if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / (original_ctx_len as f64).ln()).sqrt() }
}
