//! Finds what each latent of a sparse autoencoder means, and clamps latents while the model writes. Last stage of
//! `refract`: it reads what [`harvester`] and [`trainer`] wrote.
//!
//! The data path, one file each: [`feature_index`] goes once over the activations and keeps, per latent, how often it
//! fires ([`feature`]), where most strongly (`top_examples`), what it writes (`logit_lens`) and which latents are
//! like it (`neighbours`); [`FeatureIndex`] puts that on disk. [`contrast()`] and [`interpretability`] choose among
//! latents. [`Interventions`] edits them inside a forward pass, [`generate()`] writes text under such edits,
//! [`shift()`] and [`evaluate()`] measure what changed, the latter with `behaviour` where it runs the model. A
//! [`Workbench`] holds what these start from.

mod behaviour;
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
mod neighbours;
mod placed_sae;
mod sae_source;
mod shift;
mod site;
mod splice;
mod top_examples;
mod workbench;

pub use behaviour::Behaviour;
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
