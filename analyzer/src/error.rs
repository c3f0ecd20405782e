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
    /// A command lacks something that it needs, or was given what does not fit together.
    #[error("{0}")]
    Usage(String),
    /// The user asked to stop a stage that writes its output only at the end.
    #[error("stopped on request; nothing was written: repeat the command to start again")]
    Stopped,
}

impl Error {
    /// True if `cause`, an error of any stage, is a setting that was given wrongly, as opposed to a file, a model or a
    /// service that is not as it should be.
    pub fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
        use harvester::Error as Harvester;
        fn of_trainer(error: &trainer::Error) -> Option<&Harvester> {
            match error {
                trainer::Error::Harvester(error) => Some(error),
                _ => None,
            }
        }
        let error = match cause.downcast_ref() {
            Some(Self::Usage(_)) => return true,
            Some(Self::Harvester(error)) => Some(error),
            Some(Self::Trainer(error)) => of_trainer(error),
            _ => cause.downcast_ref().or_else(|| cause.downcast_ref().and_then(of_trainer)),
        };
        match error {
            Some(Harvester::NoEffect { .. }) => true,
            Some(Harvester::Invalid { what, .. }) => what.starts_with('`') || what == "settings",
            _ => false,
        }
    }

    /// Each cause of an error in words; one that repeats the one before, as a transparent error does, is left out.
    pub fn in_words<'a>(chain: impl Iterator<Item = &'a (dyn std::error::Error + 'static)>) -> Vec<String> {
        let mut causes: Vec<String> = chain.map(ToString::to_string).collect();
        causes.dedup();
        causes
    }

    /// True if the disk is full, a quota is used up, or a limit on the size of files is reached.
    pub fn is_full_disk(cause: &(dyn std::error::Error + 'static)) -> bool {
        use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let error = cause.downcast_ref::<std::io::Error>();
        error.is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
    }
}

impl From<candle_core::Error> for Error {
    fn from(error: candle_core::Error) -> Self {
        Self::Harvester(error.into())
    }
}
