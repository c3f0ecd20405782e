//! [`Error`]: the errors of this crate. Errors of files and values come from [`harvester::Error`]; this enum only
//! distinguishes the stage.

use std::path::PathBuf;

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
    #[error(
        "the activations that {} was trained on cannot be opened: name their present place, or others of its model, \
         with `activations`", .0.display()
    )]
    ActivationsMoved(PathBuf, #[source] Box<trainer::Error>),
    /// The model of an SAE is not at its recorded place, or is another one there.
    #[error("the model of {} cannot be opened: name its present place with `model`", .0.display())]
    ModelMoved(PathBuf, #[source] Box<harvester::Error>),
    /// The user asked to stop a stage that writes its output only at the end.
    #[error("stopped on request; nothing was written: repeat the command to start again")]
    Stopped,
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Harvester(error.into())
    }
}
