//! Reads and writes JSON configs. Every error message names the file, and files are written whole.

use std::{fs, path::Path};

use harvester::write_atomically;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Error, Result};

/// Hint for an invalid config.
const HINT: &str = "Fix it by hand, or save the SAE again with its own tool";

/// Reads `path`; errors call it `what`, such as "the cfg.json of an SAE".
pub(super) fn read<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T> {
    parse(&read_value(path, what)?, path, what)
}

/// The JSON of `path`, with any fields.
pub(super) fn read_value(path: &Path, what: &str) -> Result<Value> {
    let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
    serde_json::from_str(&text).map_err(|error| Error::malformed(path, what, error.to_string(), HINT))
}

/// Converts `value`, the content of the file `path`, to a config. serde's errors give a line and not a key, so it
/// parses a text in which each key has its own line.
pub(super) fn parse<T: DeserializeOwned>(value: &Value, path: &Path, what: &str) -> Result<T> {
    let text = format!("{value:#}");
    serde_json::from_str(&text).map_err(|error| {
        let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
        let key = line.trim_start().strip_prefix('"').and_then(|line| Some(line.split_once("\": ")?.0));
        let said = error.to_string();
        let said = said.rsplit_once(" at line ").map_or(said.as_str(), |(said, _)| said);
        // For a missing or unknown key, serde gives the line where the object ends, but the message contains the key's
        // name.
        let found = match key.filter(|_| said.starts_with("invalid")) {
            Some(key) => format!("{key}: {said}"),
            None => said.to_string(),
        };
        Error::malformed(path, what, found, HINT)
    })
}

/// Writes `value` to `path`, always the whole file.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value).map_err(|error| Error::io("write", path)(error.into()))?;
    write_atomically(path, &text)?;
    Ok(())
}

/// Refuses sizes of 0, before tensors are cut into rows of that length.
pub(super) fn refuse_zero(path: &Path, fields: &str, [a, b]: [usize; 2]) -> Result<()> {
    if a == 0 || b == 0 { refuse(path, fields, "of 1 or more", format!("{a} and {b}")) } else { Ok(()) }
}

/// The error about a field of `path` whose value stands for a computation that refract does not have.
pub(super) fn refuse<T>(path: &Path, field: &str, expected: impl AsRef<str>, found: impl AsRef<str>) -> Result<T> {
    let hint = "refract does not have this computation; convert the SAE with its own tool first";
    Err(Error::malformed(path, format!("{field} {}", expected.as_ref()), format!("`{}`", found.as_ref()), hint))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(expecting = "a JSON object")]
    #[expect(dead_code, reason = "only read")]
    struct Outer {
        size: usize,
        inner: Inner,
    }

    #[derive(Debug, Deserialize)]
    #[serde(expecting = "a JSON object", deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Inner {
        name: String,
    }

    #[test]
    fn a_value_of_another_type_is_named_by_its_key() {
        let said = |value| parse::<Outer>(&value, Path::new("x.json"), "a config").unwrap_err().to_string();
        for (value, expected) in [
            (
                json!({"size": "8", "inner": {"name": "a"}}),
                "x.json: expected a config, found size: invalid type: string",
            ),
            (json!({"size": -8, "inner": {"name": "a"}}), "found size: invalid value: integer `-8`"),
            (json!({"size": [1, 2], "inner": {"name": "a"}}), "found size: invalid type: sequence"),
            (json!({"size": 8, "inner": {"name": 3}}), "found name: invalid type: integer `3`, expected a string. Fix"),
            (json!({"size": 8, "inner": 3}), "found inner: invalid type: integer `3`, expected a JSON object. "),
            (json!({"size": 8, "inner": {}}), "found missing field `name`. "),
            (json!({"size": 8, "inner": {"name": "a", "nome": "b"}}), "found unknown field `nome`, expected `name`. "),
            (json!(3), "found invalid type: integer `3`, expected a JSON object. "),
        ] {
            let message = said(value);
            assert!(message.contains(expected), "{expected}: {message}");
        }
    }
}
