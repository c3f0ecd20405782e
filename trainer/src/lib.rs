//! Trains sparse autoencoders.
#![allow(dead_code, reason = "temporary")]
pub mod adam;
pub mod config;
mod dead_latents;
pub mod error;
pub mod feature_acts;
mod formats;
mod kernels;
pub mod metrics;
pub mod sae;
mod schedule;
pub mod speed;
mod step;
mod tensors;
mod weights;
pub use error::{Error, Result};
pub use feature_acts::FeatureActs;
pub use sae::{Architecture, Sae, SaeConfig};
pub use step::StepTimes;
