//! [`Progress`]: how far a piece of work is, in words, for a terminal, a log or a page.

use std::time::{Duration, Instant};

use crate::human;

/// A piece of work in progress, as a [`crate::Monitor`] is told of it.
#[derive(Debug, Clone)]
pub struct Progress {
    what: String,
    unit: String,
    /// Units in all; 0 if it is not known.
    pub total: u64,
    /// Units done.
    pub done: u64,
    /// Units of `done` that need no work in this run.
    skipped: u64,
    started: Instant,
    /// The state shown beside the progress.
    pub note: String,
}

impl Progress {
    /// Work that begins now: `total` of `unit`; 0 if it is not known.
    pub fn start(what: &str, total: u64, unit: &str) -> Self {
        let (what, unit, note) = (what.to_string(), unit.to_string(), String::new());
        Self { what, unit, total, done: 0, skipped: 0, started: Instant::now(), note }
    }

    /// `n` units need no work in this run.
    pub fn skip(&mut self, n: u64) {
        self.skipped += n;
        self.done += n;
    }

    /// `harvest: 26,624 of 160,000 tokens, 870/s, 2 min left`. The rate is that of this run. While other work runs
    /// inside this one, its time left tells nothing and is better left out.
    pub fn line(&self, with_time_left: bool) -> String {
        self.line_after(self.started.elapsed(), with_time_left)
    }

    fn line_after(&self, elapsed: Duration, with_time_left: bool) -> String {
        let is_bytes = self.unit == "bytes";
        let amount = |n: u64| if is_bytes { human::bytes(n) } else { human::grouped(n) };
        let unit = if is_bytes { String::new() } else { format!(" {}", self.unit) };
        let of_total = if self.total > 0 { format!(" of {}", amount(self.total)) } else { String::new() };
        let mut line = format!("{}: {}{of_total}{unit}", self.what, amount(self.done));
        // The first second tells little.
        let rate = (self.done - self.skipped) as f64 / elapsed.as_secs_f64().max(1.0);
        if rate > 0.0 && elapsed >= Duration::from_secs(1) {
            let shown = if is_bytes { format!("{}/s", human::bytes(rate as u64)) } else { human::per_second(rate) };
            line += &format!(", {shown}");
            if with_time_left && self.total > self.done {
                line += &format!(", {} left", human::seconds((self.total - self.done) as f64 / rate));
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(progress: &Progress, seconds: u64) -> String {
        progress.line_after(Duration::from_secs(seconds), true)
    }

    #[test]
    fn a_line_has_the_total_the_unit_the_rate_and_the_time_left() {
        let mut harvest = Progress::start("harvest", 160_000, "tokens");
        assert_eq!(said(&harvest, 0), "harvest: 0 of 160,000 tokens");
        harvest.done += 26_624;
        assert_eq!(said(&harvest, 30), "harvest: 26,624 of 160,000 tokens, 887/s, 3 min left");
        let outer = harvest.line_after(Duration::from_secs(30), false);
        assert_eq!(outer, "harvest: 26,624 of 160,000 tokens, 887/s");
        let mut download = Progress::start("download", 10 << 20, "bytes");
        download.done += 5 << 20;
        assert_eq!(said(&download, 5), "download: 5.0 MiB of 10.0 MiB, 1.0 MiB/s, 5 s left");
        let mut unknown = Progress::start("harvest", 0, "tokens");
        unknown.done += 1000;
        assert_eq!(said(&unknown, 10), "harvest: 1,000 tokens, 100/s");
    }

    #[test]
    fn the_rate_after_a_resume_is_that_of_this_run() {
        let mut train = Progress::start("train", 1_500_000, "tokens");
        train.skip(1_000_000);
        assert_eq!(said(&train, 10), "train: 1,000,000 of 1,500,000 tokens");
        train.done += 100_000;
        assert_eq!(said(&train, 10), "train: 1,100,000 of 1,500,000 tokens, 10,000/s, 40 s left");
    }
}
