//! [`Error`]: what can go wrong while features are indexed or latents clamped. Files and values fail in the words of
//! [`harvester::Error`]; this enum only says which stage they failed in.

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file, a value, the model or the activations.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
    /// The sparse autoencoder.
    #[error(transparent)]
    Trainer(#[from] trainer::Error),
    /// The activations that an SAE was trained on cannot be opened.
    #[error("name others, or where they are now, with `activations`")]
    ActivationsMoved(#[source] Box<trainer::Error>),
    /// The user asked to stop a stage that writes only at its end.
    #[error("stopped on request; nothing was written: repeat the command to start again")]
    Stopped,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Harvester(error.into())
    }
}
