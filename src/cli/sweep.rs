//! [`SweepArgs`]: the flags of `refract sweep`: those that all runs share, and every setting of train as a list.

use clap::{ArgAction, Args, Command};

use super::{
    train::{DataArgs, TrainConfigArgs},
    value::count,
};

/// Flags of `refract sweep`.
#[derive(Debug, Args)]
pub(crate) struct SweepArgs {
    #[command(flatten)]
    _shared: SharedArgs,
    /// For their help: their values are lists.
    #[command(flatten)]
    _config: TrainConfigArgs,
}

/// The flags that all runs share.
#[derive(Debug, Args)]
pub(crate) struct SharedArgs {
    #[command(flatten)]
    pub(crate) data: DataArgs,
    /// SAEs in memory at once; the others follow in further passes [default: what fits in half of the memory].
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub(crate) at_once: Option<usize>,
}

/// The command with settings of train that take several values each.
pub(super) fn with_lists(command: Command) -> Command {
    let settings = TrainConfigArgs::augment_args(Command::new("settings"));
    let is_setting = |flag: &clap::Arg| settings.get_arguments().any(|setting| setting.get_id() == flag.get_id());
    command.mut_args(|flag| match flag.get_action() {
        ArgAction::Set | ArgAction::Append if is_setting(&flag) => {
            // A path may contain a comma.
            let flag = if flag.get_id() == "init_from" { flag } else { flag.value_delimiter(',') };
            flag.action(ArgAction::Append).num_args(1..)
        }
        _ => flag,
    })
}
