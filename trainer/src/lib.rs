//! Trains sparse autoencoders.
#![allow(dead_code, reason = "temporary")]
pub mod adam;
pub mod config;
mod dead_latents;
pub mod error;
pub mod feature_acts;
mod kernels;
mod schedule;
pub mod speed;
mod step;
pub use step::StepTimes;
mod weights;
pub use error::{Error, Result};
pub use feature_acts::FeatureActs;
