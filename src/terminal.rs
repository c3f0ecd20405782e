//! [`Terminal`]: everything that meets the user's eyes. Results go to standard output; progress, logs and errors to
//! standard error. Colors respect NO_COLOR. If the output is not a terminal, there are no colors and no bars: a log
//! gets a line of progress now and then.

use std::{
    fmt,
    io::{IsTerminal, Write},
    process::ExitCode,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anstyle::{AnsiColor, Color, RgbColor, Style};
use harvester::Monitor;
use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::cli::{Global, LogFormat};

/// The exit status that shells report for a program that Ctrl-C ended.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;

/// Set once Ctrl-C was pressed or the system asked to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// True if every line on standard error is JSON.
static JSON_LOGS: AtomicBool = AtomicBool::new(false);

/// Target of messages that are shown at every log level.
const SAID: &str = "refract::said";

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));

/// Time between two lines of progress if there are no bars.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// The user's terminal, and the [`Monitor`] of every stage.
pub(crate) struct Terminal {
    /// The bars of work in progress, the innermost last.
    open: Mutex<Vec<ProgressBar>>,
    /// Message to show when work begins.
    pending: Mutex<Option<String>>,
    /// Time of the last line of progress, if there are no bars.
    reported: Mutex<Instant>,
    /// True if only machine-readable results are printed.
    pub(crate) json: bool,
}

/// All bars, so that a log line can be written between them.
fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// Waits for Ctrl-C.
pub(crate) async fn watch_ctrl_c() {
    while tokio::signal::ctrl_c().await.is_ok() {
        stop();
    }
}

/// Waits for SIGTERM, with which SLURM, Kubernetes and systemd ask a program to end, or for SIGHUP, which a closed
/// terminal sends.
#[cfg(unix)]
pub(crate) async fn watch_for(kind: tokio::signal::unix::SignalKind) {
    let Ok(mut signal) = tokio::signal::unix::signal(kind) else { return };
    while signal.recv().await.is_some() {
        stop();
    }
}

/// Ignores the signal of a limit on the size of files (`ulimit -f`), which would end the program. The write then fails,
/// and its error names the file.
#[cfg(unix)]
pub(crate) async fn outlive_file_size_limit() {
    /// SIGXFSZ, on Linux and macOS.
    const FILE_SIZE: i32 = 25;
    let Ok(mut signal) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(FILE_SIZE)) else {
        return;
    };
    while signal.recv().await.is_some() {}
}

/// Asks running stages to stop at the first signal; leaves at once at the second.
fn stop() {
    if INTERRUPTED.swap(true, Ordering::Relaxed) {
        std::process::exit(i32::from(EXIT_INTERRUPTED));
    }
    say("stopping: saving progress (Ctrl-C again to quit now)");
}

/// True if the cause is a full disk, a used-up quota, or a limit on the size of files.
fn is_full_disk(cause: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    let error = cause.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge))
}

/// Shows a message on standard error.
fn say(text: &str) {
    let text = &with_flags(text);
    if JSON_LOGS.load(Ordering::Relaxed) {
        text.lines().for_each(|line| tracing::info!(target: SAID, "{line}"));
    } else {
        bars().suspend(|| eprintln_styled(DIM, text));
    }
}

/// Replaces the names of settings in a library's message, which are in backticks, by their flags: "`ctx_len`" becomes
/// "--ctx-len". Names of columns and fields, and what was found, are the user's and stay.
pub(crate) fn with_flags(text: &str) -> String {
    static FLAGS: OnceLock<Vec<(String, String)>> = OnceLock::new();
    let flags = FLAGS.get_or_init(|| {
        let command = crate::cli::command();
        let all = command.get_subcommands().flat_map(clap::Command::get_arguments);
        all.filter_map(|flag| Some((format!("`{}`", flag.get_id()), format!("--{}", flag.get_long()?)))).collect()
    });
    let mut said = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, quoted, after)) = next_quoted(rest) {
        said += before;
        let is_data = DATA.iter().any(|word| said.ends_with(word));
        let flag = flags.iter().find(|(setting, _)| !is_data && setting == quoted);
        said += flag.map_or(quoted, |(_, flag)| flag);
        rest = after;
    }
    said + rest
}

/// Words before a name in backticks that is the user's and not a setting.
const DATA: [&str; 3] = ["column ", "field ", "found "];

/// The text before the next name in backticks, that name with its backticks, and the text after it.
fn next_quoted(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find('`')?;
    let end = start + 1 + text[start + 1..].find('`')? + 1;
    Some((&text[..start], &text[start..end], &text[end..]))
}

/// Shows an error on standard error.
fn say_error(text: &str) {
    if JSON_LOGS.load(Ordering::Relaxed) {
        tracing::error!(target: SAID, "{text}");
    } else {
        let _ = writeln!(anstream::stderr(), "{RED}error:{RED:#} {text}");
    }
}

/// True if Ctrl-C was pressed or the system asked the program to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

fn eprintln_styled(style: Style, text: &str) {
    // Nothing can be done about a standard error that cannot be written to.
    let _ = writeln!(anstream::stderr(), "{style}{text}{style:#}");
}

impl Terminal {
    pub(crate) fn new(global: &Global) -> Self {
        start_logs(global);
        let reported = Mutex::new(Instant::now());
        Self { open: Mutex::new(vec![]), pending: Mutex::new(None), reported, json: global.json }
    }

    /// A line of a result, on standard output.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            bars().suspend(|| write_result(text.as_ref()));
        }
    }

    /// A result for programs, if `--json` is given.
    pub(crate) fn json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        if self.json {
            write_result(&serde_json::to_string(value)?);
        }
        Ok(())
    }

    /// A heading of a result.
    pub(crate) fn heading(&self, text: &str) {
        self.line(format!("\n{BOLD}{text}{BOLD:#}"));
    }

    /// A message beside the results, on standard error: the work needed, the documents left out.
    pub(crate) fn say(&self, text: impl AsRef<str>) {
        say(text.as_ref());
    }

    /// The same once work begins: nobody needs an estimate of a run that is refused.
    pub(crate) fn say_when_begun(&self, text: String) {
        *self.pending() = Some(text);
    }

    /// Shows the message that waits for work to begin.
    pub(crate) fn begin(&self) {
        if let Some(text) = self.pending().take() {
            say(&text);
        }
    }

    /// Prints an error with all its causes.
    pub(crate) fn fail(&self, error: &anyhow::Error) -> ExitCode {
        self.open().drain(..).for_each(|bar| bar.abandon());
        let mut causes: Vec<String> = vec![];
        for cause in error.chain() {
            let text = cause.to_string();
            // A transparent error repeats its cause.
            if causes.last() != Some(&text) {
                causes.push(text);
            }
        }
        say_error(&with_flags(&causes.join("\n  because: ")));
        if error.chain().any(is_full_disk) {
            say("make room and repeat the command: what was finished is kept, and it goes on from there");
        }
        ExitCode::FAILURE
    }

    /// A line of progress for a log, if the last one is a while ago.
    fn report(&self, bar: &ProgressBar) {
        let mut reported = self.reported.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if reported.elapsed() >= REPORT_EVERY {
            *reported = Instant::now();
            say(&progress_line(bar));
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.pending.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn open(&self) -> std::sync::MutexGuard<'_, Vec<ProgressBar>> {
        self.open.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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

impl Monitor for Terminal {
    fn start(&self, what: &str, total: u64, unit: &str) {
        self.begin();
        let bar =
            if std::io::stderr().is_terminal() { bars().add(ProgressBar::new(total)) } else { ProgressBar::hidden() };
        let (amount, rate) = match unit {
            "bytes" => ("{bytes}/{total_bytes}", "{bytes_per_sec}"),
            _ => ("{human_pos}/{human_len}", "{rate}"),
        };
        // Within 80 columns; the note has a line of its own.
        let known = format!("{{prefix:12}} {{bar:16.cyan/dim}} {amount} {unit}  {rate}  {{eta}} left{{msg:.dim}}");
        let unknown = format!("{{prefix:12}} {{spinner}} {{human_pos}} {unit}  {rate}{{msg:.dim}}");
        let style = ProgressStyle::with_template(if total > 0 { &known } else { &unknown });
        let style = style.expect("the template is a constant");
        bar.set_style(style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Nothing can be done about a terminal that cannot be written to.
            let _ = out.write_str(&per_second(state.per_sec()));
        }));
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        self.open().push(bar);
    }

    fn advance(&self, n: u64) {
        if let Some(bar) = self.open().last() {
            bar.inc(n);
            if bar.is_hidden() {
                self.report(bar);
            }
        }
    }

    fn note(&self, text: &str) {
        if let Some(bar) = self.open().last() {
            let indent = if bar.is_hidden() { String::new() } else { format!("\n{:12} ", "") };
            bar.set_message(format!("{indent}{text}"));
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.open().pop() {
            bar.finish_and_clear();
        }
    }

    fn cancelled(&self) -> bool {
        interrupted()
    }
}

/// `train: 409,600 of 1,500,000, 15,000/s, 72 seconds left; loss 102.3, fvu 0.178`
fn progress_line(bar: &ProgressBar) -> String {
    let done = grouped(bar.position());
    let of_total = match bar.length() {
        Some(total @ 1..) => format!(" of {}", grouped(total)),
        _ => String::new(),
    };
    let left = match bar.length() {
        Some(1..) => format!(", {} left", human_seconds(bar.eta().as_secs_f64())),
        _ => String::new(),
    };
    let note = if bar.message().is_empty() { String::new() } else { format!("; {}", bar.message()) };
    format!("{}: {done}{of_total}, {}{left}{note}", bar.prefix(), per_second(bar.per_sec()))
}

/// Logs on standard error, between the bars: warnings by default, more with `-v` or RUST_LOG.
fn start_logs(global: &Global) {
    let default = match global.verbose {
        0 => "warn",
        1 => "warn,refract=info,harvester=info,trainer=info,analyzer=info",
        2 => "warn,refract=debug,harvester=debug,trainer=debug,analyzer=debug",
        _ => "trace",
    };
    let mut unused = None;
    let filter = match std::env::var(EnvFilter::DEFAULT_ENV).ok().map(EnvFilter::try_new) {
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            unused = Some(format!("RUST_LOG is not used: {error}"));
            EnvFilter::new(default)
        }
        None => EnvFilter::new(default),
    };
    let said = format!("{SAID}=info").parse().expect("the directive is a constant");
    let logs = tracing_subscriber::fmt().with_env_filter(filter.add_directive(said)).with_writer(BesideBars);
    match global.log_format {
        LogFormat::Json => {
            JSON_LOGS.store(true, Ordering::Relaxed);
            logs.json().init();
        }
        LogFormat::Text => {
            let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            logs.with_ansi(color).with_target(false).init();
        }
    }
    if let Some(text) = unused {
        say(&text);
    }
}

struct BesideBars;

impl<'a> MakeWriter<'a> for BesideBars {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for BesideBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = with_flags(&String::from_utf8_lossy(bytes));
        bars().suspend(|| std::io::stderr().write_all(text.as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// A text of tokens on one line, each highlighted by its activation; without colors, active tokens are in brackets.
pub(crate) fn lit(texts: &[String], activations: &[f32], max: f32) -> String {
    let colors = anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never;
    let mut line = String::new();
    let mut of_character = 0f32;
    for (text, &activation) in texts.iter().zip(activations) {
        // A character of several tokens is shown at its last one, lit by the strongest of them.
        let activation = activation.max(of_character);
        of_character = if text.is_empty() { activation } else { 0.0 };
        if text.is_empty() {
            continue;
        }
        let text = on_one_line(text);
        let share = if max > 0.0 { (activation / max).clamp(0.0, 1.0) } else { 0.0 };
        match (activation > 0.0, colors) {
            (false, _) => line.push_str(&text),
            (true, false) => line.push_str(&format!("[{text}]")),
            (true, true) => {
                let style = heat(share);
                line.push_str(&format!("{style}{text}{style:#}"));
            }
        }
    }
    line
}

/// An orange background, from dark to bright.
fn heat(share: f32) -> Style {
    let mix = |from: f32, to: f32| (from + (to - from) * share) as u8;
    let background = RgbColor(mix(60.0, 255.0), mix(40.0, 150.0), mix(20.0, 30.0));
    let text = if share > 0.5 { RgbColor(20, 12, 0) } else { RgbColor(255, 230, 200) };
    Style::new().bg_color(Some(Color::Rgb(background))).fg_color(Some(Color::Rgb(text)))
}

/// A token's text with line breaks and control characters made visible: text of a model must not move the cursor.
pub(crate) fn on_one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' => '⏎',
            '\t' => '⇥',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

/// A token in a list: quoted, because most begin with a space.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", on_one_line(text))
}

/// `1234567` -> `1,234,567`
pub(crate) fn grouped(n: u64) -> String {
    indicatif::HumanCount(n).to_string()
}

/// A rate: a whole number from 10 on.
fn per_second(rate: f64) -> String {
    if rate < 10.0 { format!("{rate:.1}/s") } else { format!("{}/s", grouped(rate.round() as u64)) }
}

pub(crate) fn human_bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// Floating-point operations: `110 MFLOP`, `96 kFLOP`.
pub(crate) fn human_flop(n: u64) -> String {
    const MEGA: u64 = 1_000_000;
    if n >= 10 * MEGA { format!("{} MFLOP", grouped(n / MEGA)) } else { format!("{} kFLOP", grouped(n.div_ceil(1000))) }
}

pub(crate) fn human_seconds(seconds: f64) -> String {
    indicatif::HumanDuration(Duration::from_secs_f64(seconds.clamp(1.0, 1e9))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_model_computes_something_too() {
        let said = [0, 1, 96_000, 9_999_999, 110_400_000, 1_234_000_000].map(human_flop);
        assert_eq!(said, ["0 kFLOP", "1 kFLOP", "96 kFLOP", "10,000 kFLOP", "110 MFLOP", "1,234 MFLOP"]);
    }

    #[test]
    fn rates_are_whole_where_they_are_more_than_a_few() {
        assert_eq!([0.26, 9.94, 12345.6].map(per_second), ["0.3/s", "9.9/s", "12,346/s"]);
    }

    #[test]
    fn settings_become_flags_and_what_is_the_users_stays() {
        let said =
            with_flags("`ctx_len`: expected `batch` below 3, found `tokens`\na column `tokens` of text, or `tokens`");
        assert_eq!(said, "--ctx-len: expected --batch below 3, found `tokens`\na column `tokens` of text, or --tokens");
    }

    #[test]
    fn text_of_a_model_cannot_move_the_cursor() {
        assert_eq!(on_one_line("a\n\x1b[2J\tb\r"), "a⏎·[2J⇥b·");
    }
}
