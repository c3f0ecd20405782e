//! Trains sparse autoencoders (SAEs) on harvested activations. This is the second stage of `refract`: it reads the
//! folder that `harvester` wrote and writes an SAE folder, which SAELens can open too.
//!
//! The modules below are in order: each uses only earlier ones. `kernels` is the arithmetic, `sae` is a finished SAE,
//! and `formats` reads and writes it in our format or another tool's. None of these knows how the SAE was trained. The
//! other modules train one:
//!
//! ```text
//! data     training_data = harvested_data (activations) or vector_data
//!   |      activation_source = shard_source (rows of a folder) or live_source (of a running model), block by block
//!   |      shuffle_buffer: blocks mixed into batches, scaled by standardize
//!   v
//! step     one batch -> new weights: center, encoder_pass -> kernels::decode, gradients, adam. architecture has the
//!   |      recipe of each kind of SAE, with sparsity; dead latents learn by auxiliary
//!   v
//! run      step by step, by schedule; train, train_live and sweep give it config and rows. health
//!          judges it, checkpoint (and buffer_file) resumes it, metrics_log, metrics_file and curves show it. At the end export: weights
//!          -> SAE; calibrate: its threshold; score: metrics on held-out rows. initial_weights: SAE -> weights, if a
//!          run begins from one
//! ```
//!
//! The encoder's matrix product is the only dense one: the cost of everything after it is proportional to k, not d_sae.

mod error;
mod kernels;
mod tensors;
mod sae;
mod formats;
mod data;
mod step;
mod config;
mod manifest;
mod convert;
mod run;
pub mod speed;

pub use config::TrainConfig;
pub use convert::{Conversion, convert};
pub use data::training_data::VectorsIdentity;
pub use error::{Divergence, Error, Result};
pub use formats::SaeFormat;
pub use kernels::feature_acts::FeatureActs;
pub use manifest::{HELD_OUT_FOLDER, InitialFile, SaeManifest, TrainResults};
pub use run::{
    curves::CURVES_FILE,
    metrics_file::METRICS_FILE,
    metrics_line::MetricsLine,
    score::add_ordinary_rows,
    source::{TrainRows, TrainSource},
    sweep::{PARETO_FILE, RunState, SWEEP_FILE, SweepFile, SweepPlan, SweepRow, grid, sweep},
    train::{TrainData, train},
    train_live::train_live,
};
pub use sae::{
    Architecture, Encoder, HookPoints, LatentEncoder, Nonlinearity, Sae, SaeConfig, SaeWeights,
    input_norm::InputNorm,
    metrics::{Reconstruction, ReconstructionMetrics},
};
pub use step::{
    adam::AdamConfig,
    architecture::{JumpReluLoss, TrainArchitecture},
    times::StepTimes,
};
