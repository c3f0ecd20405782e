//! Finds latents: by words, and those that tell two groups of texts apart.

mod documents;
mod groups;
mod search;
mod search_text;
mod statistics;

pub use self::{
    documents::{ContrastConfig, Contrasts, DocumentContrast, RankBy},
    groups::{TextGroup, find},
    search::SearchHit,
    search_text::TextHit,
};
