//! [`TrainArchitecture`] and [`JumpReluLoss`]: what is trained, by the names that are typed and kept in manifests.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum TrainArchitecture {
    /// `topk`: the k largest of each token (Gao et al. 2024).
    TopK,
    /// `batch-topk`: the k * n largest of a batch of n, so that a token gets as many latents as it needs; saved as
    /// JumpReLU with one threshold (Bussmann et al. 2024).
    BatchTopK,
    /// `matryoshka`: BatchTopK whose first latents must do as well as they can alone (Bussmann et al. 2025).
    Matryoshka,
    /// `relu`: every positive one, and an L1 penalty (Bricken et al. 2023; Anthropic's update of April 2024).
    Relu,
    /// `gated`: one decides whether, another how strongly (Rajamanoharan et al. 2024a).
    Gated,
    /// `jumprelu`: those over a threshold that is learnt (Rajamanoharan et al. 2024b).
    JumpRelu,
    /// `transcoder`: BatchTopK from one place in the model to another (Dunefsky et al. 2024).
    Transcoder,
    /// `crosscoder`: BatchTopK over several places at once (Lindsey et al. 2024).
    Crosscoder,
    /// `dense`: every latent, without a nonlinearity: the bottleneck that sparsity is compared with.
    Dense,
}

/// What `jumprelu` counts as sparsity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JumpReluLoss {
    /// `step`: the number of active latents.
    #[default]
    Step,
    /// `tanh`: nearly the same, but weak activations count less and are pulled down.
    Tanh,
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

    /// Whether a sparsity loss decides how many latents are active; else k does.
    pub fn has_sparsity_loss(self) -> bool {
        matches!(self, Self::Relu | Self::Gated | Self::JumpRelu)
    }

    /// Whether the batch decides what is active, so that single tokens need a threshold that is calibrated at the end.
    pub fn is_batch_topk(self) -> bool {
        matches!(self, Self::BatchTopK | Self::Matryoshka | Self::Transcoder | Self::Crosscoder)
    }

    /// Whether input and target are one column of the activations.
    pub fn maps_one_column(self) -> bool {
        !matches!(self, Self::Transcoder | Self::Crosscoder)
    }

    /// What it is, in a phrase.
    pub fn about(self) -> &'static str {
        match self {
            Self::TopK => "the k largest latents of each token",
            Self::BatchTopK => "the k largest a token on average, so that a token gets as many as it needs",
            Self::Matryoshka => "batch-topk whose first latents must do as well as they can alone (--prefixes)",
            Self::Relu => "every positive latent, and an L1 penalty on them",
            Self::Gated => "one product decides whether a latent is active, another how strongly; L1 on the first",
            Self::JumpRelu => "every latent over a threshold of its own that is learnt, and an L0 penalty",
            Self::Transcoder => "batch-topk that predicts one place in the model from another (--target-hook-point)",
            Self::Crosscoder => "batch-topk that reads and rebuilds several places at once (--hook-point A B)",
            Self::Dense => "every latent without a nonlinearity: what PCA can do with k latents, to compare with",
        }
    }

    /// Its name, as it is typed.
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
