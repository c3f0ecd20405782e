//! Flags and `--config FILE.toml` become one resolved config: a command's flags lie over the file's table of the same
//! name, and both over the defaults.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use toml::{Table, Value};

/// The tables a config file may have: one for each command that takes settings.
const TABLES: [&str; 6] = ["harvest", "train", "sweep", "evaluate", "index", "steer"];

/// The settings of `command`: `flags` over the file over the defaults of `T`.
///
/// # Errors
/// A file that cannot be read, or a name or value that `command` does not have.
pub(crate) fn resolve<T: DeserializeOwned>(
    command: &str,
    flags: &impl Serialize,
    file: Option<&Path>,
) -> anyhow::Result<T> {
    let mut settings = file.map(|path| table(path, command)).transpose()?.unwrap_or_default();
    settings.extend(as_table(flags)?);
    let from = file.map_or("the flags".to_string(), |path| format!("{} and the flags", path.display()));
    Value::Table(settings).try_into().with_context(|| format!("settings of `{command}` from {from}"))
}

/// The flags that were given: not those that are null, `false` or an empty list. TOML has no whole number above 2^63
/// - 1.
pub(crate) fn as_table(flags: &impl Serialize) -> anyhow::Result<Table> {
    let Json::Object(flags) = serde_json::to_value(flags).context("these flags cannot be passed on")? else {
        return Ok(Table::new());
    };
    let setting = |(name, value): (String, Json)| match Value::try_from(&value) {
        Ok(setting) => Ok((name, setting)),
        Err(_) if value.is_u64() => bail!("--{name}: expected at most {}, found {value}", i64::MAX),
        Err(_) => bail!("--{name}: expected a finite number"),
    };
    let is_given = |value: &Json| !matches!(value, Json::Null | Json::Bool(false)) && value != &Json::Array(vec![]);
    flags.into_iter().filter(|(_, value)| is_given(value)).map(setting).collect()
}

/// The bytes of a setting in MiB, which has the name of its flag.
///
/// # Errors
/// When it is 0, or more bytes than can be counted.
pub(crate) fn mib(flag: &str, mib: u64) -> anyhow::Result<u64> {
    let bytes = mib.checked_mul(1 << 20).filter(|bytes| *bytes > 0);
    bytes.with_context(|| format!("--{flag}: expected 1 to {} MiB, found {mib}", u64::MAX >> 20))
}

/// The table `[command]` of a config file; empty where it has none.
pub(crate) fn table(path: &Path, command: &str) -> anyhow::Result<Table> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: Table = text.parse().with_context(|| format!("{} is not TOML", path.display()))?;
    if let Some(name) = file.keys().find(|name| !TABLES.contains(&name.as_str())) {
        let tables = TABLES.map(|table| format!("[{table}]")).join(", ");
        bail!("{}: expected the tables {tables}, found `{name}`", path.display());
    }
    match file.remove(command) {
        None => Ok(Table::new()),
        Some(Value::Table(table)) => Ok(table),
        Some(other) => bail!("{}: expected [{command}] to be a table, found a {}", path.display(), other.type_str()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Serialize)]
    struct Flags {
        batch: Option<usize>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Settings {
        batch: usize,
        ctx_len: usize,
    }

    impl Default for Settings {
        fn default() -> Self {
            Self { batch: 8, ctx_len: 256 }
        }
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn flags_lie_over_the_file_and_the_file_over_defaults() {
        let file = file("[harvest]\nbatch = 4\nctx-len = 128\n[train]\nk = 3\n");
        let resolved: Settings = resolve("harvest", &Flags { batch: Some(2) }, Some(file.path())).unwrap();
        assert_eq!(resolved, Settings { batch: 2, ctx_len: 128 });
        let resolved: Settings = resolve("harvest", &Flags { batch: None }, Some(file.path())).unwrap();
        assert_eq!(resolved, Settings { batch: 4, ctx_len: 128 });
        let resolved: Settings = resolve("harvest", &Flags { batch: None }, None).unwrap();
        assert_eq!(resolved, Settings::default());
    }

    #[test]
    fn flags_that_were_not_given_are_left_out() {
        let flags = serde_json::json!({ "batch": null, "skip": false, "corpus": [], "k": 0, "chat": true, "out": "" });
        let given = as_table(&flags).unwrap();
        assert_eq!(given, "k = 0\nchat = true\nout = ''\n".parse().unwrap());
    }

    #[test]
    fn numbers_that_cannot_be_passed_on_are_named_by_their_flag() {
        let error = resolve::<Settings>("harvest", &Flags { batch: Some(usize::MAX) }, None).unwrap_err();
        assert_eq!(error.to_string(), "--batch: expected at most 9223372036854775807, found 18446744073709551615");
        assert_eq!(mib("buffer-mib", 512).unwrap(), 512 << 20);
        for wrong in [0, 1 << 44] {
            let error = mib("buffer-mib", wrong).unwrap_err();
            assert!(error.to_string().contains("--buffer-mib: expected 1 to 17592186044415 MiB"), "{error}");
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for text in ["[harvest]\nbatchsize = 4\n", "batch = 4\n", "[harvets]\n"] {
            let file = file(text);
            assert!(resolve::<Settings>("harvest", &Flags { batch: None }, Some(file.path())).is_err(), "{text}");
        }
    }
}
