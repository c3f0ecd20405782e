//! [`Settings`]: a config by the names of its fields, as flags, a config file or a request give it. Unlike a config, it
//! says which settings were given, so that one which would change nothing can be refused.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::{Error, Result};

/// Settings by name: those fields of a config that were given.
pub type Settings = Map<String, Value>;

/// The config of these settings, and its defaults for all others.
///
/// # Errors
/// An unknown name, or a value of another kind.
pub fn config_of<T: DeserializeOwned>(settings: &Settings) -> Result<T> {
    let name = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
    serde_json::from_value(Value::Object(settings.clone()))
        .map_err(|error| Error::invalid("settings", format!("those of {name}"), error.to_string()))
}
