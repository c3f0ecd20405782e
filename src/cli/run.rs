//! [`DataArgs`] and [`RunArgs`]: the flags that `refract train` and `refract sweep` share.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use trainer::TrainArchitecture;

use super::value::{count, mib};

/// The data to read and the folder to write.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DataArgs {
    /// The folder that `refract harvest` wrote, a folder of the parts of one corpus, or a URL [this, --vectors or the
    /// --corpus of train is required, here or in --config].
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// Vectors of any origin: a parquet file, or a folder or URL of them, with a column of lists of numbers.
    #[arg(long, conflicts_with = "activations")]
    pub(crate) vectors: Option<PathBuf>,
    /// The column of --vectors to read [default: the only one that holds lists].
    #[arg(long, conflicts_with = "activations")]
    pub(crate) column: Option<String>,
    /// The folder to write. The same command resumes an unfinished run there [required, here or in --config].
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

impl DataArgs {
    /// Refuses an architecture that needs hook points, which vectors do not have.
    pub(crate) fn check(&self, architectures: &[TrainArchitecture]) -> anyhow::Result<()> {
        match architectures.iter().find(|arch| self.vectors.is_some() && !arch.maps_one_column()) {
            Some(arch) => anyhow::bail!(
                "`architecture` {arch} needs several hook points of a model, which `vectors` do not have: use \
                 `activations`"
            ),
            None => Ok(()),
        }
    }
}

/// Settings of the pass over the rows; the same for all runs of a sweep.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RunArgs {
    /// Tokens to train on; more than the dataset has means several epochs.
    #[arg(long, value_parser = count::<u64>)]
    pub(crate) tokens: Option<u64>,
    /// Tokens per step.
    #[arg(long, value_parser = count::<usize>)]
    pub(crate) batch: Option<usize>,
    /// Memory for activations that are shuffled together.
    #[arg(long = "buffer-mib", value_name = "MIB", value_parser = mib, display_order = LAST)]
    pub(crate) buffer_bytes: Option<u64>,
    /// Steps from one checkpoint to the next.
    #[arg(long, value_name = "STEPS", display_order = LAST)]
    pub(crate) checkpoint_every: Option<u64>,
    /// Begin from this SAE, of any format that convert reads, instead of random weights.
    #[arg(long, value_name = "SAE", display_order = LAST)]
    pub(crate) init_from: Option<PathBuf>,
}

/// Position in the help of flags that do not change the result: after the others, each of which has its number among
/// all flags.
pub(super) const LAST: usize = 500;
