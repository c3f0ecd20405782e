//! [`Fluency`]: whether a steered text is still text. A small model without edits repeats itself too, so a text is
//! compared with what the model writes without them.
//!
//! ```text
//! perplexity  = exp(- mean log p(token)), p of the model without edits, which reads the text
//! repetition  = share of the runs of three tokens that occurred in the text before
//! ```

use std::collections::HashSet;

use serde::Serialize;

/// Length of the runs that are looked at.
const RUN: usize = 3;
/// A text is over-steered if its perplexity is more than this many times that of the text without edits, or of `PLAIN`
/// if that is larger: a text of the likeliest tokens has a perplexity far below that of any human's.
const SURPRISING: f64 = 3.0;
const PLAIN: f64 = 10.0;
/// Or if it repeats more of its runs than this, and more than the text without edits.
const REPETITIVE: f64 = 0.3;

/// How fluent a written text is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Fluency {
    /// Perplexity under the model without edits; NaN if nothing was written.
    pub perplexity: f64,
    /// Share of the runs of three tokens that occurred before.
    pub repetition: f64,
}

impl Fluency {
    /// Why a text is broken beside the text without edits; `None` if it is not.
    pub fn broken(&self, without: &Self) -> Option<String> {
        let limit = SURPRISING * without.perplexity.max(PLAIN);
        if self.perplexity > limit {
            return Some(format!("perplexity {:.1}, above {limit:.1}", self.perplexity));
        }
        (self.repetition > without.repetition.max(REPETITIVE)).then(|| {
            format!(
                "{:.0} % of its runs of three tokens repeat, above {:.0} %",
                100.0 * self.repetition,
                100.0 * REPETITIVE
            )
        })
    }
}

/// Share of a text's runs of tokens that occurred in it before.
pub(super) fn repetition(tokens: &[u32]) -> f64 {
    let mut seen = HashSet::new();
    let repeated = tokens.windows(RUN).filter(|run| !seen.insert(*run)).count();
    repeated as f64 / tokens.windows(RUN).count().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_runs_are_counted() {
        assert_eq!(repetition(&[1, 2, 3, 4, 5]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 1, 2, 3, 1, 2, 3]), 4.0 / 7.0);
        assert_eq!(repetition(&[1]), 0.0);
    }

    #[test]
    fn a_text_is_broken_beside_what_the_model_writes_by_itself() {
        let of = |perplexity, repetition| Fluency { perplexity, repetition };
        let broken = |text: Fluency, without: Fluency| text.broken(&without);
        assert_eq!(broken(of(29.0, 0.3), of(2.0, 0.0)), None);
        assert!(broken(of(31.0, 0.0), of(2.0, 0.0)).is_some_and(|why| why.contains("above 30.0")));
        assert_eq!(broken(of(31.0, 0.0), of(20.0, 0.0)), None);
        assert!(broken(of(2.0, 0.4), of(2.0, 0.1)).is_some_and(|why| why.contains("40 %")));
        assert_eq!(broken(of(2.0, 0.4), of(2.0, 0.5)), None, "the model repeats itself anyway");
    }
}
