//! From a model and a corpus to activations: into a folder ([`harvest()`]), from the folders of several machines into
//! one ([`merge()`]), or live, without a disk ([`LiveModel`]).

mod estimate;
#[cfg(test)]
mod harvest_tests;
mod harvester;
#[cfg(all(test, feature = "hub"))]
mod hub_datasets_tests;
mod live;
mod merge;

pub use self::{
    estimate::forward_estimate,
    harvester::{harvest, open_corpus},
    live::{LiveModel, StreamedBatch},
    merge::merge,
};
