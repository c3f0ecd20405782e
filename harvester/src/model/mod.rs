//! One decoder-only transformer for every family, with hooks.

mod config;

pub use config::{Activation, Family, ModelConfig, NormKind, Positions};
