//! [`Error`]: what can go wrong between a folder of activations and a finished SAE. Files and values fail in the words
//! of [`harvester::Error`], which names the file, what was expected, what was found and what to do next.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nothing good would have come of training further.
    #[error("{}", diverged(*step, cause, advice, .checkpoint.as_deref()))]
    Diverged {
        /// The step that showed it.
        step: u64,
        /// What it showed.
        cause: Divergence,
        /// What to try next.
        advice: String,
        /// The last good checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// A file, a folder of another run, a value, or the user's wish to stop.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
}

/// Why a run was stopped: nothing good would have come of it.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Divergence {
    /// A number that the step computed is infinite or nan.
    #[error("{what} is {value}")]
    NotFinite {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The loss became far larger than it was.
    #[error("the loss is {loss:.4}, its recent best was {best:.4}, and the SAE is worse than the mean (FVU {fvu:.3})")]
    Exploded {
        /// The loss that stopped the run.
        loss: f64,
        /// The best of the steps before.
        best: f64,
        /// Fraction of variance unexplained.
        fvu: f64,
    },
    /// No latent is active any more.
    #[error(
        "no latent has been active for {steps} steps, and without an active one hardly any has a gradient to come back by"
    )]
    Silent {
        /// For how many steps.
        steps: u64,
        /// Coefficient of the sparsity loss; 0 where there is none.
        sparsity_coefficient: f64,
    },
    /// The weights, or the moments of the optimizer, are no longer numbers.
    #[error("some weights, or moments of the optimizer, are infinite or nan")]
    Weights,
}

fn diverged(step: u64, cause: &Divergence, advice: &str, checkpoint: Option<&Path>) -> String {
    let kept = match checkpoint {
        Some(path) => format!("The last good checkpoint is kept: {}.", path.display()),
        None => "There was no good checkpoint yet.".into(),
    };
    format!("training diverged at step {step}: {cause}. {kept} Try {advice}, in another --out")
}

impl Error {
    /// What it says in a file of the folder `out`: files below are named from there, so that the folder may be moved.
    pub(crate) fn said_in(&self, out: &Path) -> String {
        match self {
            Self::Diverged { step, cause, advice, checkpoint } => {
                let below = checkpoint.as_deref().map(|path| path.strip_prefix(out).unwrap_or(path));
                diverged(*step, cause, advice, below)
            }
            other => other.to_string(),
        }
    }

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
