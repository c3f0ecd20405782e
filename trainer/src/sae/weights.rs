//! [`SaeWeights`]: the numbers of a finished SAE, and [`Nonlinearity`], which decides what is active.

use std::fmt;

/// The numbers of an SAE.
#[derive(Debug, Clone, PartialEq)]
pub struct SaeWeights {
    /// One row per latent (on disk the other way round). `[d_sae, d_in]`
    pub w_enc: Vec<f32>,
    /// The gate's, where there is one. `[d_sae]`
    pub b_enc: Vec<f32>,
    /// Which latents are active.
    pub nonlinearity: Nonlinearity,
    /// One row per latent. `[d_sae, d_out]`
    pub w_dec: Vec<f32>,
    /// `[d_out]`
    pub b_dec: Vec<f32>,
    /// A linear map of the input that is added to the output without passing a latent. `[d_out, d_in]`
    pub w_skip: Option<Vec<f32>>,
}

/// Which latents are active, and how strongly, with the parameters that only this kind has.
#[derive(Debug, Clone, PartialEq)]
pub enum Nonlinearity {
    /// Every positive pre-activation.
    Standard,
    /// The `k` largest of each token.
    TopK {
        /// Active latents per token.
        k: usize,
    },
    /// Those over their latent's threshold. BatchTopK is saved as this.
    JumpRelu {
        /// `[d_sae]`
        threshold: Vec<f32>,
    },
    /// A gate, whose bias is `b_enc`, says which latents are active; a magnitude of its own how strongly.
    Gated {
        /// Logarithm of the factor between the encoder's product and the magnitude. `[d_sae]`
        r_mag: Vec<f32>,
        /// Bias of the magnitude. `[d_sae]`
        b_mag: Vec<f32>,
    },
    /// Every pre-activation as it is, of any sign.
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

    /// Active latents per token, where their number is fixed.
    pub fn k(&self) -> Option<usize> {
        if let Self::TopK { k } = self { Some(*k) } else { None }
    }

    /// Thresholds that select the same latents as the nonlinearity does, none below zero; those of `standard` are zero.
    /// `None` where no threshold does so.
    pub(crate) fn thresholds(&self, d_sae: usize) -> Option<Vec<f32>> {
        match self {
            Self::Standard => Some(vec![0.0; d_sae]),
            Self::JumpRelu { threshold } => Some(threshold.iter().map(|t| t.max(0.0)).collect()),
            Self::TopK { .. } | Self::Gated { .. } | Self::Dense => None,
        }
    }

    /// The vectors that are in the units of the activations, `b_enc` aside.
    pub(crate) fn in_activation_units(&mut self) -> Option<&mut Vec<f32>> {
        match self {
            Self::JumpRelu { threshold } => Some(threshold),
            Self::Gated { b_mag, .. } => Some(b_mag),
            Self::Standard | Self::TopK { .. } | Self::Dense => None,
        }
    }
}

/// The nonlinearities of finished SAEs by name, under SAELens' names.
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
    /// `dense`. Ours: SAELens refuses it by name.
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
