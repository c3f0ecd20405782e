//! Values as Python writes them: [`shown`] is `str`, [`JsonStyle`] is `json.dumps`, [`format`] is `str.format`.

use minijinja::{Value, value::ValueKind};
use serde_json::Value as Json;

/// `str(value)`
pub(super) fn shown(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => repr(value),
    }
}

/// `repr(value)`
fn repr(value: &Value) -> String {
    let list = |value: &Value, of: &dyn Fn(&Value) -> String| {
        let entries: Vec<_> = value.try_iter().into_iter().flatten().map(|entry| of(&entry)).collect();
        entries.join(", ")
    };
    match value.kind() {
        ValueKind::None => "None".to_owned(),
        ValueKind::Bool => if value.is_true() { "True" } else { "False" }.to_owned(),
        ValueKind::Number if !value.is_integer() => f64::try_from(value.clone()).map_or(value.to_string(), float),
        ValueKind::String => quoted(value.as_str().unwrap_or_default()),
        ValueKind::Seq => format!("[{}]", list(value, &repr)),
        ValueKind::Map => {
            let entry = |key: &Value| format!("{}: {}", repr(key), repr(&value.get_item(key).unwrap_or_default()));
            format!("{{{}}}", list(value, &entry))
        }
        _ => value.to_string(),
    }
}

/// `repr` of a string.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for character in text.chars() {
        match character {
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\\' => out += "\\\\",
            c if c == quote => out.extend(['\\', c]),
            c if c.is_control() && u32::from(c) < 0x100 => out += &format!("\\x{:02x}", u32::from(c)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

/// `repr` of a float: the shortest digits, with an exponent outside of 1e-4 to 1e16.
fn float(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() {
        return if number.is_nan() {
            "nan".into()
        } else if number > 0.0 {
            "inf".into()
        } else {
            "-inf".into()
        };
    }
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let text = format!("{number:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{number:?}")
}

/// Options of `json.dumps`.
#[derive(Debug, Default)]
pub(super) struct JsonStyle {
    pub(super) indent: Option<usize>,
    /// Between entries, and between a key and its value.
    pub(super) separators: Option<[String; 2]>,
    pub(super) sort_keys: bool,
    pub(super) ensure_ascii: bool,
}

impl JsonStyle {
    /// `json.dumps(value)`
    pub(super) fn write(&self, value: &Json) -> String {
        let mut out = String::new();
        self.add(value, 0, &mut out);
        out
    }

    fn add(&self, value: &Json, depth: usize, out: &mut String) {
        match value {
            Json::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(number) => out.push_str(&float(number)),
                None => out.push_str(&number.to_string()),
            },
            Json::String(text) => self.add_text(text, out),
            Json::Array(values) if !values.is_empty() => {
                self.add_entries(['[', ']'], values.iter(), depth, out, |value, out| self.add(value, depth + 1, out));
            }
            Json::Object(object) if !object.is_empty() => {
                let mut entries: Vec<_> = object.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.add_entries(['{', '}'], entries.into_iter(), depth, out, |(key, value), out| {
                    self.add_text(key, out);
                    out.push_str(self.separators.as_ref().map_or(": ", |both| &both[1]));
                    self.add(value, depth + 1, out);
                });
            }
            other => out.push_str(&other.to_string()),
        }
    }

    fn add_entries<T>(
        &self,
        [open, close]: [char; 2],
        entries: impl Iterator<Item = T>,
        depth: usize,
        out: &mut String,
        add: impl Fn(T, &mut String),
    ) {
        let line = |depth: usize| self.indent.map(|indent| format!("\n{}", " ".repeat(indent * depth)));
        let comma = match (&self.separators, self.indent) {
            (Some([comma, _]), _) => comma.as_str(),
            (None, Some(_)) => ",",
            (None, None) => ", ",
        };
        out.push(open);
        for (i, entry) in entries.enumerate() {
            if i > 0 {
                out.push_str(comma);
            }
            out.extend(line(depth + 1));
            add(entry, out);
        }
        out.extend(line(depth));
        out.push(close);
    }

    fn add_text(&self, text: &str, out: &mut String) {
        let json = Json::from(text).to_string();
        if !self.ensure_ascii {
            return out.push_str(&json);
        }
        for character in json.chars() {
            match character {
                c if c.is_ascii() => out.push(c),
                c => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}"))),
            }
        }
    }
}

/// `text.format(*args)` of plain fields: `{}` and `{0}`.
pub(super) fn format(text: &str, args: &[Value]) -> Result<String, String> {
    let (mut out, mut rest, mut next) = (String::new(), text, 0);
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let (mark, after) = rest[at..].split_at(1);
        if let Some(escaped) = after.strip_prefix(mark) {
            out.push_str(mark);
            rest = escaped;
            continue;
        }
        let (field, after) = after.split_once('}').filter(|_| mark == "{").ok_or("format: a single brace")?;
        let place =
            if field.is_empty() { next } else { field.parse().map_err(|_| format!("format: `{{{field}}}`"))? };
        out.push_str(&shown(args.get(place).ok_or_else(|| format!("format: no argument {place}"))?));
        next = place + 1;
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// Expected values from Python.
    #[test]
    fn floats_are_as_in_python() {
        let cases = [(1.0, "1.0"), (0.1, "0.1"), (1e16, "1e+16"), (1.5e-5, "1.5e-05"), (-2.5e100, "-2.5e+100")];
        cases.into_iter().for_each(|(number, text)| assert_eq!(float(number), text));
    }

    #[test]
    fn json_is_as_in_python() {
        let value: Json = serde_json::from_str(r#"{"b": [1, "é\n"], "a": {}, "c": []}"#).unwrap();
        assert_eq!(JsonStyle::default().write(&value), r#"{"b": [1, "é\n"], "a": {}, "c": []}"#);
        let style = JsonStyle { indent: Some(2), sort_keys: true, ensure_ascii: true, ..JsonStyle::default() };
        let expected = "{\n  \"a\": {},\n  \"b\": [\n    1,\n    \"\\u00e9\\n\"\n  ],\n  \"c\": []\n}";
        assert_eq!(style.write(&value), expected);
    }
}
