//! [`StopAt`]: a monitor that stops a run when it has come so far: as Ctrl-C does, or as SIGKILL does.
#![allow(dead_code, reason = "each test that includes this file uses some of it")]

use std::sync::atomic::{AtomicU64, Ordering};

use harvester::Monitor;

pub(crate) struct StopAt {
    /// So much of whatever the run counts.
    tokens: u64,
    how: Stop,
    seen: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Stop {
    Cancel,
    Kill,
}

impl StopAt {
    pub(crate) fn new(tokens: u64, how: Stop) -> Self {
        Self { tokens, how, seen: AtomicU64::new(0) }
    }
}

impl Monitor for StopAt {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, n: u64) {
        let seen = self.seen.fetch_add(n, Ordering::Relaxed) + n;
        assert!(self.how != Stop::Kill || seen < self.tokens, "killed");
    }
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.how == Stop::Cancel && self.seen.load(Ordering::Relaxed) >= self.tokens
    }
}
