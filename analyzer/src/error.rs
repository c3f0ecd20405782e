//! [`Error`]: the errors of this crate. Errors of files and values come from [`harvester::Error`]; this enum only
//! distinguishes the stage.

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its cause and the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error in a file, a value, the model or the activations.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
    /// An error in the sparse autoencoder.
    #[error(transparent)]
    Trainer(#[from] trainer::Error),
    /// The activations that an SAE was trained on cannot be opened.
    #[error("name others, or where they are now, with `activations`")]
    ActivationsMoved(#[source] Box<trainer::Error>),
    /// The user asked to stop a stage that writes its output only at the end.
    #[error("stopped on request; nothing was written: repeat the command to start again")]
    Stopped,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Harvester(error.into())
    }
}
