//! Finds latents among the features: those that tell two groups of texts apart, and those worth showing first.

mod contrast;
mod documents;
mod interpretability;
mod statistics;

pub use self::{
    contrast::{Contrast, contrast},
    documents::{ContrastConfig, Contrasts, DocumentContrast, RankBy, contrast_documents},
    interpretability::{About, Pick},
};
