//! Trains sparse autoencoders (SAEs) on harvested activations. Second stage of `refract`: it reads the folder that
//! `harvester` wrote and writes an SAE folder, which SAELens opens too.
//!
//! ```text
//! rows     training_data = harvested_data (activations) or vector_data; columns: which of them make a row
//!   |      activation_source = shard_source (rows of a folder) or live_source (of a running model): block after block
//!   |      shuffle_buffer: blocks mixed into batches, in the units of standardise
//!   v
//! step     step: one batch -> new weights, by the kernels: centre, encoder_pass (product, select) -> feature_acts, decode,
//!   |      gradients; adam. What differs between SAEs is in architecture, with sparsity; dead latents learn by auxiliary
//!   v
//! loop     run: step after step, by schedule; train, train_vectors, train_live and sweep give it config and rows.
//!   |      health judges it, checkpoint resumes it, metrics_log, metrics_file and curves show it
//!   v
//! SAE      export: weights -> sae; calibrate: its threshold; score: metrics on held-out rows; manifest: what made it.
//!          formats read and write it, ours and others'. initial_weights: sae -> weights, where a run begins from one
//! ```
//!
//! The encoder's matrix product is the only dense one: everything after it costs k of d_sae.

mod activation_source;
mod activations;
mod adam;
mod architecture;
mod auxiliary;
mod calibrate;
mod checkpoint;
mod columns;
pub mod config;
mod curves;
mod dead_latents;
mod encoder_pass;
pub mod error;
mod export;
mod feature_acts;
pub mod formats;
mod harvested_data;
mod health;
mod initial_weights;
mod input_norm;
mod kernels;
mod live_source;
pub mod manifest;
mod memory;
pub mod metrics;
mod metrics_file;
mod metrics_log;
mod own_folder;
mod page;
mod parquet_table;
mod rows;
mod run;
pub mod sae;
mod schedule;
mod score;
mod shard_source;
mod shuffle_buffer;
mod sparsity;
pub mod speed;
mod standardise;
mod step;
mod sweep;
mod tensors;
pub mod train;
mod train_live;
mod train_vectors;
mod training_data;
mod units;
mod vector_data;
mod weights;

pub use adam::AdamConfig;
pub use architecture::{JumpReluLoss, TrainArchitecture};
pub use config::TrainConfig;
pub use curves::CURVES_FILE;
pub use error::{Error, Result};
pub use feature_acts::FeatureActs;
pub use formats::SaeFormat;
pub use health::Divergence;
pub use initial_weights::initial_weights_kept;
pub use input_norm::InputNorm;
pub use manifest::{InitialFile, SAE_FORMAT, SaeManifest, TrainResults, VectorsIdentity};
pub use memory::learner_bytes;
pub use metrics::{Reconstruction, ReconstructionMetrics};
pub use metrics_file::METRICS_FILE;
pub use metrics_log::MetricsLine;
pub use sae::{Architecture, Gate, Sae, SaeConfig};
pub use step::StepTimes;
pub use sweep::{PARETO_FILE, PlannedRun, RunState, SWEEP_FILE, SweepData, SweepPlan, SweepRow, sweep};
pub use train::train;
pub use train_live::train_live;
pub use train_vectors::train_vectors;
