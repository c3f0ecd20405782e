//! Flags and `--config FILE.toml` become one resolved config: a command's flags lie over the file's table of the same
//! name, and both over the defaults.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Serialize, de::DeserializeOwned};
use toml::{Table, Value};

/// The tables a config file may have: one for each command that takes settings.
const TABLES: [&str; 5] = ["harvest", "train", "evaluate", "index", "steer"];

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
    let flags = Table::try_from(flags).context("these flags cannot be written as TOML")?;
    settings.extend(flags);
    let from = file.map_or("the flags".to_string(), |path| format!("{} and the flags", path.display()));
    Value::Table(settings).try_into().with_context(|| format!("settings of `{command}` from {from}"))
}

/// The table `[command]` of a config file; empty where it has none.
fn table(path: &Path, command: &str) -> anyhow::Result<Table> {
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
        #[serde(skip_serializing_if = "Option::is_none")]
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
    fn unknown_names_are_refused() {
        for text in ["[harvest]\nbatchsize = 4\n", "batch = 4\n", "[harvets]\n"] {
            let file = file(text);
            assert!(resolve::<Settings>("harvest", &Flags { batch: None }, Some(file.path())).is_err(), "{text}");
        }
    }
}
