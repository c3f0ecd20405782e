//! Values that flags take: counts of tokens, sizes, numbers, and the names of enums with a phrase each.

use analyzer::{Intervention, RankBy};
use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use harvester::human;
use trainer::{AdamConfig, JumpReluLoss, TrainArchitecture};

/// A count, as [`human::whole`] reads it.
pub(super) fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let whole = human::whole(text).and_then(|number| T::try_from(number).ok());
    whole.ok_or_else(|| "expected a whole number such as 4096, 1_000_000, 1e6, 3k or 1.5M".to_string())
}

/// The number of a latent.
pub(super) fn latent(text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| "expected the number of a latent, from 0".to_string())
}

/// A value that a command cannot do without.
pub(crate) fn required<T: Clone>(value: &Option<T>, command: &str, setting: &str) -> anyhow::Result<T> {
    value.clone().with_context(|| format!("{command} needs `{setting}`, as a flag or in --config"))
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

/// `LATENT=VALUE`: an activation to clamp.
pub(super) fn clamp(text: &str) -> Result<Intervention, String> {
    latent_value(text).map(|(latent, value)| Intervention::Clamp { latent, value })
}

/// `LATENT=FACTOR`: an activation to scale.
pub(super) fn scale(text: &str) -> Result<Intervention, String> {
    latent_value(text).map(|(latent, factor)| Intervention::Scale { latent, factor })
}

fn latent_value(text: &str) -> Result<(u32, f32), String> {
    let parsed = text.split_once('=').and_then(|(latent, value)| Some((latent.parse().ok()?, value.parse().ok()?)));
    parsed.ok_or_else(|| "expected LATENT=NUMBER, such as 1234=0".to_string())
}

/// The names of `--arch`.
pub(super) fn architectures() -> impl TypedValueParser<Value = TrainArchitecture> {
    let value = |arch: TrainArchitecture| PossibleValue::new(arch.name()).help(arch.about());
    PossibleValuesParser::new(TrainArchitecture::ALL.map(value)).try_map(|name| name.parse::<TrainArchitecture>())
}

/// The names of `--jumprelu-loss`.
pub(super) fn jumprelu_losses() -> impl TypedValueParser<Value = JumpReluLoss> {
    PossibleValuesParser::new(["step", "tanh"])
        .map(|name| if name == "tanh" { JumpReluLoss::Tanh } else { JumpReluLoss::Step })
}

/// The names of `--optimizer`.
pub(super) fn optimizers() -> impl TypedValueParser<Value = AdamConfig> {
    PossibleValuesParser::new(["nadam", "adam"])
        .map(|name| AdamConfig { nesterov: name == "nadam", ..AdamConfig::default() })
}

/// The order of `refract find`.
pub(crate) fn rank(text: &str) -> Result<RankBy, String> {
    serde_json::from_value(text.into()).map_err(|_| "expected auc, frequency or normalized-mean".to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_fit_their_type() {
        assert_eq!(count::<u8>("255"), Ok(255));
        assert!(["256", "-3", "1.5"].into_iter().all(|text| count::<u8>(text).is_err()));
    }

    #[test]
    fn sizes_are_bytes_that_can_be_counted() {
        assert_eq!(mib("512"), Ok(512 << 20));
        assert!(["0", "17592186044416", "x"].into_iter().all(|text| mib(text).is_err()));
    }
}
