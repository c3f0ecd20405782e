//! Settings from flags and from `--config FILE.toml`. The table of a command in the file becomes flags that are added
//! to the command line, so that clap reads both alike. What a flag on the command line sets or excludes is left out of
//! the table first: flags win.
//!
//! ```text
//! train --config run.toml --k 8                    with k = 16 and lr = 0.001 in [train] of run.toml
//! train --config run.toml --k 8 --lr=0.001         is what clap reads
//! ```
//!
//! A setting is declared twice and no more: as a flag in [`crate::cli`], whose field has the name of the library's, and
//! as that field, with its default.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use clap::{ArgMatches, Command, FromArgMatches, parser::ValueSource};
use harvester::Settings;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::cli::{self, Global, HarvestArgs, usage};

/// The tables that a config file may have: one per command that takes settings.
const TABLES: [&str; 7] = ["harvest", "train", "sweep", "evaluate", "index", "encode", "steer"];

/// The command line `words`, which clap read as `matches`, read again with the settings of its config file.
///
/// # Errors
/// A file that cannot be read, or a table that clap refuses.
pub(crate) fn with_file(matches: ArgMatches, mut words: Vec<OsString>) -> anyhow::Result<ArgMatches> {
    let (name, flags) = matches.subcommand().expect("a command is required");
    let Some(file) = &file(flags) else { return Ok(matches) };
    ensure!(TABLES.contains(&name), usage("this command takes no settings from --config: use its flags"));
    if name == "sweep" {
        return Ok(matches); // its lists of lists are no flags
    }
    let command = command(name);
    let table = left_by(given(flags), &command, table(file, name)?);
    words.extend(as_flags(&command, table).with_context(|| in_table(file, name))?.into_iter().map(OsString::from));
    cli::command()
        .try_get_matches_from(words)
        .map_err(|error| without_usage(&error))
        .with_context(|| in_table(file, name))
}

/// The config file that the flags of a command name.
pub(crate) fn file(flags: &ArgMatches) -> Option<PathBuf> {
    Global::from_arg_matches(flags).ok()?.config
}

/// Names of the settings that were given as flags.
pub(crate) fn given(flags: &ArgMatches) -> Vec<&str> {
    let is_given = |name: &&str| flags.value_source(name) == Some(ValueSource::CommandLine);
    flags.ids().map(clap::Id::as_str).filter(is_given).collect()
}

/// The part of `table` that flags leave: what they neither set nor exclude.
pub(crate) fn left_by(flags: Vec<&str>, command: &Command, mut table: Settings) -> Settings {
    table.retain(|name, _| !flags.iter().any(|flag| settles(command, flag, name)));
    table
}

/// True if the flag `given` sets `name` or cannot be used with it.
pub(crate) fn settles(command: &Command, given: &str, name: &str) -> bool {
    let excludes = |a: &str, b: &str| {
        let flag = command.get_arguments().find(|flag| flag.get_id() == a);
        flag.is_some_and(|flag| command.get_arg_conflicts_with(flag).iter().any(|other| other.get_id() == b))
    };
    given == name || excludes(given, name) || excludes(name, given)
}

/// The subcommand of this name.
pub(crate) fn command(name: &str) -> Command {
    cli::command().find_subcommand(name).expect("a table has the name of a command").clone()
}

/// Settings of the command `name` as they would be typed, parsed.
pub(crate) fn read(name: &str, settings: Settings) -> anyhow::Result<ArgMatches> {
    let command = command(name).no_binary_name(true);
    let words = as_flags(&command, settings)?;
    command.try_get_matches_from(words).map_err(|error| without_usage(&error))
}

/// Settings as they would be typed.
fn as_flags(command: &Command, settings: Settings) -> anyhow::Result<Vec<String>> {
    let mut words = vec![];
    for (name, value) in settings {
        let Some(flag) = command.get_arguments().find(|flag| flag.get_id() == name.as_str()) else {
            words.push(format!("--{name}")); // clap refuses it, and suggests similar ones
            continue;
        };
        let name = flag.get_long().unwrap_or(&name);
        let values = match value {
            Value::Array(values) if values.is_empty() => {
                bail!(usage(format!("{name}: expected a value, found an empty list")))
            }
            Value::Array(values) => values,
            value => vec![value],
        };
        for value in values {
            match value {
                _ if !flag.get_action().takes_values() && !value.is_boolean() => {
                    bail!(usage(format!("{name}: expected true or false, found {value}")))
                }
                Value::Bool(true) => words.push(format!("--{name}")),
                Value::Bool(false) if !flag.get_action().takes_values() => {}
                Value::String(text) => words.push(format!("--{name}={text}")),
                Value::Number(_) | Value::Object(_) => words.push(format!("--{name}={value}")),
                _ => bail!(usage(format!("{name}: expected a value or a list of values, found {value}"))),
            }
        }
    }
    Ok(words)
}

/// clap's message about an argument on one line, without the usage of the command.
pub(crate) fn without_usage(error: &clap::Error) -> anyhow::Error {
    let said = error.render().to_string();
    let said = said.trim_start_matches("error: ").replace("\n\n  tip: ", "; ");
    let said = said.split("\n\nUsage:").flat_map(|part| part.split("\n\nFor more")).next().unwrap_or_default();
    usage(said.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The table of the file, for messages.
pub(crate) fn in_table(file: &Path, command: &str) -> String {
    format!("[{command}] of {}", file.display())
}

/// The table `[name]` of a config file, by the names of the settings; empty if the file has none.
pub(crate) fn table(path: &Path, name: &str) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut file: Settings =
        toml::from_str(&text).map_err(|error| usage(format!("{} is not TOML: {error}", path.display())))?;
    file.values_mut().for_each(dates_as_text);
    if let Some(name) = file.keys().find(|name| !TABLES.contains(&name.as_str())) {
        let tables = TABLES.map(|table| format!("[{table}]")).join(", ");
        let why = cli::command().find_subcommand(name).map_or("", |_| ": the settings of this command are flags only");
        bail!(usage(format!("{}: expected the tables {tables}, found `{name}`{why}", path.display())));
    }
    match file.remove(name) {
        None => Ok(Settings::new()),
        Some(Value::Object(table)) => by_setting(&command(name), table).with_context(|| in_table(path, name)),
        Some(other) => bail!(usage(format!("{}: expected [{name}] to be a table, found {other}", path.display()))),
    }
}

/// Makes a text of every date without quotes: the TOML reader gives it as an object of this one key.
fn dates_as_text(value: &mut Value) {
    match value {
        Value::Object(fields) => match fields.get("$__toml_private_datetime").cloned() {
            Some(date) => *value = date,
            None => fields.values_mut().for_each(dates_as_text),
        },
        Value::Array(values) => values.iter_mut().for_each(dates_as_text),
        _ => {}
    }
}

/// A table whose names are those of settings instead of flags. Unknown names stay, for clap to refuse.
pub(crate) fn by_setting(command: &Command, table: Settings) -> anyhow::Result<Settings> {
    let mut settings = Settings::new();
    for (name, value) in table {
        const EARLY: [&str; 4] = ["config", "json", "verbose", "log-format"];
        let early = || usage(format!("{name} is a flag only: it is needed before this file is read"));
        ensure!(!EARLY.contains(&&*name), early());
        let is_named = |flag: &&clap::Arg| {
            let aliases = flag.get_all_aliases().unwrap_or_default();
            flag.get_long() == Some(&name) || aliases.contains(&name.as_str())
        };
        let setting = command.get_arguments().find(is_named).map_or(name.as_str(), |flag| flag.get_id().as_str());
        let twice = || usage(format!("{name} is set twice, under two names"));
        ensure!(settings.insert(setting.to_string(), value).is_none(), twice());
    }
    Ok(settings)
}

/// The flags `A` of a command line, with the settings of its config file.
///
/// # Errors
/// As for [`with_file`]; or if clap refuses the command line.
pub(crate) fn parse<A: FromArgMatches>(words: Vec<OsString>) -> anyhow::Result<A> {
    let matches = cli::command().try_get_matches_from(&words).map_err(|error| without_usage(&error))?;
    let matches = with_file(matches, words)?;
    Ok(A::from_arg_matches(matches.subcommand().expect("a command is required").1)?)
}

/// The flags of `refract harvest` with these settings, and with the others of the config file.
///
/// # Errors
/// As for [`parse`].
pub(crate) fn harvest(settings: Settings, file: Option<PathBuf>) -> anyhow::Result<HarvestArgs> {
    let mut words: Vec<OsString> = vec!["refract".into(), "harvest".into()];
    words.extend(file.into_iter().flat_map(|file| ["--config".into(), file.into_os_string()]));
    words.extend(as_flags(&command("harvest"), settings)?.into_iter().map(OsString::from));
    parse(words)
}

/// The config of a library whose settings `args` are. What is null, `false` or an empty list was not given.
pub(crate) fn config<T: DeserializeOwned>(args: &impl Serialize) -> anyhow::Result<T> {
    Ok(harvester::config_of(&of_args(args)?)?)
}

/// The settings that were given; a flag `no_x` sets `x` to false.
pub(crate) fn of_args(args: &impl Serialize) -> anyhow::Result<Settings> {
    let mut given: Settings = serde_json::from_value(serde_json::to_value(args)?)?;
    given.retain(|_, value| !matches!(value, Value::Null | Value::Bool(false)) && *value != Value::Array(vec![]));
    let setting = |(name, value): (String, Value)| match name.strip_prefix("no_") {
        Some(name) => (name.to_string(), Value::Bool(false)),
        None => (name, value),
    };
    Ok(given.into_iter().map(setting).collect())
}
