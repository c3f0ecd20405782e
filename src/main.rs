//! The command line of refract: parse, dispatch, print. One file per group of subcommands; the work is in the
//! libraries. The modules below are in order: each uses only earlier ones.

mod cli;
mod settings;
mod terminal;
mod manual;
mod harvest;
mod train;
mod artifacts;
mod sae;
mod steer;
mod look;
mod demo;

use std::{ffi::OsString, process::ExitCode};

use clap::{ArgMatches, FromArgMatches};

use crate::{
    cli::{Cli, Command, Global},
    terminal::{Terminal, signals},
};

/// glibc gives each large tensor back to the system and faults it in again, which makes elementwise operations up to
/// eight times slower; mimalloc keeps it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let watched = signals::watch(); // first: a signal before it ends the program without a word
    let words: Vec<OsString> = std::env::args_os().collect();
    let matches = cli::command().try_get_matches_from(&words).unwrap_or_else(|error| refuse(&error, &words));
    let terminal = Terminal::new(&Global::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()));
    let ended = watched.map_err(anyhow::Error::new).and_then(|_runtime| run(matches, words, &terminal));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => terminal.fail(&error),
    }
}

/// Prints clap's message: an error, for programs too if they asked for JSON, or the help.
fn refuse(error: &clap::Error, words: &[OsString]) -> ! {
    if error.use_stderr() && words.iter().any(|word| word == "--json") {
        let message = settings::without_usage(error);
        terminal::write_result(&serde_json::json!({ "error": message.to_string(), "because": [] }).to_string());
    }
    error.exit()
}

fn run(matches: ArgMatches, words: Vec<OsString>, terminal: &Terminal) -> anyhow::Result<()> {
    let matches = settings::with_file(matches, words)?;
    let (_, flags) = matches.subcommand().expect("a command is required");
    match Cli::from_arg_matches(&matches)?.command {
        Command::Demo(args) => demo::run(&args, terminal),
        Command::Harvest(args) => harvest::run(&args, terminal).map(drop),
        Command::Merge(args) => artifacts::merge(&args, terminal),
        Command::Train(args) => train::train(&args, settings::file(flags), terminal),
        Command::Sweep(_) => train::sweep(flags, terminal),
        Command::Evaluate(args) => sae::evaluate(&args, None, terminal),
        Command::Index(args) => sae::index(&args, None, settings::file(flags), terminal),
        Command::Show(args) => look::show(&args, terminal),
        Command::Encode(args) => sae::encode(&args, settings::file(flags), terminal),
        Command::Explain(args) => sae::explain(&args, terminal),
        Command::Find(args) => look::find(&args, None, terminal).map(drop),
        Command::Search(args) => look::search(&args, terminal),
        Command::Steer(args) => steer::run(&args, None, terminal),
        Command::Monitor(args) => steer::monitor(&args, terminal),
        Command::Direction(args) => steer::direction(&args, terminal),
        Command::Compare(args) => look::compare(&args, terminal),
        Command::Convert(args) => artifacts::convert(&args, terminal),
        Command::Inspect(args) => artifacts::inspect(&args, terminal),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::man(&args),
    }
}
