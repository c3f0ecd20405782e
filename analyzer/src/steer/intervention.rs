//! [`Intervention`]: what an edit does to an activation; [`SteerEdit`]: the same with where, when and on which SAE. They
//! are written in the same way as a flag, in TOML and in JSON.
//!
//! With `z` the activation of a latent, `h` the row, `W_dec[j]` its direction, `v` and `t` directions of length 1:
//! ```text
//! clamp     z' = value             floor  z' = max(z, value)      cap      z' = min(z, value)
//! suppress  z' = 0                 scale  z' = factor z
//! add       h' = h + value W_dec[j], or + value times a vector    ablate   h' = h - (h . v) v
//! swap      h' = h + (h . v) (t - v)                              splice   h' = the SAE's reconstruction of h
//! ```
//! Except with `splice`, the part of `h` that the SAE does not explain stays.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use harvester::{Error as Harvester, HookPoint, Settings, config_of};
use serde::{Deserialize, Serialize};

use super::{positions::Positions, strength::Strength};
use crate::{Error, Result};

/// What an edit does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Intervention {
    /// Sets a latent's activation: 0 suppresses a feature, a large value drives it.
    Clamp {
        /// The latent.
        latent: u32,
        /// Its new activation.
        value: Strength,
    },
    /// Raises a latent's activation to a value where it is below.
    Floor {
        /// The latent.
        latent: u32,
        /// Its lowest activation.
        value: Strength,
    },
    /// Lowers a latent's activation to a value where it is above.
    Cap {
        /// The latent.
        latent: u32,
        /// Its highest activation.
        value: Strength,
    },
    /// Sets a latent's activation to 0.
    Suppress {
        /// The latent.
        latent: u32,
    },
    /// Multiplies a latent's activation: changes only the tokens on which it is active.
    Scale {
        /// The latent.
        latent: u32,
        /// Factor of its activation.
        factor: f32,
    },
    /// Adds a direction. A vector keeps its length, unless the strength is a multiple of the row's norm.
    Add {
        /// What is added.
        #[serde(alias = "latent")]
        direction: Direction,
        /// Factor of it.
        value: Strength,
    },
    /// Removes a direction: the row no longer has a part along it.
    Ablate {
        /// What is removed.
        #[serde(alias = "latent")]
        direction: Direction,
    },
    /// Turns the part along one direction into the same amount of another.
    Swap {
        /// What is removed.
        #[serde(alias = "latent")]
        direction: Direction,
        /// What takes its place.
        to: Direction,
    },
    /// Continues with the SAE's reconstruction, without what the SAE does not explain.
    Splice {},
}

/// A direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a latent's number, the path of a vector, or a list of numbers")]
pub enum Direction {
    /// The decoder row of a latent.
    Latent(u32),
    /// A vector in a file.
    File(PathBuf),
    /// A vector.
    Vector(Vec<f32>),
}

/// A condition on a latent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// The latent.
    pub latent: u32,
    /// It must be above this.
    pub above: f32,
    /// Where it must be.
    #[serde(default)]
    pub per: Per,
    /// Its SAE; `None`: the one of the edit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sae: Option<String>,
}

/// The tokens that decide a condition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// Each token decides for itself.
    #[default]
    Token,
    /// Any token of the prompt decides for the whole text.
    Prompt,
}

/// Where and when an edit applies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scope {
    /// The positions. Default: all. Position 0 and attention sinks are never edited.
    pub at: Positions,
    /// Only tokens with one of these texts, spaces included; empty: any token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<String>,
    /// Also special tokens, such as those around the turns of a conversation. Default: no.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub special_tokens: bool,
    /// The condition; `None`: always.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// Factor of the change for each further generated token. Default 1: it stays as strong.
    #[serde(skip_serializing_if = "is_one")]
    pub decay: f32,
    /// The path of the SAE; `None`: the one that steers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sae: Option<String>,
    /// The hook point; `None`: that of the SAE, or of the vector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook_point: Option<HookPoint>,
}

/// The names of the fields of [`Scope`].
const SCOPE: [&str; 7] = ["at", "tokens", "special_tokens", "when", "decay", "sae", "hook_point"];

/// The edits whose short form is a setting of its own.
const SETTINGS: [&str; 3] = ["clamp", "scale", "add"];

/// An edit with its scope.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct SteerEdit {
    /// What it does.
    #[serde(flatten)]
    pub what: Intervention,
    /// Where and when.
    #[serde(flatten)]
    pub scope: Scope,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_one(decay: &f32) -> bool {
    *decay == 1.0
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            at: Positions::all(),
            tokens: vec![],
            special_tokens: false,
            when: None,
            decay: 1.0,
            sae: None,
            hook_point: None,
        }
    }
}

impl Intervention {
    /// The edited latent; `None` if a direction or the whole row is edited.
    pub fn latent(&self) -> Option<u32> {
        match self {
            Self::Clamp { latent, .. }
            | Self::Floor { latent, .. }
            | Self::Cap { latent, .. }
            | Self::Suppress { latent }
            | Self::Scale { latent, .. } => Some(*latent),
            Self::Add { .. } | Self::Ablate { .. } | Self::Swap { .. } | Self::Splice {} => None,
        }
    }

    /// The latent that it edits, or whose direction it edits.
    pub(super) fn of_latent(&self) -> Option<u32> {
        match self {
            Self::Add { direction, .. } | Self::Ablate { direction } | Self::Swap { direction, .. } => {
                direction.latent()
            }
            other => other.latent(),
        }
    }

    /// Its name, as in JSON.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Clamp { .. } => "clamp",
            Self::Floor { .. } => "floor",
            Self::Cap { .. } => "cap",
            Self::Suppress { .. } => "suppress",
            Self::Scale { .. } => "scale",
            Self::Add { .. } => "add",
            Self::Ablate { .. } => "ablate",
            Self::Swap { .. } => "swap",
            Self::Splice {} => "splice",
        }
    }

    /// A clamp to a value.
    pub fn clamp(latent: u32, value: f32) -> Self {
        Self::Clamp { latent, value: Strength::Value(value) }
    }

    /// The intervention of a name in short: `12=4`, `12=1.5max`, `happy.safetensors=4`, or `12` alone.
    ///
    /// # Errors
    /// A text of another form.
    pub fn short(name: &str, text: &str) -> Result<Self> {
        let value = || -> Result<(Direction, Strength)> {
            let expected = "LATENT=STRENGTH, such as 1234=0 or 1234=1.5max";
            let split = text.rsplit_once('=').filter(|(place, _)| !place.is_empty());
            let (place, strength) = split.ok_or_else(|| Harvester::invalid(name, expected, format!("`{text}`")))?;
            Ok((place.parse()?, strength.parse()?))
        };
        let latent = |direction: Direction| {
            let found = format!("`{direction}`");
            direction.latent().ok_or_else(|| Harvester::invalid(name, "the number of a latent", found))
        };
        let of_latent = |make: fn(u32, Strength) -> Self| -> Result<Self> {
            let (direction, strength) = value()?;
            Ok(make(latent(direction)?, strength))
        };
        Ok(match name {
            "clamp" => of_latent(|latent, value| Self::Clamp { latent, value })?,
            "floor" => of_latent(|latent, value| Self::Floor { latent, value })?,
            "cap" => of_latent(|latent, value| Self::Cap { latent, value })?,
            "suppress" => Self::Suppress { latent: latent(text.parse()?)? },
            "scale" => {
                let (direction, factor) = value()?;
                let Strength::Value(factor) = factor else {
                    return Err(Harvester::invalid(name, "a factor without a unit", factor.to_string()).into());
                };
                Self::Scale { latent: latent(direction)?, factor }
            }
            "add" => {
                let (direction, value) = value()?;
                Self::Add { direction, value }
            }
            "ablate" => Self::Ablate { direction: text.parse()? },
            _ => {
                let expected = "clamp, floor, cap, suppress, scale, add or ablate, or JSON";
                return Err(Harvester::invalid("`edit`", expected, format!("`{name}`")).into());
            }
        })
    }

    /// The same with every strength multiplied; `None` if it has none.
    pub(super) fn times(&self, by: f32) -> Option<Self> {
        let mut scaled = self.clone();
        match &mut scaled {
            Self::Clamp { value, .. }
            | Self::Floor { value, .. }
            | Self::Cap { value, .. }
            | Self::Add { value, .. } => *value = value.times(by),
            Self::Scale { factor, .. } => *factor *= by,
            Self::Suppress { .. } | Self::Ablate { .. } | Self::Swap { .. } | Self::Splice {} => return None,
        }
        Some(scaled)
    }
}

impl Direction {
    /// Its latent; `None` for a vector.
    pub(super) fn latent(&self) -> Option<u32> {
        if let Self::Latent(latent) = self { Some(*latent) } else { None }
    }
}

impl FromStr for Direction {
    type Err = Harvester;

    /// A whole number is a latent; anything else is the path of a vector.
    fn from_str(text: &str) -> Result<Self, Harvester> {
        match text.parse() {
            Ok(latent) => Ok(Self::Latent(latent)),
            Err(_) if Path::new(text).extension().is_some() => Ok(Self::File(text.into())),
            Err(_) => {
                let expected = "the number of a latent, or the path of a vector, such as happy.safetensors";
                Err(Harvester::invalid("direction", expected, format!("`{text}`")))
            }
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latent(latent) => write!(f, "latent {latent}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Vector(values) => write!(f, "a vector of {} values", values.len()),
        }
    }
}

impl fmt::Display for Intervention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Clamp { latent, value } | Self::Floor { latent, value } | Self::Cap { latent, value } => {
                write!(f, " {latent}={value}")
            }
            Self::Suppress { latent } => write!(f, " {latent}"),
            Self::Scale { latent, factor } => write!(f, " {latent}={factor}"),
            Self::Add { direction, value } => write!(f, " {direction}={value}"),
            Self::Ablate { direction } => write!(f, " {direction}"),
            Self::Swap { direction, to } => write!(f, " {direction} for {to}"),
            Self::Splice {} => Ok(()),
        }
    }
}

impl SteerEdit {
    /// The edits of `settings`: those of `edit` in their order, in short or as JSON; then those of `clamp`, `scale` and
    /// `add`. `at`: the positions of edits in short.
    ///
    /// # Errors
    /// No edit, an unknown name, or a text of another form.
    pub fn of_settings(settings: &Settings) -> Result<Vec<Self>> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Given {
            at: Positions,
            edit: Vec<String>,
            #[serde(flatten)]
            short: BTreeMap<String, Vec<String>>,
        }
        let Given { at, edit, short } = config_of(settings)?;
        let of = |text: &String| -> Result<Self> {
            let edit: Self = text.parse()?;
            Ok(if text.starts_with('{') { edit } else { edit.at(at.clone()) })
        };
        let mut edits = edit.iter().map(of).collect::<Result<Vec<Self>>>()?;
        for name in SETTINGS {
            for text in short.get(name).into_iter().flatten() {
                edits.push(Self::from(Intervention::short(name, text)?).at(at.clone()));
            }
        }
        if edits.is_empty() {
            return Err(Error::Usage("steer needs an edit, such as `clamp` LATENT=STRENGTH".into()));
        }
        Ok(edits)
    }

    /// The SAEs that it and its condition name.
    pub(crate) fn sae_names(&self) -> impl Iterator<Item = String> {
        let of_condition = self.scope.when.as_ref().and_then(|when| when.sae.clone());
        [self.scope.sae.clone(), of_condition].into_iter().flatten()
    }

    /// The same at other positions.
    pub fn at(mut self, positions: Positions) -> Self {
        self.scope.at = positions;
        self
    }
}

impl From<Intervention> for SteerEdit {
    fn from(what: Intervention) -> Self {
        Self { what, scope: Scope::default() }
    }
}

/// An edit as it stands in a file.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected an edit in short, such as \"clamp 12=3\", or a table of its fields")]
enum Written {
    Short(String),
    Fields(Settings),
}

impl TryFrom<Written> for SteerEdit {
    type Error = crate::Error;

    fn try_from(written: Written) -> Result<Self> {
        match written {
            Written::Short(text) => text.parse(),
            Written::Fields(fields) => Ok(fields.try_into()?),
        }
    }
}

impl TryFrom<Settings> for SteerEdit {
    type Error = Harvester;

    fn try_from(settings: Settings) -> Result<Self, Harvester> {
        let (scope, what): (Settings, Settings) =
            settings.into_iter().partition(|(name, _)| SCOPE.contains(&name.as_str()));
        Ok(Self { what: config_of(&what)?, scope: config_of(&scope)? })
    }
}

impl FromStr for SteerEdit {
    type Err = crate::Error;

    /// An edit in short, such as `clamp 12=3`, on every position; or as JSON.
    fn from_str(text: &str) -> Result<Self> {
        let refuse = |found: String| {
            let expected = "`clamp 12=3`, or JSON such as {\"kind\": \"clamp\", \"latent\": 12, \"value\": 3, \"at\": \"generated\"}";
            Harvester::invalid("`edit`", expected, found)
        };
        if text.starts_with('{') {
            let settings: Settings =
                serde_json::from_str(text).map_err(|error| refuse(format!("`{text}` ({error})")))?;
            return Ok(settings.try_into()?);
        }
        match text.split_once(' ') {
            Some((name, short)) => Ok(Intervention::short(name, short.trim())?.into()),
            None if text == "splice" => Ok(Intervention::Splice {}.into()),
            None => Err(refuse(format!("`{text}`")).into()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_edit_has_one_meaning_as_a_flag_and_as_json() {
        for (name, short, json) in [
            ("clamp", "12=0", r#"{"kind":"clamp","latent":12,"value":0}"#),
            ("clamp", "12=1.5max", r#"{"kind":"clamp","latent":12,"value":"1.5max","at":"all"}"#),
            ("floor", "12=3", r#"{"kind":"floor","latent":12,"value":3}"#),
            ("cap", "12=0.1kl", r#"{"kind":"cap","latent":12,"value":"0.1kl"}"#),
            ("suppress", "12", r#"{"kind":"suppress","latent":12,"decay":1}"#),
            ("scale", "12=-2", r#"{"kind":"scale","latent":12,"factor":-2}"#),
            ("add", "12=4", r#"{"kind":"add","latent":12,"value":4}"#),
            ("add", "a=b.safetensors=0.4norm", r#"{"kind":"add","direction":"a=b.safetensors","value":"0.4norm"}"#),
            ("ablate", "12", r#"{"kind":"ablate","direction":12}"#),
        ] {
            let edit: SteerEdit = format!("{name} {short}").parse().unwrap();
            assert_eq!(edit, json.parse().unwrap(), "{short}");
            let is_setting = SETTINGS.contains(&name);
            let setting = if is_setting { (name, short.to_string()) } else { ("edit", format!("{name} {short}")) };
            for given in [setting, ("edit", json.to_string())] {
                let settings = Settings::from_iter([(given.0.to_string(), vec![given.1].into())]);
                assert_eq!(SteerEdit::of_settings(&settings).unwrap(), std::slice::from_ref(&edit), "{short}");
            }
            let written = serde_json::to_string(&edit).unwrap();
            assert_eq!(edit, written.parse().unwrap(), "{written}");
        }
        let full = r#"{"kind":"swap","direction":[1,2],"to":7,"at":"2..4,generated","tokens":[" war"],
            "special_tokens":true,"when":{"latent":3,"above":2.5,"per":"prompt"},"decay":0.9,"sae":"other",
            "hook_point":"blocks.3.hook_resid_post"}"#;
        let full: SteerEdit = full.parse().unwrap();
        assert_eq!((full.scope.decay, full.scope.when.as_ref().unwrap().per), (0.9, Per::Prompt));
        assert_eq!(full, serde_json::to_string(&full).unwrap().parse().unwrap());
        let scope = serde_json::to_value(&full.scope).unwrap();
        assert_eq!(scope.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>(), SCOPE);
    }

    #[test]
    fn what_is_misspelled_is_refused_by_name() {
        for (json, part) in [
            (r#"{"kind":"clamp","latent":12,"valeu":0}"#, "valeu"),
            (r#"{"kind":"splice","latent":12}"#, "latent"),
            (r#"{"kind":"clmap","latent":12,"value":0}"#, "clmap"),
            (r#"{"latent":12,"value":0}"#, "kind"),
            (r#"{"kind":"clamp","latent":12,"value":"3x"}"#, "1.5max"),
            (r#"{"kind":"suppress","latent":12,"at":"everywhere"}"#, "last_prompt"),
            (r#"{"kind":"suppress","latent":12,"when":{"latent":3,"over":1}}"#, "over"),
            (r#"{"kind":"suppress","latent":-3}"#, "-3"),
            (r#"{"kind":"add","direction":{},"value":3}"#, "the path of a vector"),
            ("12=3", "expected `clamp 12=3`, or JSON such as"),
            ("clmap 12=3", "clmap"),
        ] {
            let message = json.parse::<SteerEdit>().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
        for (name, text) in
            [("clamp", "12"), ("clamp", "=3"), ("clamp", "a.safetensors=3"), ("scale", "3=2max"), ("suppress", "3=1")]
        {
            assert!(Intervention::short(name, text).is_err(), "{name} {text}");
        }
    }
}
