//! Values that flags take: counts of tokens, sizes, numbers, and the names of enums with a phrase each.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use harvester::human;
use trainer::TrainArchitecture;

/// A count, as [`human::whole`] reads it.
pub(super) fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let whole = human::whole(text).and_then(|number| T::try_from(number).ok());
    whole.ok_or_else(|| "expected a whole number such as 4096, 1_000_000, 1e6, 3k or 1.5M".to_string())
}

/// A count of things to list.
pub(super) fn at_least_1(text: &str) -> Result<usize, String> {
    count(text).and_then(|n| if n > 0 { Ok(n) } else { Err("expected 1 or more".into()) })
}

/// The number of a latent.
pub(super) fn latent(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected the number of a latent, from 0".to_string())
}

/// A value that a command cannot do without.
pub(crate) fn required<T: Clone>(value: &Option<T>, command: &str, setting: &str) -> anyhow::Result<T> {
    let lacks = || usage(format!("{command} needs `{setting}`, as a flag or in --config"));
    value.clone().ok_or_else(lacks)
}

/// The error for a command line or a config file that cannot be used.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    analyzer::Error::Usage(text.into()).into()
}

/// MiB, as bytes.
pub(super) fn mib(text: &str) -> Result<u64, String> {
    let bytes = text.parse::<u64>().ok().and_then(|mib| mib.checked_mul(1 << 20)).filter(|bytes| *bytes > 0);
    bytes.ok_or_else(|| format!("expected 1 to {} MiB", u64::MAX >> 20))
}

/// A number: neither nan nor an infinity, which settings cannot hold.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.parse::<f64>().ok().filter(|number| number.is_finite()).ok_or_else(|| "expected a finite number".to_string())
}

/// A share of something, above 0.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "expected a share above 0 and at most 1".to_string())
}

/// The names of `--arch`.
pub(super) fn architectures() -> impl TypedValueParser<Value = TrainArchitecture> {
    let value = |arch: TrainArchitecture| PossibleValue::new(arch.name()).help(arch.about());
    PossibleValuesParser::new(TrainArchitecture::ALL.map(value)).try_map(|name| name.parse::<TrainArchitecture>())
}
