//! Finds the meaning of each latent of a sparse autoencoder, and clamps latents while the model generates text. This is
//! the last stage of `refract`: it reads the folders written by [`harvester`] and [`trainer`].
//!
//! The modules below stand in this order; each uses only those above it. An [`Artifact`] is whatever a path names. A
//! [`PlacedSae`] is an SAE at its hook point; a [`Workbench`] adds its model, opened once, and is where a command, a
//! server or a notebook starts:
//!
//! ```text
//! labels     the simple rule that predicts a latent best, with its F1 on text that it was not chosen on
//! effects    what each latent does to the next token, measured by adding it to neutral prompts
//! features   Feature, Example, Sample; FeatureIndex, the folder with all of them, opened lazily; Portrait of a latent
//! explain    which latents fire on each token of a text, and which matter for the next token
//! index      one pass over activations or a corpus: a state that merges and is saved, and what is computed from it: the
//!            strongest examples, a sample of the text, effects and labels
//! encode     the active latents of every token of any text
//! probe      a logistic regression on a few latents
//! find       latents by words, and those that tell two groups of texts apart
//! evaluate   how much of the model an SAE keeps: its reconstructions and, with the model running, behavior
//! compare    which latents of two SAEs are the same
//! steer      Interventions edit latents inside a forward pass, generate generates text under them, shift measures them
//! guard      GuardRules watch a text as it is read or written; Guard is the hook that judges it, and edits or ends it
//! ```

mod error;
mod token_weight;
mod facts;
mod columns;
mod tensor_rows;
mod sae_site;
mod placed_sae;
mod workbench;
mod encoded;
mod halves;
mod wilson;
mod auc;
mod labels;
mod next_token;
mod neutral;
mod effects;
mod features;
mod artifact;
mod sae_source;
mod listed;
mod explain;
mod index;
mod merge;
mod encode;
mod probe;
mod find;
mod evaluate;
mod compare;
mod steer;
mod guard;

pub use artifact::{Artifact, ArtifactKind, Content};
pub use columns::Columns;
pub use compare::{AtDensity, CompareConfig, Comparison, Counterpart, Fate, SharesAt, compare, compare_at};
pub use effects::{Dose, Effect, EffectMeter, EffectsConfig, effects};
pub use encode::{EncodeText, EncodedCounts, EncodedDocument, encode, encode_into};
pub use encoded::EncodedRows;
pub use error::{Error, Result};
pub use evaluate::{Behavior, Evaluation, EvaluationConfig, Measured, PlaceFvu, evaluate};
pub use explain::{ExplainConfig, Explanation, LatentEffect, Method, PartEffect, WholeTextEffect, explain};
pub use facts::{Facts, on_one_line, wrapped};
pub use features::{
    Example, ExampleKind, Feature, FeatureIndex, FeaturesManifest, FiresWith, Histogram, IndexConfig, IndexedText,
    Labeled, Portrait, Sample,
};
pub use find::{ContrastConfig, Contrasts, DocumentContrast, RankBy, SearchHit, TextGroup, TextHit, find};
pub use guard::{
    Action, AtRate, Detected, Guard, GuardEvent, GuardRules, Guarded, MonitorReport, Needs, Release, Rule, RuleReport,
    Score, ScoreOf, ScoreReport, Share, Smooth, Watched,
};
pub use index::{IndexText, index, merge_indexes};
pub use labels::{Label, LabelInput, label_all};
pub use listed::{ActiveLatent, Listed, TokenLatents};
pub use merge::{Merged, merge};
pub use placed_sae::PlacedSae;
pub use probe::Probe;
pub use sae_site::SaeSite;
pub use sae_source::SaeSource;
pub use steer::{
    Baseline, ControlVector, Direction, DirectionConfig, DirectionMethod, DirectionTokens, EditCount, Fluency,
    GenerateConfig, Generation, Intervention, Interventions, LatentMax, LatentScales, MovedLatent, MovedToken, Per,
    Positions, Prompt, Scope, Shift, SideBySide, SteerEdit, SteerVector, SteeredSae, Steering, Strength, Sweep,
    SweepPoint, SweepText, TokenShift, Trial, TrialText, When, bundled_corpora, direction, generate, shift,
};
pub use token_weight::TokenWeight;
pub use workbench::Workbench;
