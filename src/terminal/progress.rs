//! [`Work`]: a piece of work in progress, with its bar on standard error.

use std::{io::IsTerminal, sync::OnceLock, time::Duration};

use harvester::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// All bars, so that other lines can be written above them.
pub(super) fn bars() -> &'static MultiProgress {
    static BARS: OnceLock<MultiProgress> = OnceLock::new();
    BARS.get_or_init(MultiProgress::new)
}

/// A piece of work in progress.
pub(super) struct Work {
    pub(super) progress: Progress,
    /// Hidden if standard error is not a terminal.
    bar: ProgressBar,
}

impl Work {
    pub(super) fn start(progress: Progress) -> Self {
        let bar = match std::io::stderr().is_terminal() {
            true => bars().add(ProgressBar::new(progress.total)),
            false => ProgressBar::hidden(),
        };
        bar.enable_steady_tick(Duration::from_millis(200));
        let work = Self { progress, bar };
        work.show(true);
        work
    }

    /// Updates the bar. The note has a line of its own below it.
    pub(super) fn show(&self, is_innermost: bool) {
        let Self { progress, bar } = self;
        let gauge = if progress.total > 0 { "{bar:16.cyan/dim}" } else { "{spinner}" };
        let note = if progress.note.is_empty() { "" } else { "\n                 {prefix:.dim}" };
        let style = ProgressStyle::with_template(&format!("{gauge} {{wide_msg}}{note}"));
        bar.set_style(style.expect("the template is a constant"));
        bar.set_prefix(progress.note.clone());
        bar.set_message(progress.line(is_innermost));
        bar.set_position(progress.done);
    }

    /// Removes the bar.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    pub(super) fn has_bar(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// The line of progress for a log.
    pub(super) fn line(&self, with_time_left: bool) -> String {
        let note = &self.progress.note;
        let note = if note.is_empty() { String::new() } else { format!("; {note}") };
        format!("{}{note}", self.progress.line(with_time_left))
    }
}
