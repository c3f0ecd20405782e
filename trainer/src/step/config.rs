//! [`StepConfig`]: the settings of a training step: the run's config together with the sizes that the data determine.

use serde::Deserialize;

use crate::step::{
    adam::AdamConfig,
    train_architecture::{JumpReluLoss, TrainArchitecture},
};

/// The part of the configuration that a step needs. It is read from JSON only by the tests that compare with PyTorch.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct StepConfig {
    pub(crate) architecture: TrainArchitecture,
    pub(crate) k: usize,
    pub(crate) adam: AdamConfig,
    /// See [`Adam::weight_decay`].
    #[serde(default)]
    pub(crate) weight_decay: f64,
    /// Largest norm of the whole gradient; `None`: no clipping.
    pub(crate) clip: Option<f64>,
    pub(crate) auxk_alpha: f64,
    pub(crate) k_aux: usize,
    pub(crate) dead_after_tokens: u64,
    /// Weight of the sparsity loss; `None`: adapted so that L0 is about k.
    pub(crate) sparsity_coefficient: Option<f64>,
    /// Steps over which a fixed weight rises from 0.
    #[serde(default)]
    pub(crate) sparsity_warmup_steps: u64,
    pub(crate) jumprelu_loss: JumpReluLoss,
    /// Width of the window around a JumpReLU threshold.
    pub(crate) bandwidth: f64,
    /// Ends of the prefixes of a Matryoshka dictionary.
    pub(crate) prefixes: Vec<usize>,
    /// Widths of a crosscoder's hook points; for other architectures just d_in.
    pub(crate) blocks: Vec<usize>,
    /// Width of the reconstruction; for a transcoder, of its target.
    pub(crate) d_out: usize,
    /// True if a transcoder has a skip connection.
    pub(crate) skip: bool,
}

impl StepConfig {
    /// A config for tests and measurements: every part on, no clipping, two prefixes, two blocks, a skip connection.
    pub(crate) fn example(architecture: TrainArchitecture, k: usize, d_in: usize, d_sae: usize) -> Self {
        Self {
            architecture,
            k,
            adam: AdamConfig::default(),
            weight_decay: 0.5,
            clip: None,
            auxk_alpha: 1.0 / 32.0,
            k_aux: d_in / 2,
            dead_after_tokens: u64::MAX,
            sparsity_coefficient: None,
            sparsity_warmup_steps: 0,
            jumprelu_loss: JumpReluLoss::Step,
            bandwidth: 0.5,
            prefixes: vec![d_sae / 4, d_sae / 2, d_sae],
            blocks: vec![d_in / 2, d_in - d_in / 2],
            d_out: d_in,
            skip: true,
        }
    }

    /// Width of a training row whose input has `d_in` dimensions.
    pub(crate) fn row_width(&self, d_in: usize) -> usize {
        if self.architecture == TrainArchitecture::Transcoder { d_in + self.d_out } else { d_in }
    }
}
