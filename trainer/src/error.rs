//! [`Error`]: the errors of this crate. Errors of files and values are [`harvester::Error`]s, which give the file, what
//! was expected, what was found and the next step.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error with its cause and the next step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Training diverged: continuing would not have helped.
    #[error("{}", diverged(*step, cause, advice, .checkpoint.as_deref()))]
    Diverged {
        /// The step at which it was detected.
        step: u64,
        /// The sign by which it was detected.
        cause: Divergence,
        /// Advice on the next step.
        advice: String,
        /// The last good checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// A file, a folder of another run, a value, or the user's wish to stop.
    #[error(transparent)]
    Harvester(#[from] harvester::Error),
}

/// Why a run was stopped as diverged.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Divergence {
    /// A number computed in the step is infinite or a NaN.
    #[error("{what} is {value}")]
    NotFinite {
        /// Name of the number.
        what: &'static str,
        /// Its value.
        value: f64,
    },
    /// The loss became far larger than before.
    #[error("the loss is {loss:.4}, its recent best was {best:.4}, and the SAE is worse than the mean (FVU {fvu:.3})")]
    Exploded {
        /// The loss that stopped the run.
        loss: f64,
        /// The best loss of the steps before.
        best: f64,
        /// Fraction of variance unexplained.
        fvu: f64,
    },
    /// No latent is active any more.
    #[error(
        "no latent has been active for {steps} steps, and inactive latents hardly get a gradient that could revive them"
    )]
    NoneActive {
        /// Number of steps without an active latent.
        steps: u64,
        /// Coefficient of the sparsity loss; 0 if there is none.
        sparsity_coefficient: f64,
    },
    /// Weights, or moments of the optimizer, are infinite or NaN.
    #[error("some weights, or moments of the optimizer, are infinite or NaN")]
    Weights,
}

fn diverged(step: u64, cause: &Divergence, advice: &str, checkpoint: Option<&Path>) -> String {
    let kept = match checkpoint {
        Some(path) => format!("The last good checkpoint is kept: {}.", path.display()),
        None => "There was no good checkpoint yet.".into(),
    };
    format!("training diverged at step {step}: {cause}. {kept} Try {advice}, in another `out`")
}

impl Error {
    /// The message for a file in the folder `out`: paths in this folder are relative to it, so that the folder can be
    /// moved.
    pub(crate) fn said_in(&self, out: &Path) -> String {
        match self {
            Self::Diverged { step, cause, advice, checkpoint } => {
                let below = checkpoint.as_deref().map(|path| path.strip_prefix(out).unwrap_or(path));
                diverged(*step, cause, advice, below)
            }
            other => other.to_string(),
        }
    }

    /// For `map_err`: the operating system refused a file operation.
    pub(crate) fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let of_harvester = harvester::Error::io(action, path);
        move |source| Self::Harvester(of_harvester(source))
    }

    /// A file was opened, but its content is not as expected.
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
