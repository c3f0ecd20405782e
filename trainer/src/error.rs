//! [`Error`]: what can go wrong between a folder of activations and a finished SAE. Files and values fail in the words
//! of [`harvester::Error`], which names the file, what was expected, what was found and what to do next.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The loss became infinite, nan, or far larger than at the start.
    #[error(
        "training diverged at step {step}: the loss is {loss}, it was {before} before. The last checkpoint is kept in \
         {}. Try a smaller --lr ({suggested_lr}), a longer warm-up, or --clip 1.0, in another --out",
        path.display()
    )]
    Diverged {
        /// The step whose loss it is.
        step: u64,
        /// The loss that stopped the run.
        loss: f64,
        /// A loss before it.
        before: f64,
        /// A learning rate to try next.
        suggested_lr: f64,
        /// Where the checkpoints are.
        path: PathBuf,
    },
    /// A file, a folder of another run, a value, or the user's wish to stop.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
}

impl Error {
    /// To be used in `map_err`: the operating system refused a file operation.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let of_harvester = harvester::Error::io(action, path);
        move |source| Self::Harvester(of_harvester(source))
    }

    /// A file was opened and is not what it should be.
    pub(crate) fn malformed(
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        harvester::Error::malformed(path, expected, found, hint).into()
    }

    /// A value given by the user cannot be used.
    pub(crate) fn invalid(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        harvester::Error::invalid(what, expected, found).into()
    }
}
