//! [`StopAt`]: a monitor that stops a run at a chosen point, as Ctrl-C or SIGKILL does.
#![allow(dead_code, reason = "each test that includes this file uses only a part of it")]

use std::sync::atomic::{AtomicU64, Ordering};

use harvester::Monitor;

pub(crate) struct StopAt {
    /// Tokens, or other units of the run's progress, after which it stops.
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
    fn advance(&self, n: u64) {
        let seen = self.seen.fetch_add(n, Ordering::Relaxed) + n;
        assert!(self.how != Stop::Kill || seen < self.tokens, "killed");
    }
    fn cancelled(&self) -> bool {
        self.how == Stop::Cancel && self.seen.load(Ordering::Relaxed) >= self.tokens
    }
}
