//! Guards: scores of every token, rules on them, and what happens where a rule holds, while the model writes or over a
//! corpus.

mod rules;
mod signal;
mod measures;
mod judge;
mod hook;
mod guarded;
mod monitor;

pub use self::{
    guarded::Guarded,
    hook::Guard,
    judge::GuardEvent,
    monitor::{AtRate, Detected, MonitorReport, RuleReport, ScoreReport, Share, Watched},
    rules::{Action, GuardRules, Needs, Release, Rule, Score, ScoreOf, Smooth},
};
