//! [`RunArgs`]: the flags that `refract train` and `refract sweep` share, and the values that theirs may have.

use std::path::PathBuf;

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use serde::Serialize;
use trainer::{JumpReluLoss, TrainArchitecture};

/// What is read, where to write, and how the rows are gone through.
#[derive(Debug, Args, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct RunArgs {
    /// The folder that `refract harvest` wrote, a folder of the parts of one corpus, or an URL.
    #[arg(long)]
    pub(crate) activations: Option<PathBuf>,
    /// Vectors of any origin: a parquet file, or a folder or URL of them, with a column of lists of numbers.
    #[arg(long, conflicts_with = "activations")]
    pub(crate) vectors: Option<PathBuf>,
    /// Which column of the vectors [default: the only one of lists].
    #[arg(long)]
    pub(crate) column: Option<String>,
    /// The folder to write. An unfinished run of the same command goes on there.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Tokens a run trains on; more than there are is several passes [default: 1500000].
    #[arg(long)]
    pub(crate) tokens: Option<u64>,
    /// Tokens a step [default: 4096].
    #[arg(long)]
    pub(crate) batch: Option<usize>,
    /// Memory for activations that are shuffled together, in MiB [default: 512].
    #[arg(long, display_order = LAST)]
    pub(crate) buffer_mib: Option<u64>,
    /// Steps from one checkpoint to the next [default: 100].
    #[arg(long, display_order = LAST)]
    pub(crate) checkpoint_every: Option<u64>,
    /// Begin from this SAE, of any format that convert reads, instead of random weights.
    #[arg(long, value_name = "SAE", display_order = LAST)]
    pub(crate) init_from: Option<PathBuf>,
}

/// Help lists what a run is made of before how it is kept going; a flag's usual place is its number among all.
pub(super) const LAST: usize = 500;

/// The names of `--arch`, each with a phrase.
pub(super) fn architectures() -> impl TypedValueParser<Value = TrainArchitecture> {
    let value = |arch: TrainArchitecture| PossibleValue::new(arch.name()).help(arch.about());
    PossibleValuesParser::new(TrainArchitecture::ALL.map(value)).try_map(|name| name.parse::<TrainArchitecture>())
}

/// The names of `--jumprelu-loss`.
pub(super) fn jumprelu_losses() -> impl TypedValueParser<Value = JumpReluLoss> {
    PossibleValuesParser::new(["step", "tanh"])
        .map(|name| if name == "tanh" { JumpReluLoss::Tanh } else { JumpReluLoss::Step })
}

/// A number: neither nan nor an infinity, which settings cannot hold.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| "expected a finite number".to_string())
}
