//! [`SaeConfig`]: what a finished SAE is, apart from its weights. Every format on disk is read into it and written from
//! it, so that the rest of refract knows one kind of SAE.

use std::{fmt, str::FromStr};

use harvester::HookPoint;

use crate::{Error, Result, sae::input_norm::InputNorm};

/// The nonlinearity of a finished SAE, under SAELens' names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `standard`: every positive pre-activation.
    Standard,
    /// `topk`: the k largest of each token.
    TopK,
    /// `jumprelu`: those over a threshold a latent. What BatchTopK is saved as.
    JumpRelu,
    /// `gated`: a gate says which latents are active, a magnitude of its own how strongly.
    Gated,
    /// `dense`: every pre-activation as it is, of any sign. Ours: SAELens refuses it by name.
    Dense,
}

impl Architecture {
    /// Every architecture.
    pub const ALL: [Self; 5] = [Self::Standard, Self::TopK, Self::JumpRelu, Self::Gated, Self::Dense];
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
    /// Width of the activations that it reads.
    pub d_in: usize,
    /// Width of what it rebuilds: that of `W_dec`'s rows and of `b_dec`. Equal to `d_in` but for transcoders.
    pub d_out: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Active latents a token; of `topk` only.
    pub k: Option<usize>,
    /// Whether `b_dec` is subtracted before encoding. Ours always do; transcoders never.
    pub apply_b_dec_to_input: bool,
    /// What is done to each token's activations before encoding, and undone after decoding.
    pub input_norm: InputNorm,
    /// Where in the model its activations are from; `None` where nobody said, or they are no model's. See
    /// [`SaeConfig::place`].
    pub hook_point: Option<HookPoint>,
    /// Where in the model that is which a transcoder rebuilds; `None` where that is what it reads.
    pub hook_point_out: Option<HookPoint>,
    /// Of a crosscoder: the places, with their widths, whose activations make its input one after the other.
    pub columns: Vec<(HookPoint, usize)>,
    /// The model, as its manifest names it.
    pub model_name: String,
    /// Tokens a context in training.
    pub ctx_len: Option<usize>,
    /// Whether contexts began with a beginning-of-sequence token.
    pub prepend_bos: bool,
    /// The text it was trained on.
    pub dataset: String,
}

impl SaeConfig {
    /// An autoencoder of raw activations of which nothing else is known.
    pub fn new(architecture: Architecture, d_in: usize, d_sae: usize) -> Self {
        Self {
            architecture,
            d_in,
            d_out: d_in,
            d_sae,
            k: None,
            apply_b_dec_to_input: true,
            input_norm: InputNorm::None,
            hook_point: None,
            hook_point_out: None,
            columns: vec![],
            model_name: String::new(),
            ctx_len: None,
            prepend_bos: false,
            dataset: String::new(),
        }
    }

    /// The place in the model whose activations it reads.
    ///
    /// # Errors
    /// When it names none.
    pub fn place(&self) -> Result<HookPoint> {
        self.hook_point.ok_or_else(|| {
            let expected = "an SAE that names where in the model its activations are from; name it with --hook-point";
            Error::invalid("hook point", expected, "none")
        })
    }

    /// Whether it rebuilds another place than it reads.
    pub fn is_transcoder(&self) -> bool {
        self.d_out != self.d_in || self.hook_point_out.is_some_and(|out| Some(out) != self.hook_point)
    }

    /// What this says of its origin that `written`, the same SAE in another format, does not.
    pub fn lost_in(&self, written: &Self) -> Vec<&'static str> {
        let same_or_unknown = [
            ("hook point", self.hook_point.is_none() || self.hook_point == written.hook_point),
            ("hook point rebuilt", self.hook_point_out.is_none() || self.hook_point_out == written.hook_point_out),
            ("model name", self.model_name.is_empty() || self.model_name == written.model_name),
            ("context length", self.ctx_len.is_none() || self.ctx_len == written.ctx_len),
            ("prepend_bos", self.prepend_bos == written.prepend_bos),
            ("dataset", self.dataset.is_empty() || self.dataset == written.dataset),
        ];
        same_or_unknown.into_iter().filter(|(_, kept)| !kept).map(|(name, _)| name).collect()
    }

    /// Checks that it reads one place of a model and rebuilds that same place, as steering needs.
    ///
    /// # Errors
    /// For a transcoder and for a crosscoder, by name.
    pub fn check_autoencoder(&self) -> Result<()> {
        let refuse = |found: String| {
            Err(Error::invalid("SAE", "an autoencoder: one that rebuilds the activations that it reads", found))
        };
        if !self.columns.is_empty() {
            return refuse(format!("a crosscoder of {} places", self.columns.len()));
        }
        if self.is_transcoder() {
            let name = |point: Option<HookPoint>| point.map_or("a place not named".into(), |point| point.to_string());
            return refuse(format!("a transcoder from {} to {}", name(self.hook_point), name(self.hook_point_out)));
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_autoencoder_says_what_it_is() {
        let config = SaeConfig::new(Architecture::TopK, 8, 20);
        assert!(config.check_autoencoder().is_ok());
        let message = |config: &SaeConfig| config.check_autoencoder().unwrap_err().to_string();
        let transcoder = SaeConfig { d_out: 6, hook_point_out: Some(HookPoint::resid_post(1)), ..config.clone() };
        assert!(message(&transcoder).contains("a transcoder from a place not named to blocks.1.hook_resid_post"));
        let columns = vec![(HookPoint::resid_post(0), 3), (HookPoint::resid_post(1), 5)];
        assert!(message(&SaeConfig { columns, ..config.clone() }).contains("a crosscoder of 2 places"));
        let placed = SaeConfig { hook_point: Some(HookPoint::resid_post(1)), ctx_len: Some(64), ..config.clone() };
        assert_eq!((placed.lost_in(&config), config.lost_in(&placed)), (vec!["hook point", "context length"], vec![]));
        assert!(config.place().unwrap_err().to_string().contains("--hook-point"));
    }
}
