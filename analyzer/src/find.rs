//! Finds latents among the features: those that tell two groups of texts apart, and those worth showing first.

mod contrast;
mod interpretability;

pub use self::{
    contrast::{Contrast, contrast},
    interpretability::{About, Pick},
};
