//! The architectures: one [`Recipe`] per file, and [`of`], which picks the one that a config names.

mod batch_topk;
mod crosscoder;
mod dense;
mod gated;
mod jumprelu;
mod matryoshka;
mod relu;
mod topk;
mod transcoder;

pub use super::train_architecture::{JumpReluLoss, TrainArchitecture};
use crate::step::{config::StepConfig, recipe::Recipe};

/// The recipe of a configuration.
pub(crate) fn of(config: &StepConfig) -> Box<dyn Recipe> {
    match config.architecture {
        TrainArchitecture::TopK => Box::new(topk::TopK::new(config.k)),
        TrainArchitecture::BatchTopK => Box::new(batch_topk::BatchTopK::new(config.k)),
        TrainArchitecture::Matryoshka => Box::new(matryoshka::Matryoshka::new(config.k, config.prefixes.clone())),
        TrainArchitecture::Relu => Box::new(relu::Relu::new(config.k)),
        TrainArchitecture::Gated => Box::new(gated::Gated::new(config.k)),
        TrainArchitecture::JumpRelu => {
            Box::new(jumprelu::JumpRelu::new(config.k, config.jumprelu_loss, config.bandwidth as f32))
        }
        TrainArchitecture::Transcoder => Box::new(transcoder::Transcoder::new(config.k, config.d_out, config.skip)),
        TrainArchitecture::Crosscoder => Box::new(crosscoder::Crosscoder::new(config.k, config.blocks.clone())),
        TrainArchitecture::Dense => Box::new(dense::Dense),
    }
}
