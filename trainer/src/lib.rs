//! Trains sparse autoencoders (SAEs) on harvested activations. Second stage of `refract`: it reads the folder that
//! `harvester` wrote and writes an SAE folder, which SAELens opens too.
//!
//! ```text
//! data     training_data = harvested_data (activations) or vector_data; columns: which of them make a row
//!   |      activation_source = shard_source (rows of a folder) or live_source (of a running model): block after block
//!   |      shuffle_buffer: blocks mixed into batches, in the units of standardise
//!   v
//! step     one batch -> new weights: kernels::centre, encoder_pass (product, select) -> feature_acts, decode,
//!   |      gradients; adam. What differs between SAEs is in architecture, with sparsity; dead latents learn by
//!   |      auxiliary
//!   v
//! run      step after step, by schedule; train, train_vectors, train_live and sweep give it config and rows. health
//!   |      judges it, checkpoint resumes it, metrics_log, metrics_file and curves show it; manifest says what made it
//!   v
//! sae      export: weights -> sae; calibrate: its threshold; score: metrics on held-out rows. formats read and write
//!          it, ours and others'. initial_weights: sae -> weights, where a run begins from one
//! ```
//!
//! config is what is asked for, error what can go wrong, tensors the files of checkpoints and SAEs; speed measures.
//!
//! The encoder's matrix product is the only dense one: everything after it costs k of d_sae.

pub mod config;
mod data;
pub mod error;
pub mod formats;
pub mod manifest;
mod run;
pub mod sae;
pub mod speed;
mod step;
mod tensors;

pub use config::TrainConfig;
pub use error::{Error, Result};
pub use formats::SaeFormat;
pub use manifest::{InitialFile, SAE_FORMAT, SaeManifest, TrainResults, VectorsIdentity};
pub use run::{
    curves::CURVES_FILE,
    health::Divergence,
    memory::learner_bytes,
    metrics_file::METRICS_FILE,
    metrics_log::MetricsLine,
    sweep::{PARETO_FILE, PlannedRun, RunState, SWEEP_FILE, SweepData, SweepFile, SweepPlan, SweepRow, sweep},
    train::train,
    train_live::train_live,
    train_vectors::train_vectors,
};
pub use sae::{
    Architecture, Gate, Sae, SaeConfig,
    initial_weights::initial_weights_kept,
    input_norm::InputNorm,
    metrics::{Reconstruction, ReconstructionMetrics},
};
pub use step::{
    StepTimes,
    adam::AdamConfig,
    architecture::{JumpReluLoss, TrainArchitecture},
    feature_acts::FeatureActs,
};
