//! Settings from flags and from `--config FILE.toml`. A setting is declared twice and no more: as a flag in
//! [`crate::cli`], whose field has the name of the library's, and as that field, with its default.
//!
//! ```text
//! [train] of the file  -> as flags of these names -> clap -> settings by name --\
//! the flags given      ----------------------------> clap -> settings by name ---+-> merged -> TrainConfig, ..
//! ```

use std::path::Path;

use anyhow::{Context, bail};
use clap::{Args, Command};
use harvester::Settings;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use toml::{Table, Value};

/// The tables that a config file may have: one per command that takes settings.
const TABLES: [&str; 6] = ["harvest", "train", "sweep", "evaluate", "index", "steer"];

/// The flags of `command`, and what its table in the file adds to them.
///
/// # Errors
/// A file that cannot be read, or a table that clap refuses.
pub(crate) fn with_file<A>(command: &str, flags: A, file: Option<&Path>) -> anyhow::Result<A>
where
    A: Args + Serialize + DeserializeOwned,
{
    let Some(path) = file else { return Ok(flags) };
    let of_file = read::<A>(table(path, command)?).with_context(|| in_table(path, command))?;
    let merged = laid_over::<A>(of_file, given(&flags)?);
    serde_json::from_value(Json::Object(merged)).with_context(|| in_table(path, command))
}

/// The settings that were given: not those that are null, `false` or an empty list.
pub(crate) fn given(args: &impl Serialize) -> anyhow::Result<Settings> {
    let Json::Object(settings) = serde_json::to_value(args).context("these flags cannot be passed on")? else {
        return Ok(Settings::new());
    };
    let is_given = |value: &Json| !matches!(value, Json::Null | Json::Bool(false)) && value != &Json::Array(vec![]);
    Ok(settings.into_iter().filter(|(_, value)| is_given(value)).collect())
}

/// The config of a library whose settings `args` are.
pub(crate) fn config<T: DeserializeOwned>(args: &impl Serialize) -> anyhow::Result<T> {
    Ok(harvester::config_of(&given(args)?)?)
}

/// A value that must have been given.
pub(crate) fn required<T: Clone>(value: &Option<T>, command: &str, setting: &str) -> anyhow::Result<T> {
    value.clone().with_context(|| format!("{command} needs `{setting}`, as a flag or in --config"))
}

/// The settings of a table, read as the flags `A` of the same names.
pub(crate) fn read<A: Args + Serialize>(table: Table) -> anyhow::Result<Settings> {
    let mut arguments = vec![];
    for (name, value) in table {
        arguments.extend(as_flags(&name, value)?);
    }
    let matches = command::<A>().no_binary_name(true).disable_help_flag(true).try_get_matches_from(arguments);
    given(&A::from_arg_matches(&matches.map_err(without_usage)?)?)
}

/// `name = value` of a table as it would be typed.
fn as_flags(name: &str, value: Value) -> anyhow::Result<Vec<String>> {
    Ok(match value {
        Value::Boolean(true) => vec![format!("--{name}")],
        Value::Boolean(false) => vec![],
        Value::String(text) => vec![format!("--{name}={text}")],
        Value::Integer(number) => vec![format!("--{name}={number}")],
        Value::Float(number) => vec![format!("--{name}={number}")],
        Value::Array(values) if !values.iter().any(Value::is_array) => {
            let flags = values.into_iter().map(|value| as_flags(name, value)).collect::<anyhow::Result<Vec<_>>>()?;
            flags.concat()
        }
        other => bail!("`{name}`: expected a value or a list of values, found a {}", other.type_str()),
    })
}

/// clap's message about an argument, without the usage of the command.
fn without_usage(error: clap::Error) -> anyhow::Error {
    let said = error.render().to_string();
    let said = said.split("\n\nUsage:").next().unwrap_or(&said).trim_start_matches("error: ").trim();
    anyhow::anyhow!(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// `over`, and those of `under` that it neither has nor excludes.
pub(crate) fn laid_over<A: Args>(mut under: Settings, over: Settings) -> Settings {
    let command = command::<A>();
    under
        .retain(|name, _| !over.keys().any(|given| excludes(&command, given, name) || excludes(&command, name, given)));
    under.extend(over);
    under
}

/// True if flag `a` is declared to conflict with flag `b`.
pub(crate) fn excludes(command: &Command, a: &str, b: &str) -> bool {
    let flag = command.get_arguments().find(|flag| flag.get_id() == a);
    flag.is_some_and(|flag| command.get_arg_conflicts_with(flag).iter().any(|other| other.get_id() == b))
}

/// A command that has the flags `A` and no others.
pub(crate) fn command<A: Args>() -> Command {
    A::augment_args(Command::new("settings"))
}

/// The table of the file, for messages.
pub(crate) fn in_table(path: &Path, command: &str) -> String {
    format!("[{command}] of {}", path.display())
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
    use clap::FromArgMatches;

    use super::*;
    use crate::cli::HarvestArgs;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn flags(arguments: &[&str]) -> HarvestArgs {
        let command = command::<HarvestArgs>().no_binary_name(true);
        HarvestArgs::from_arg_matches(&command.get_matches_from(arguments)).unwrap()
    }

    #[test]
    fn flags_lie_over_the_file_and_what_they_exclude_gives_way() {
        let file = file(
            "[harvest]\ntokens = '1.5M'\nctx-len = 128\nno-shuffle = true\nskip-malformed = false\n\
             hook-point = ['hook_embed', 'blocks.*.hook_resid_post']\n[train]\nk = 3\n",
        );
        let merged = with_file("harvest", flags(&["--ctx-len", "64", "--seed", "3"]), Some(file.path())).unwrap();
        assert_eq!(
            (merged.config.tokens, merged.config.ctx_len, merged.config.seed),
            (Some(1_500_000), Some(64), Some(3))
        );
        assert!(!merged.config.no_shuffle && merged.hook_points.len() == 2);
        let of_file = with_file("harvest", flags(&[]), Some(file.path())).unwrap();
        assert!(of_file.config.no_shuffle && of_file.config.ctx_len == Some(128));
    }

    #[test]
    fn names_and_values_that_are_wrong_are_refused() {
        for (text, said) in [
            ("[harvest]\nctx-length = 4\n", "a similar argument exists: '--ctx-len'"),
            ("[harvest]\nctx-len = 'long'\n", "'--ctx-len <CTX_LEN>'"),
            ("[harvest]\nseed = 1\nno-shuffle = true\n", "cannot be used with"),
            ("[harvest]\nseed = [[1]]\n", "expected a value or a list of values"),
            ("ctx-len = 4\n", "expected the tables [harvest]"),
            ("[harvets]\n", "found `harvets`"),
        ] {
            let file = file(text);
            let error = with_file("harvest", flags(&[]), Some(file.path())).unwrap_err();
            assert!(format!("{error:#}").contains(said), "{text}: {error:#}");
        }
    }
}
