//! The built binary, run as a user runs it: the whole pipeline on the real default model, and everything that can be
//! wrong with its input.

#![expect(clippy::unwrap_used, reason = "tests")]

mod architectures;
mod convert;
mod corpora;
mod documents;
mod errors;
mod flags;
mod help;
mod kills;
mod layouts;
mod live;
#[cfg(feature = "hub")]
mod live_hub;
mod moved;
#[cfg(feature = "cloud")]
mod object_store;
mod pipeline;
mod sae_on_activations;
mod sandbox;
mod sweep;
mod vectors;
