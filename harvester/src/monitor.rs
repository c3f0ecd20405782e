//! [`Monitor`]: how a long stage talks to its caller. Progress goes out, cancellation comes in; the libraries know
//! neither terminals nor signals.

/// Receives the progress of a long stage and says when it should stop. What is not implemented shows nothing and never
/// stops.
pub trait Monitor: Sync {
    /// A sentence for the user, once it is clear that a stage can begin: the work that it will take, or what an earlier
    /// run did.
    fn say(&self, _sentence: &str) {}
    /// A new piece of work begins, perhaps inside another one: `total` of `unit` ("tokens", "bytes"). `total` is 0 if
    /// it is not known.
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    /// `n` more units are done.
    fn advance(&self, _n: u64) {}
    /// `n` units need no work in this run, because an earlier one did them. They tell nothing about the speed.
    fn skip(&self, n: u64) {
        self.advance(n);
    }
    /// A short state shown beside the progress: a loss, a rate.
    fn note(&self, _text: &str) {}
    /// The piece of work that began last is done; the one around it continues.
    fn finish(&self) {}
    /// The command that runs, as it can be pasted into a shell, for messages that say how to go on; `None` if there is
    /// none.
    fn command(&self) -> Option<String> {
        None
    }
    /// True once the user asked to stop. The stage then saves what it has and returns [`crate::Error::Cancelled`].
    fn cancelled(&self) -> bool {
        false
    }
}

/// Shows nothing and never cancels: for tests and for use as a library.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Monitor for Silent {}
