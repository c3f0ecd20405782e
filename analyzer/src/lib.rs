//! Finds the meaning of each latent of a sparse autoencoder, and clamps latents while the model generates text. This is
//! the last stage of `refract`: it reads the folders written by [`harvester`] and [`trainer`].
//!
//! The data path, one file each: [`feature_index`] makes one pass over the activations and collects for each latent how
//! often it fires ([`feature`]), its strongest examples (`top_examples`), the tokens that it promotes (`logit_lens`)
//! and the most similar latents (`neighbors`). [`FeatureIndex`] writes and reads this. [`contrast()`] and
//! [`interpretability`] select latents. [`Interventions`] edits them inside a forward pass, and [`generate()`]
//! generates text under such edits. [`shift()`] and [`evaluate()`] measure the change; `behavior` is the part of
//! `evaluate` that runs the model.
//! [`Workbench`] holds what these start from: an SAE, its model and, on request, its activations and features.

mod behavior;
mod contrast;
mod error;
mod evaluate;
pub mod feature;
pub mod feature_index;
mod feature_tables;
mod features_file;
pub mod features_manifest;
mod generate;
pub mod interpretability;
mod intervention;
mod logit_lens;
mod neighbors;
mod placed_sae;
mod sae_source;
mod shift;
mod site;
mod splice;
mod top_examples;
mod workbench;

pub use behavior::Behavior;
pub use contrast::{Contrast, contrast};
pub use error::{Error, Result};
pub use evaluate::{Evaluation, EvaluationConfig, PlaceFvu, evaluate};
pub use feature::{Example, Feature, TokenWeight};
pub use feature_index::index;
pub use features_file::FeatureIndex;
pub use features_manifest::{FeaturesManifest, IndexConfig};
pub use generate::{GenerateConfig, Generation, generate};
pub use intervention::{Intervention, Interventions};
pub use placed_sae::PlacedSae;
pub use sae_source::SaeSource;
pub use shift::{MovedToken, Shift, shift};
pub use site::Site;
pub use workbench::{Measured, SideBySide, Workbench};
