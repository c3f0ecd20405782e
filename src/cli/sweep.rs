//! [`SweepArgs`]: the flags of `refract sweep`: those that all runs share, and every setting of train as a list.

use clap::{ArgAction, ArgMatches, Args, Command, parser::ValueSource};
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{run::DataArgs, train::TrainConfigArgs};

/// Flags of `refract sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    pub(crate) shared: SharedArgs,
    /// The first value of each; [`lists`] has all of them.
    #[command(flatten)]
    _config: TrainConfigArgs,
}

/// The flags that all runs share.
#[derive(Debug, Default, Args, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    #[serde(flatten)]
    pub(crate) data: DataArgs,
    /// SAEs in memory at once; the others follow in further passes [default: what fits in half of the memory].
    #[arg(long, value_name = "N")]
    pub(crate) at_once: Option<usize>,
}

/// The command with settings of train that take several values each.
pub(super) fn with_lists(command: Command) -> Command {
    let settings = serde_json::to_value(TrainConfigArgs::default()).unwrap_or_default();
    command.mut_args(|flag| match flag.get_action() {
        ArgAction::Set | ArgAction::Append if settings.get(flag.get_id().as_str()).is_some() => {
            // A path may contain a comma.
            let flag = if flag.get_id() == "init_from" { flag } else { flag.value_delimiter(',') };
            flag.action(ArgAction::Append).num_args(1..)
        }
        _ => flag,
    })
}

/// The lists that were given, as the table `[sweep]` of a file would have them.
pub(crate) fn lists(matches: &ArgMatches) -> Table {
    let command = TrainConfigArgs::augment_args(Command::new("settings"));
    let given = command
        .get_arguments()
        .filter(|flag| matches.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine));
    let list = |flag: &clap::Arg| {
        let values = matches.get_raw(flag.get_id().as_str()).into_iter().flatten();
        let values = values.map(|value| Value::String(value.to_string_lossy().into_owned())).collect();
        let value = if flag.get_action().takes_values() { Value::Array(values) } else { Value::Boolean(true) };
        Some((flag.get_long()?.to_string(), value))
    };
    given.filter_map(list).collect()
}
