//! Trains sparse autoencoders (SAEs) on harvested activations. Second stage of `refract`: it reads the folder that
//! `harvester` wrote and writes an SAE folder, which SAELens opens too.
//!
//! The data path, one file each: `activation_source` gives blocks of rows that count, from shards or from a running
//! model, `shuffle_buffer` mixes them, `step` is a
//! training step over the `kernels`, [`train()`] is the loop around it, `checkpoint` makes it resumable, and [`sae`] is
//! what comes out. The encoder's matrix product is the only dense one: everything after it costs k of d_sae.

mod activation_source;
mod activations;
mod adam;
mod calibrate;
mod checkpoint;
pub mod config;
mod dead_latents;
pub mod error;
mod feature_acts;
pub mod formats;
mod input_norm;
mod kernels;
mod live_source;
pub mod manifest;
pub mod metrics;
mod metrics_log;
pub mod sae;
mod schedule;
mod shard_source;
mod shuffle_buffer;
pub mod speed;
mod step;
mod tensors;
pub mod train;
mod train_live;
mod weights;

pub use adam::AdamConfig;
pub use config::{TrainArchitecture, TrainConfig};
pub use error::{Error, Result};
pub use feature_acts::FeatureActs;
pub use formats::SaeFormat;
pub use input_norm::InputNorm;
pub use manifest::{SAE_FORMAT, SaeManifest, TrainResults};
pub use metrics::{Reconstruction, ReconstructionMetrics};
pub use metrics_log::MetricsLine;
pub use sae::{Architecture, Gate, Sae, SaeConfig};
pub use step::StepTimes;
pub use train::train;
pub use train_live::train_live;
