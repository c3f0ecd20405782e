//! Values that flags take: counts of tokens, sizes, numbers, and the names of enums with a phrase each.

use analyzer::Intervention;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use trainer::{AdamConfig, JumpReluLoss, TrainArchitecture};

/// A count: `4096`, `1_000_000`, `3k`, `1.5M`.
pub(super) fn count<T: TryFrom<u64>>(text: &str) -> Result<T, String> {
    let expected = || "expected a whole number such as 4096, 1_000_000, 3k or 1.5M".to_string();
    let unit = match text.chars().last() {
        Some('k' | 'K') => 1_000,
        Some('m' | 'M') => 1_000_000,
        Some('g' | 'G') => 1_000_000_000,
        _ => 1,
    };
    let digits = if unit == 1 { text } else { &text[..text.len() - 1] }.replace('_', "");
    let (whole, decimals) = digits.split_once('.').unwrap_or((&digits, ""));
    let all: Option<u64> =
        Some([whole, decimals].concat()).filter(|_| !whole.is_empty()).and_then(|it| it.parse().ok());
    let scale = u32::try_from(decimals.len()).ok().and_then(|n| 10u64.checked_pow(n));
    let (all, scale) = all.zip(scale).filter(|(all, _)| all.checked_mul(unit).is_some()).ok_or_else(expected)?;
    if (all * unit) % scale != 0 {
        return Err(expected());
    }
    T::try_from(all * unit / scale).map_err(|_| expected())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_whole_numbers_with_a_unit() {
        for (text, expected) in [
            ("4096", 4096),
            ("1_000_000", 1_000_000),
            ("3k", 3000),
            ("1.5M", 1_500_000),
            ("0.25k", 250),
            ("2G", 2_000_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(count::<u64>(text), Ok(expected), "{text}");
        }
        for text in
            ["", "k", ".5k", "1.5", "1.2345k", "-3", "3kk", "1e6", "18446744073709551616", "1e", "99999999999999G"]
        {
            assert!(count::<u64>(text).is_err(), "{text}");
        }
        assert!(count::<u8>("256").is_err());
    }

    #[test]
    fn sizes_are_bytes_that_can_be_counted() {
        assert_eq!(mib("512"), Ok(512 << 20));
        assert!(["0", "17592186044416", "x"].into_iter().all(|text| mib(text).is_err()));
    }
}
