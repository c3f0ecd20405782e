//! [`Strength`]: how strong an edit is, in one of four units; [`LatentScales`]: what was measured of the latents, which
//! two of them need.
//!
//! ```text
//! 4         the value itself
//! 1.5max    times the latent's largest activation in the index
//! 0.4norm   times the norm of the row that is edited
//! 0.25kl    the activation that moves the next token by so many nats:  dose_kl25 sqrt(kl / 0.25)
//! ```
//! KL grows nearly as the square of a small dose, and `dose_kl25` was measured on neutral prompts: the last unit makes
//! latents comparable, and is not exact on another text.

use std::{collections::BTreeMap, fmt, str::FromStr};

use harvester::Error as Harvester;
use serde::{Deserialize, Serialize};

use crate::{FeatureIndex, Result};

/// Largest value, factor or multiple: thousands of times the largest activation of any latent. Much larger ones overflow
/// in the next norm, and the model can no longer predict anything.
const LARGEST: f32 = 1e6;

/// The KL divergence of `dose_kl25`.
const MEASURED_KL: f32 = 0.25;

/// How strong an edit is. Written as a number, or as a text such as `1.5max`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum Strength {
    /// The activation of a latent, or the factor of a vector.
    Value(f32),
    /// A multiple of the latent's largest activation.
    Max(f32),
    /// A multiple of the norm of the row that is edited.
    Norm(f32),
    /// The KL divergence that it has on a neutral prompt, in nats.
    Kl(f32),
}

/// How a strength is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number, or a text such as \"1.5max\", \"0.4norm\" or \"0.25kl\"")]
enum Written {
    Number(f32),
    Text(String),
}

/// A strength with its unit resolved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Amount {
    Fixed(f32),
    /// A multiple of the row's norm.
    OfNorm(f32),
}

impl Strength {
    /// The number before its unit.
    pub(super) fn number(self) -> f32 {
        match self {
            Self::Value(number) | Self::Max(number) | Self::Norm(number) | Self::Kl(number) => number,
        }
    }

    /// The same unit with `factor` times the number.
    pub(super) fn times(self, factor: f32) -> Self {
        match self {
            Self::Value(number) => Self::Value(factor * number),
            Self::Max(number) => Self::Max(factor * number),
            Self::Norm(number) => Self::Norm(factor * number),
            Self::Kl(number) => Self::Kl(factor * number),
        }
    }

    /// The number for a latent, or for a vector, which has no measured activations.
    ///
    /// # Errors
    /// A number that is not finite or too large; a unit that needs what was not measured.
    pub(super) fn amount(self, latent: Option<u32>, scales: Option<&LatentScales>) -> Result<Amount> {
        finite("strength", self.number())?;
        let measured = || {
            let unit = self.to_string();
            let Some(latent) = latent else {
                let expected = "a number or a multiple of `norm`: a vector has no measured activations";
                return Err(Harvester::invalid("strength of a vector", expected, unit));
            };
            let Some(scales) = scales else {
                let expected = format!("`features`, the index in which latent {latent} was measured");
                return Err(Harvester::invalid(format!("strength {unit}"), expected, "none"));
            };
            Ok((latent, scales))
        };
        Ok(match self {
            Self::Value(value) => Amount::Fixed(value),
            Self::Norm(share) => Amount::OfNorm(share),
            Self::Max(multiple) => {
                let (latent, scales) = measured()?;
                Amount::Fixed(multiple * scales.max(latent)?)
            }
            Self::Kl(kl) => {
                let (latent, scales) = measured()?;
                if kl < 0.0 {
                    return Err(Harvester::invalid("strength in `kl`", "0 or more nats", kl.to_string()).into());
                }
                Amount::Fixed(scales.dose_kl25(latent)? * (kl / MEASURED_KL).sqrt())
            }
        })
    }
}

/// Refuses a number that is not finite, or so large that the pass would overflow.
pub(super) fn finite(what: &str, number: f32) -> Result<()> {
    // Also false for NaN.
    if (-LARGEST..=LARGEST).contains(&number) {
        return Ok(());
    }
    Err(Harvester::invalid(what, format!("a number from -{LARGEST} to {LARGEST}"), format!("{number:e}")).into())
}

impl fmt::Display for Strength {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => write!(f, "{value}"),
            Self::Max(multiple) => write!(f, "{multiple}max"),
            Self::Norm(share) => write!(f, "{share}norm"),
            Self::Kl(kl) => write!(f, "{kl}kl"),
        }
    }
}

impl FromStr for Strength {
    type Err = Harvester;

    fn from_str(text: &str) -> Result<Self, Harvester> {
        let unit = ["max", "norm", "kl"].into_iter().find(|unit| text.ends_with(unit)).unwrap_or_default();
        let number = text.strip_suffix(unit).and_then(|number| number.trim_end().parse().ok());
        let parsed = number.map(|number| match unit {
            "max" => Self::Max(number),
            "norm" => Self::Norm(number),
            "kl" => Self::Kl(number),
            _ => Self::Value(number),
        });
        parsed.ok_or_else(|| Harvester::invalid("strength", "4, 1.5max, 0.4norm or 0.25kl", format!("`{text}`")))
    }
}

impl TryFrom<Written> for Strength {
    type Error = Harvester;

    fn try_from(written: Written) -> Result<Self, Harvester> {
        match written {
            Written::Number(value) => Ok(Self::Value(value)),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Strength> for Written {
    fn from(strength: Strength) -> Self {
        match strength {
            Strength::Value(value) => Self::Number(value),
            other => Self::Text(other.to_string()),
        }
    }
}

/// How strongly each latent of an index fires, and what it takes to move the next token with it.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentScales {
    max: Vec<f32>,
    /// Of the latents that were measured.
    dose_kl25: BTreeMap<u32, f32>,
}

impl LatentScales {
    /// Those of an index.
    ///
    /// # Errors
    /// A damaged table.
    pub fn of(index: &FeatureIndex) -> Result<Self> {
        let dose_kl25 = index.effects()?.into_iter().map(|effect| (effect.latent, effect.dose_kl25)).collect();
        Ok(Self { max: index.column("max")?, dose_kl25 })
    }

    /// The largest activation of a latent.
    fn max(&self, latent: u32) -> Result<f32> {
        match self.max.get(latent as usize) {
            Some(&max) if max > 0.0 => Ok(max),
            _ => {
                let expected = "a latent that fired in the index, for a strength in `max`";
                Err(Harvester::invalid(format!("latent {latent}"), expected, "one that never did").into())
            }
        }
    }

    /// The activation that moves the next token by 0.25 nats.
    fn dose_kl25(&self, latent: u32) -> Result<f32> {
        match self.dose_kl25.get(&latent) {
            Some(&dose) if dose.is_finite() => Ok(dose),
            found => {
                let expected = "a latent whose dose was measured, for a strength in `kl`";
                let found = match found {
                    Some(_) => "one that does not move the next token by 0.25 nats at 20 times its maximum",
                    None => "one without a measured effect",
                };
                Err(Harvester::invalid(format!("latent {latent}"), expected, found).into())
            }
        }
    }

    /// Strengths to begin with, in words; `None` for a latent that never fired.
    pub(super) fn suggestion(&self, latent: u32) -> Option<String> {
        let max = self.max(latent).ok()?;
        let dose = self.dose_kl25(latent).map_or_else(
            |_| "no dose up to 20 times that moves the next token by 0.25 nats".into(),
            |dose| format!("the next token moves by 0.25 nats at {dose:.1}"),
        );
        Some(format!("{latent} reaches {max:.1} in the index; {dose}; try {:.0} to {:.0}", 0.5 * max, 1.5 * max))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_as_they_are_written() {
        for text in ["4", "-2.5", "1.5max", "0.4norm", "0.25kl"] {
            assert_eq!(text.parse::<Strength>().unwrap().to_string(), text);
            let json = serde_json::to_string(&text.parse::<Strength>().unwrap()).unwrap();
            assert_eq!(serde_json::from_str::<Strength>(&json).unwrap(), text.parse().unwrap(), "{json}");
        }
        assert_eq!(serde_json::to_string(&Strength::Value(4.0)).unwrap(), "4.0");
        for text in ["", "max", "4x", "1,5max", "4 maxi"] {
            assert!(text.parse::<Strength>().is_err(), "{text}");
        }
    }

    #[test]
    fn units_become_numbers_with_what_was_measured() {
        let scales = LatentScales { max: vec![0.0, 8.0], dose_kl25: [(1, 3.0)].into() };
        let amount = |text: &str, latent, scales| text.parse::<Strength>().unwrap().amount(latent, scales);
        let fixed = |text: &str| amount(text, Some(1), Some(&scales)).unwrap();
        assert_eq!(fixed("1.5max"), Amount::Fixed(12.0));
        assert_eq!(fixed("1kl"), Amount::Fixed(6.0), "four times the KL is twice the dose");
        assert_eq!((fixed("7"), fixed("0.4norm")), (Amount::Fixed(7.0), Amount::OfNorm(0.4)));
        let refused = |text: &str, latent, scales| amount(text, latent, scales).unwrap_err().to_string();
        for (message, part) in [
            (refused("1max", None, None), "a vector has no measured activations"),
            (refused("1max", Some(1), None), "`features`, the index in which latent 1 was measured"),
            (refused("1max", Some(0), Some(&scales)), "one that never did"),
            (refused("1kl", Some(0), Some(&scales)), "without a measured effect"),
            (refused("inf", Some(1), None), "a number from -1000000 to 1000000, found inf"),
            (refused("nan", Some(1), None), "found NaN"),
        ] {
            assert!(message.contains(part), "{message}");
        }
        assert!(scales.suggestion(1).unwrap().contains("try 4 to 12") && scales.suggestion(0).is_none());
    }
}
