//! [`Terminal`]: everything that meets the user's eyes. Results go to standard output; progress, logs and errors to
//! standard error. Colors respect NO_COLOR. If standard error is not a terminal, there are no bars: a log gets a line of
//! progress now and then.

mod text;
mod progress;
mod messages;
pub(crate) mod signals;

use std::{
    io::Write,
    process::ExitCode,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use analyzer::{Facts, on_one_line};
use anstyle::Style;
use harvester::{Monitor, Progress};

pub(crate) use self::{
    messages::with_flags,
    text::{BOLD, DIM, lit},
};
use self::{
    messages::{say, say_error},
    progress::{Work, bars},
};
use crate::cli::Global;

/// Time between two lines of progress if there are no bars.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// The user's terminal, and the [`Monitor`] of every stage.
pub(crate) struct Terminal {
    works: Mutex<Works>,
    /// True if only machine-readable results are printed.
    json: bool,
}

/// The work in progress.
struct Works {
    /// The innermost last.
    open: Vec<Work>,
    /// Time of the last line, if there are no bars.
    reported: Instant,
}

impl Terminal {
    pub(crate) fn new(global: &Global) -> Self {
        messages::start_logs(global);
        Self { works: Mutex::new(Works { open: vec![], reported: Instant::now() }), json: global.json }
    }

    /// A line of a result, on standard output.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            bars().suspend(|| write_result(text.as_ref()));
        }
    }

    /// A line of a result that begins with `head`, of `indent` characters. If it is too long for the terminal, it goes
    /// on below the text.
    pub(crate) fn hanging(&self, head: &str, indent: usize, text: &str) {
        let lines = analyzer::wrapped(text, self.width().saturating_sub(indent)).into_iter();
        for (at, line) in lines.enumerate() {
            self.line(if at == 0 { format!("{head}{line}") } else { format!("{:indent$}{line}", "") });
        }
    }

    /// Characters in a line: those of the terminal, else 80.
    pub(crate) fn width(&self) -> usize {
        let size = terminal_size::terminal_size_of(std::io::stdout());
        size.map_or(80, |(width, _)| usize::from(width.0).max(40))
    }

    /// A heading of a result.
    pub(crate) fn heading(&self, text: &str) {
        self.line(format!("\n{BOLD}{text}{BOLD:#}"));
    }

    /// A latent with its label and what is known of it.
    pub(crate) fn latent(&self, latent: u32, label: &str, facts: &Facts) {
        let head = format!("latent {latent}");
        self.hanging(&format!("\n{BOLD}{head}{BOLD:#}  "), head.len() + 2, &on_one_line(label));
        for (name, value) in facts.iter() {
            self.hanging(&format!("  {DIM}{name:11}{DIM:#} "), 14, value);
        }
    }

    /// Lines of a result that are names and values.
    pub(crate) fn facts(&self, facts: &Facts) {
        facts.iter().for_each(|(name, value)| self.fact(name, value));
    }

    /// A name and a value.
    pub(crate) fn fact(&self, name: &str, value: &str) {
        self.line(format!("  {DIM}{name:14}{DIM:#} {value}"));
    }

    /// Lines that sum up what was written to `out`.
    pub(crate) fn report(&self, out: impl std::fmt::Display, lines: &[String]) {
        for (at, line) in lines.iter().enumerate() {
            let place = if at == 0 { format!("{out}: ") } else { String::new() };
            self.line(place + &with_flags(line));
        }
    }

    /// Lines of a table, the first of which is its heading.
    pub(crate) fn table(&self, lines: &[String]) {
        for (at, line) in lines.iter().enumerate() {
            let style = if at == 0 { BOLD } else { Style::new() };
            self.line(format!("{style}{line}{style:#}"));
        }
    }

    /// Tables, each below what it is of.
    pub(crate) fn tables(&self, tables: &[(&str, Vec<String>)]) {
        for (name, lines) in tables {
            self.heading(name);
            self.table(lines);
        }
    }

    /// A result for programs, if `--json` is given.
    pub(crate) fn json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        if self.json {
            write_result(&serde_json::to_string(value)?);
        }
        Ok(())
    }

    /// Prints an error with all its causes, below how far the work had come.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> ExitCode {
        let open = std::mem::take(&mut self.works().open);
        open.iter().rev().for_each(Work::clear);
        if let Some(innermost) = open.last() {
            say(&innermost.line(false));
        }
        let causes = analyzer::Error::in_words(error.chain());
        let causes: Vec<String> = causes.iter().map(|cause| with_flags(cause)).collect();
        say_error(&causes.join("\n  because: "));
        if error.chain().any(analyzer::Error::is_full_disk) {
            say("make room and repeat the command: what was finished is kept, and it goes on from there");
        }
        if let Some(command) = self.command().filter(|_| signals::interrupted()) {
            say(&format!("to go on: {command}"));
        }
        if self.json {
            write_result(&serde_json::json!({ "error": causes[0], "because": causes[1..] }).to_string());
        }
        match error.chain().any(analyzer::Error::is_usage) {
            _ if signals::interrupted() => ExitCode::from(signals::EXIT_INTERRUPTED),
            true => ExitCode::from(2), // as for what clap refuses
            false => ExitCode::FAILURE,
        }
    }

    /// Prints an error after which an interactive command asks again; not one of an interruption.
    pub(crate) fn go_on(&self, error: anyhow::Error) -> anyhow::Result<()> {
        if signals::interrupted() {
            return Err(error);
        }
        self.fail(&error);
        Ok(())
    }

    fn works(&self) -> MutexGuard<'_, Works> {
        self.works.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the innermost work in progress, and adds a line of progress to a log if the last one is a while ago.
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        let Works { open, reported } = &mut *self.works();
        let Some(work) = open.last_mut() else { return };
        change(&mut work.progress);
        if work.has_bar() {
            work.show(true);
        } else if reported.elapsed() >= REPORT_EVERY {
            *reported = Instant::now();
            say(&work.line(true));
        }
    }
}

impl Monitor for Terminal {
    fn say(&self, sentence: &str) {
        say(sentence);
    }

    fn start(&self, what: &str, total: u64, unit: &str) {
        let open = &mut self.works().open;
        open.iter().for_each(|outer| outer.show(false));
        open.push(Work::start(Progress::start(what, total, unit)));
    }

    fn advance(&self, n: u64) {
        self.update(|progress| progress.done += n);
    }

    fn skip(&self, n: u64) {
        self.update(|progress| progress.skip(n));
    }

    fn note(&self, text: &str) {
        self.update(|progress| progress.note = text.to_string());
    }

    fn finish(&self) {
        let open = &mut self.works().open;
        let Some(work) = open.pop() else { return };
        work.clear();
        if signals::interrupted() {
            say(&work.line(false));
        }
        open.iter().rev().take(1).for_each(|outer| outer.show(true));
    }

    fn command(&self) -> Option<String> {
        Some(harvester::human::shell_command(std::env::args_os().map(|word| word.to_string_lossy().into_owned())))
    }

    fn cancelled(&self) -> bool {
        signals::interrupted()
    }
}

/// Standard output that is closed early (`| head`) ends the program quietly, as other tools do; a result that cannot be
/// written for another reason is an error.
pub(crate) fn write_result(text: &str) {
    let mut out = anstream::stdout();
    let Err(error) = writeln!(out, "{text}").and_then(|()| out.flush()) else { return };
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    say_error(&format!("cannot write to standard output: {error}"));
    std::process::exit(1);
}
