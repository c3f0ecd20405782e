//! [`SaeWeights`]: the weights of a finished SAE. [`Nonlinearity`]: selects the active latents.

use std::fmt;

/// The weights of an SAE.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeWeights {
    /// One row per latent (on disk the other way round). `[d_sae, d_in]`
    pub w_enc: Vec<f32>,
    /// For a gated SAE, the gate's bias. `[d_sae]`
    pub b_enc: Vec<f32>,
    /// Selects the active latents.
    pub nonlinearity: Nonlinearity,
    /// One row per latent. `[d_sae, d_out]`
    pub w_dec: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// Skip connection: a linear map of the input that is added to the output. `[d_out, d_in]`
    pub w_skip: Option<Vec<f32>>,
}

/// Decides which latents are active and how strongly, with the parameters of each kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Nonlinearity {
    /// Every positive pre-activation.
    Standard,
    /// The `k` largest pre-activations of each token.
    TopK {
        /// Active latents per token.
        k: usize,
    },
    /// Every pre-activation above its latent's threshold. BatchTopK is saved as this.
    JumpRelu {
        /// `[d_sae]`
        threshold: Vec<f32>,
    },
    /// A gate, whose bias is `b_enc`, decides which latents are active; a separate magnitude decides how strongly.
    Gated {
        /// Logarithm of the factor between the encoder's product and the magnitude. `[d_sae]`
        r_mag: Vec<f32>,
        /// Bias of the magnitude. `[d_sae]`
        b_mag: Vec<f32>,
    },
    /// Every pre-activation unchanged, positive or negative.
    Dense,
}

impl Nonlinearity {
    /// Its name.
    pub fn architecture(&self) -> Architecture {
        match self {
            Self::Standard => Architecture::Standard,
            Self::TopK { .. } => Architecture::TopK,
            Self::JumpRelu { .. } => Architecture::JumpRelu,
            Self::Gated { .. } => Architecture::Gated,
            Self::Dense => Architecture::Dense,
        }
    }

    /// Active latents per token, if their number is fixed.
    pub fn k(&self) -> Option<usize> {
        if let Self::TopK { k } = self { Some(*k) } else { None }
    }

    /// Thresholds that select the same latents as the nonlinearity, none below zero; those of `standard` are zero.
    /// `None` if no thresholds do.
    pub(crate) fn thresholds(&self, d_sae: usize) -> Option<Vec<f32>> {
        match self {
            Self::Standard => Some(vec![0.0; d_sae]),
            Self::JumpRelu { threshold } => Some(threshold.iter().map(|t| t.max(0.0)).collect()),
            Self::TopK { .. } | Self::Gated { .. } | Self::Dense => None,
        }
    }

    /// The vectors in the units of the activations, except `b_enc`.
    pub(crate) fn in_activation_units(&mut self) -> Option<&mut Vec<f32>> {
        match self {
            Self::JumpRelu { threshold } => Some(threshold),
            Self::Gated { b_mag, .. } => Some(b_mag),
            Self::Standard | Self::TopK { .. } | Self::Dense => None,
        }
    }
}

/// The nonlinearities of finished SAEs, by SAELens' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `standard`
    Standard,
    /// `topk`
    TopK,
    /// `jumprelu`
    JumpRelu,
    /// `gated`
    Gated,
    /// `dense`, which only refract has: SAELens refuses the name.
    Dense,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 5] = [Self::Standard, Self::TopK, Self::JumpRelu, Self::Gated, Self::Dense];

    /// The architecture of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.to_string() == name)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Standard => "standard",
            Self::TopK => "topk",
            Self::JumpRelu => "jumprelu",
            Self::Gated => "gated",
            Self::Dense => "dense",
        })
    }
}
