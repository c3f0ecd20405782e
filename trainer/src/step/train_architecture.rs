//! [`TrainArchitecture`] and [`JumpReluLoss`]: the architectures and losses, by the names used on the command line and
//! in manifests.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The kind of SAE to train.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrainArchitecture {
    /// `topk`: the k largest latents of each token (Gao et al. 2024).
    TopK,
    /// `batch-topk`: the k * n largest latents of a batch of n tokens, so that each token gets as many as it needs.
    /// Saved as JumpReLU with one threshold (Bussmann et al. 2024).
    BatchTopK,
    /// `matryoshka`: BatchTopK whose first latents must reconstruct as well as they can alone (Bussmann et al. 2025).
    Matryoshka,
    /// `relu`: every positive latent, with an L1 penalty (Bricken et al. 2023; Anthropic's update of April 2024).
    Relu,
    /// `gated`: one path decides whether a latent is active, another how strongly (Rajamanoharan et al. 2024a).
    Gated,
    /// `jumprelu`: every latent above its learned threshold (Rajamanoharan et al. 2024b).
    JumpRelu,
    /// `transcoder`: BatchTopK from one hook point to another (Dunefsky et al. 2024).
    Transcoder,
    /// `crosscoder`: BatchTopK over several hook points at once (Lindsey et al. 2024).
    Crosscoder,
    /// `dense`: every latent, without a nonlinearity: the bottleneck to compare sparsity with.
    Dense,
}

/// Sparsity loss of `jumprelu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JumpReluLoss {
    /// `step`: the number of active latents.
    #[default]
    Step,
    /// `tanh`: nearly the same, but weak activations count less and are pushed down.
    Tanh,
}

impl FromStr for JumpReluLoss {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "step" => Ok(Self::Step),
            "tanh" => Ok(Self::Tanh),
            _ => Err(Error::invalid("loss", "step or tanh", format!("`{text}`"))),
        }
    }
}

impl TrainArchitecture {
    /// Every architecture.
    pub const ALL: [Self; 9] = [
        Self::TopK,
        Self::BatchTopK,
        Self::Matryoshka,
        Self::Relu,
        Self::Gated,
        Self::JumpRelu,
        Self::Transcoder,
        Self::Crosscoder,
        Self::Dense,
    ];

    /// True if a sparsity loss decides how many latents are active; otherwise k does.
    pub fn has_sparsity_loss(self) -> bool {
        matches!(self, Self::Relu | Self::Gated | Self::JumpRelu)
    }

    /// True if latents are selected over a whole batch, so that single tokens need a threshold, calibrated at the end.
    pub(crate) fn is_batch_topk(self) -> bool {
        matches!(self, Self::BatchTopK | Self::Matryoshka | Self::Transcoder | Self::Crosscoder)
    }

    /// True if input and target are the same single column of the activations.
    pub fn maps_one_column(self) -> bool {
        !matches!(self, Self::Transcoder | Self::Crosscoder)
    }

    /// A short description.
    pub fn about(self) -> &'static str {
        match self {
            Self::TopK => "the k largest latents of each token",
            Self::BatchTopK => {
                "the k largest latents per token on average, so that each token gets as many as it needs"
            }
            Self::Matryoshka => "batch-topk whose prefixes must each reconstruct as well as they can alone",
            Self::Relu => "every positive latent, with an L1 penalty",
            Self::Gated => "one path decides whether a latent is active, another how strongly; L1 penalty on the first",
            Self::JumpRelu => "every latent above its own learned threshold, with an L0 penalty",
            Self::Transcoder => "batch-topk that predicts one hook point from another",
            Self::Crosscoder => "batch-topk that reads and reconstructs several hook points at once",
            Self::Dense => "every latent, without a nonlinearity: a baseline like PCA with k latents",
        }
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::TopK => "topk",
            Self::BatchTopK => "batch-topk",
            Self::Matryoshka => "matryoshka",
            Self::Relu => "relu",
            Self::Gated => "gated",
            Self::JumpRelu => "jumprelu",
            Self::Transcoder => "transcoder",
            Self::Crosscoder => "crosscoder",
            Self::Dense => "dense",
        }
    }
}

impl fmt::Display for TrainArchitecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TrainArchitecture {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == text).ok_or_else(|| {
            Error::invalid(
                "architecture",
                format!("one of {}", Self::ALL.map(Self::name).join(", ")),
                format!("`{text}`"),
            )
        })
    }
}

impl TryFrom<String> for TrainArchitecture {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<TrainArchitecture> for String {
    fn from(architecture: TrainArchitecture) -> Self {
        architecture.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_architectures_survive_a_round_trip() {
        for architecture in TrainArchitecture::ALL {
            assert_eq!(architecture.to_string().parse::<TrainArchitecture>().ok(), Some(architecture));
        }
        let message = "top-k".parse::<TrainArchitecture>().map_err(|error| error.to_string());
        assert!(message.is_err_and(|message| message.contains("topk, batch-topk") && message.contains("`top-k`")));
    }
}
