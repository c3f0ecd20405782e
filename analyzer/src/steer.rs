//! Steering: edits of latents inside a forward pass, text generated under them, and how far they move the model.

mod generate;
mod intervention;
mod prompt;
mod shift;
mod side_by_side;
mod trial;
mod demonstration;

pub use self::{
    demonstration::bundled_corpora,
    generate::{GenerateConfig, Generation, generate},
    intervention::{Intervention, Interventions, LatentMax},
    shift::{MovedToken, Shift, shift},
    side_by_side::SideBySide,
    trial::{Baseline, Trial, TrialText},
};
