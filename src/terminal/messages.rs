//! Messages and logs on standard error, above the bars. Names of settings in them become flags.

use std::{
    io::{IsTerminal, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use anstyle::{AnsiColor, Color, Style};
use tracing_subscriber::EnvFilter;

use super::{progress::bars, text::DIM};
use crate::cli::{Global, LogFormat};

/// True if every line on standard error is JSON.
static JSON_LOGS: AtomicBool = AtomicBool::new(false);

/// Target of messages that are shown at every log level.
const SAID: &str = "refract::said";

const RED: Style = Style::new().bold().fg_color(Some(Color::Ansi(AnsiColor::Red)));

/// Words before a name in backticks that is the user's and not a setting.
const DATA: [&str; 3] = ["column ", "field ", "found "];

/// Shows a message on standard error.
pub(super) fn say(text: &str) {
    let text = &with_flags(text);
    if JSON_LOGS.load(Ordering::Relaxed) {
        text.lines().for_each(|line| tracing::info!(target: SAID, "{line}"));
    } else {
        // Nothing can be done about a standard error that cannot be written to.
        let _ = bars().suspend(|| writeln!(anstream::stderr(), "{DIM}{text}{DIM:#}"));
    }
}

/// Shows an error on standard error.
pub(super) fn say_error(text: &str) {
    if JSON_LOGS.load(Ordering::Relaxed) {
        tracing::error!(target: SAID, "{text}");
    } else {
        let _ = writeln!(anstream::stderr(), "{RED}error:{RED:#} {text}");
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

/// The text before the next name in backticks, that name with its backticks, and the text after it.
fn next_quoted(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find('`')?;
    let end = start + 1 + text[start + 1..].find('`')? + 1;
    Some((&text[..start], &text[start..end], &text[end..]))
}

/// Logs on standard error: warnings by default, more with `-v` or RUST_LOG.
pub(super) fn start_logs(global: &Global) {
    let default = match global.verbose {
        0 => "warn",
        1 => "warn,refract=info,harvester=info,trainer=info,analyzer=info",
        2 => "warn,refract=debug,harvester=debug,trainer=debug,analyzer=debug",
        _ => "trace",
    };
    let own = std::env::var(EnvFilter::DEFAULT_ENV).ok().map(EnvFilter::try_new).transpose();
    let (filter, refused) = match own {
        Ok(own) => (own.unwrap_or_else(|| EnvFilter::new(default)), None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    let said = format!("{SAID}=info").parse().expect("the directive is a constant");
    let logs = tracing_subscriber::fmt().with_env_filter(filter.add_directive(said)).with_writer(|| AboveBars);
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
    if let Some(error) = refused {
        say(&format!("RUST_LOG is not used: {error}"));
    }
}

/// Standard error, above the bars.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let text = with_flags(&String::from_utf8_lossy(bytes));
        bars().suspend(|| std::io::stderr().write_all(text.as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_flags_and_what_is_the_users_stays() {
        let said =
            with_flags("`ctx_len`: expected `batch` below 3, found `tokens`\na column `tokens` of text, or `tokens`");
        assert_eq!(said, "--ctx-len: expected --batch below 3, found `tokens`\na column `tokens` of text, or --tokens");
    }
}
