//! Finds the latents that tell two groups of texts apart.

mod contrast;
mod documents;
mod statistics;

pub use self::{
    contrast::{Contrast, contrast},
    documents::{ContrastConfig, Contrasts, DocumentContrast, RankBy, contrast_documents},
};
