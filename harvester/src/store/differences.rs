//! [`differences`]: the differences between two runs, as text.

use serde::Serialize;
use serde_json::{Map, Value};

/// Every value that differs between `there` and `here`, one line each: `name.field: 1 there, 2 here`.
pub fn differences(name: &str, there: &impl Serialize, here: &impl Serialize) -> Vec<String> {
    let mut lines = vec![];
    compare(name, &as_json(there), &as_json(here), &mut lines);
    lines
}

fn as_json(value: &impl Serialize) -> Value {
    serde_json::to_value(value).expect("plain data, which serde_json can always represent")
}

fn compare(name: &str, there: &Value, here: &Value, lines: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            // A field that is omitted when empty counts as null.
            let of = |object: &Map<String, Value>, key: &String| object.get(key).cloned().unwrap_or_default();
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                compare(&name, &of(a, key), &of(b, key), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() && a.iter().all(Value::is_object) => {
            for (i, (there, here)) in a.iter().zip(b).enumerate() {
                compare(&format!("{name}[{i}]"), there, here, lines);
            }
        }
        _ if there == here => {}
        (Value::Array(a), Value::Array(b)) if a.iter().chain(b).any(Value::is_object) => {
            lines.push(format!("{name}: {} there, {} here", a.len(), b.len()))
        }
        _ => lines.push(format!("{name}: {there} there, {here} here")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_value_that_differs_has_a_line() {
        let there = json!({ "a": 1, "b": { "c": [1, 2], "d": "x" }, "e": [{ "n": 1 }], "g": [{ "n": 1 }] });
        assert!(differences("", &there, &there).is_empty());
        let here = json!({ "a": 1, "b": { "c": [1, 3], "d": "y" }, "e": [], "f": true, "g": [{ "n": 2 }] });
        let expected = [
            "b.c: [1,2] there, [1,3] here",
            "b.d: \"x\" there, \"y\" here",
            "e: 1 there, 0 here",
            "g[0].n: 1 there, 2 here",
            "f: null there, true here",
        ];
        assert_eq!(differences("", &there, &here), expected);
        assert_eq!(differences("seed", &1, &2), ["seed: 1 there, 2 here"]);
    }
}
