//! [`Error`]: everything that can go wrong between a folder of activations and a finished SAE. Each message names the
//! file, what was expected, what was found and what to do next.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was attempted, as a verb: "read", "write", "rename to".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file was opened and is not what it should be.
    #[error("{}: expected {expected}, found {found}. {hint}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What a good file has there.
        expected: String,
        /// What this one has.
        found: String,
        /// What to do next.
        hint: String,
    },
    /// A value given by the user cannot be used.
    #[error("{what}: expected {expected}, found {found}")]
    Invalid {
        /// The option or field.
        what: String,
        /// What would be accepted.
        expected: String,
        /// What was given.
        found: String,
    },
    /// The output folder holds a run with other inputs or settings.
    #[error(
        "{} holds another run; these differ:\n{}\nChoose another --out, or repeat the command that made this folder",
        path.display(), differences.join("\n")
    )]
    OtherRun {
        /// The output folder.
        path: PathBuf,
        /// One line a difference: name, there, here.
        differences: Vec<String>,
    },
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
    /// The user asked to stop; everything finished so far is on disk.
    #[error("stopped on request; what was finished is kept in {}, and the same command goes on from there", path.display())]
    Cancelled {
        /// Where the finished part is.
        path: PathBuf,
    },
    /// The activations could not be read.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
}

impl Error {
    /// An [`Error::Io`] constructor to be used in `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// An [`Error::Malformed`].
    pub fn malformed(
        path: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            path: path.as_ref().to_path_buf(),
            expected: expected.into(),
            found: found.into(),
            hint: hint.into(),
        }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), expected: expected.into(), found: found.into() }
    }
}
