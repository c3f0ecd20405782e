//! [`python_json`]: JSON as Python writes it. Its `json` module writes `NaN`, `Infinity` and `-Infinity`, which JSON
//! does not have.

use std::borrow::Cow;

use serde::de::DeserializeOwned;

/// Parses a text in which such a number stands as a text, `"NaN"`: it only matters to whoever reads its key.
pub(crate) fn python_json<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(&replaced(text, |word| format!("\"{word}\"")))
}

/// Parses a text in which such a number counts as null: Python's tables have it for a missing value.
pub(crate) fn python_json_or_null<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(&replaced(text, |_| "null".to_owned()))
}

fn replaced(text: &str, with: impl Fn(&str) -> String) -> Cow<'_, str> {
    const WORDS: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
    if WORDS.iter().all(|word| !text.contains(word)) {
        return text.into();
    }
    let (mut out, mut rest, mut in_string) = (String::with_capacity(text.len() + 16), text, false);
    while let Some(first) = rest.chars().next() {
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(**word));
        let len = match word {
            Some(word) => word.len(),
            // An escaped quote does not end a text.
            None if in_string && first == '\\' => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
            None => first.len_utf8(),
        };
        in_string ^= first == '"';
        let (piece, after) = rest.split_at(len);
        match word {
            Some(word) => out.push_str(&with(word)),
            None => out.push_str(piece),
        }
        rest = after;
    }
    out.into()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn numbers_that_json_lacks_become_texts() {
        let value: Value =
            python_json(r#"{"a": NaN, "b": [-Infinity, 1, Infinity], "c": "NaN \"NaN\\", "é": NaN}"#).unwrap();
        let want = json!({"a": "NaN", "b": ["-Infinity", 1, "Infinity"], "c": "NaN \"NaN\\", "é": "NaN"});
        assert_eq!(value, want);
        assert!(python_json::<Value>("[1, NaN").is_err() && python_json::<Value>(r#"["NaN\"#).is_err());
    }
}
