//! Features: what is known about each latent, as a folder on disk.

mod feature;
mod folder;
mod manifest;
mod tables;

pub(crate) use self::{feature::HISTOGRAM_BINS, folder::write, manifest::IndexedSource};
pub use self::{
    feature::{Example, Feature},
    folder::FeatureIndex,
    manifest::{FeaturesManifest, IndexConfig},
};
