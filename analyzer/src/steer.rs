//! Steering: edits inside a forward pass, text generated under them, and how far they move the model.

mod generate;
mod strength;
mod positions;
mod prompt;
mod direction;
mod control_vector;
mod intervention;
mod scope;
mod step;
mod compile;
mod interventions;
mod steering;
mod shift;
mod fluency;
mod side_by_side;
mod trial;
mod sweep;
mod demonstration;

pub use self::{
    compile::SteeredSae,
    control_vector::ControlVector,
    demonstration::bundled_corpora,
    direction::{DirectionConfig, DirectionMethod, DirectionTokens, SteerVector, direction},
    fluency::Fluency,
    generate::{GenerateConfig, Generation, generate},
    intervention::{Direction, Intervention, Per, Scope, SteerEdit, When},
    interventions::Interventions,
    positions::Positions,
    prompt::Prompt,
    shift::{MovedToken, Shift, TokenShift, shift},
    side_by_side::{MovedLatent, SideBySide},
    steering::Steering,
    step::{EditCount, LatentMax},
    strength::{LatentScales, Strength},
    sweep::{Sweep, SweepPoint, SweepText},
    trial::{Baseline, Trial, TrialText},
};
pub(crate) use self::{compile::check_width, side_by_side::decoded_so_far};
