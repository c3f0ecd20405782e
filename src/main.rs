//! The command line of refract: parse, dispatch, print. One file per group of subcommands; the work is in the
//! libraries. The modules below are in order: each uses only earlier ones.

mod settings;
mod cli;
mod terminal;
mod sweep_table;
mod merge;
mod convert;
mod manual;
mod harvest;
mod train;
mod evaluate;
mod index;
mod show;
mod steer;
mod sweep;
mod inspect;
mod demo;

use std::process::ExitCode;

use clap::{ArgMatches, FromArgMatches};

use crate::{
    cli::{Cli, Command},
    terminal::Terminal,
};

/// glibc gives each large tensor back to the system and faults it in again, which makes elementwise operations up to
/// eight times slower; mimalloc keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let matches = cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let terminal = Terminal::new(&cli.global);
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return terminal.fail(&anyhow::Error::new(error).context("cannot start the runtime")),
    };
    runtime.spawn(terminal::watch_ctrl_c());
    #[cfg(unix)]
    for kind in [tokio::signal::unix::SignalKind::terminate(), tokio::signal::unix::SignalKind::hangup()] {
        runtime.spawn(terminal::watch_for(kind));
    }
    #[cfg(unix)]
    runtime.spawn(terminal::outlive_file_size_limit());
    match run(cli, &matches, &terminal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if terminal::interrupted() => {
            terminal.fail(&error);
            ExitCode::from(terminal::EXIT_INTERRUPTED)
        }
        Err(error) => terminal.fail(&error),
    }
}

fn run(cli: Cli, matches: &ArgMatches, terminal: &Terminal) -> anyhow::Result<()> {
    let config = cli.global.config.as_deref();
    let takes_settings = matches!(
        cli.command,
        Command::Harvest(_)
            | Command::Train(_)
            | Command::Sweep(_)
            | Command::Evaluate(_)
            | Command::Index(_)
            | Command::Steer(_)
    );
    anyhow::ensure!(config.is_none() || takes_settings, "this command takes no settings from --config: use its flags");
    match cli.command {
        Command::Demo(args) => demo::run(&args, terminal),
        Command::Harvest(args) => harvest::run(settings::with_file("harvest", *args, config)?, terminal),
        Command::Merge(args) => merge::run(&args, terminal),
        Command::Train(args) => train::run(settings::with_file("train", *args, config)?, config, terminal),
        Command::Sweep(args) => {
            let flags = matches.subcommand_matches("sweep").expect("the command that was parsed");
            sweep::run(&args.shared, flags, config, terminal)
        }
        Command::Evaluate(args) => evaluate::run(&settings::with_file("evaluate", args, config)?, terminal),
        Command::Index(args) => index::run(&settings::with_file("index", args, config)?, terminal),
        Command::Show(args) => show::run(&args, terminal),
        Command::Find(args) => show::find(&args, terminal),
        Command::Steer(args) => steer::run(&settings::with_file("steer", args, config)?, terminal),
        Command::Convert(args) => convert::run(&args, terminal),
        Command::Inspect(args) => inspect::run(&args, terminal),
        Command::Completions(args) => {
            manual::completions(&args);
            Ok(())
        }
        Command::Man(args) => manual::man(&args),
    }
}
