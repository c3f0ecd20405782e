//! [`Monitor`]: how a long stage talks to whoever started it. Progress goes out, cancellation comes in; the libraries
//! know neither terminals nor signals.

/// Receives the progress of a long stage and says when it should stop.
pub trait Monitor: Sync {
    /// A new piece of work begins, perhaps inside another: `total` of `unit` ("tokens", "bytes"; 0 where the total is
    /// not known).
    fn start(&self, what: &str, total: u64, unit: &str);
    /// `n` more units are done.
    fn advance(&self, n: u64);
    /// A short state shown beside the progress: a loss, a rate.
    fn note(&self, text: &str);
    /// The piece of work begun last is done; what is around it goes on.
    fn finish(&self);
    /// Whether the user asked to stop. A stage then saves what it has and returns [`crate::Error::Cancelled`].
    fn cancelled(&self) -> bool;
}

/// Shows nothing and never cancels: for tests and for use as a library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, _n: u64) {}
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}
