//! [`Signal`]: a score over the tokens of one text: smoothed, and on or off.

use std::collections::VecDeque;

use super::rules::{Score, Smooth};

/// The state of a score in one text.
#[derive(Debug, Clone, Default)]
pub(super) struct Signal {
    /// The scores that are in the mean.
    window: VecDeque<f32>,
    /// The smoothed score of the last token that counted.
    value: Option<f32>,
    /// True for each of the last tokens that hit.
    hits: VecDeque<bool>,
    /// Tokens in turn that were below the release.
    below: usize,
    is_on: bool,
}

impl Signal {
    /// The smoothed score; `None` before the first token that counts.
    pub(super) fn value(&self) -> Option<f32> {
        self.value
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Takes the score of the next token. Returns the smoothed one.
    pub(super) fn step(&mut self, score: &Score, x: f32) -> f32 {
        let value = match (score.smooth, self.value) {
            (Some(Smooth::Mean(n)), _) => {
                self.window.push_back(x);
                if self.window.len() > n {
                    self.window.pop_front();
                }
                // Summed anew, so that no rounding is carried along.
                self.window.iter().sum::<f32>() / self.window.len() as f32
            }
            (Some(Smooth::Ema(a)), Some(before)) => a * x + (1.0 - a) * before,
            (Some(Smooth::Ema(_)), None) | (None, _) => x,
        };
        self.value = Some(value);
        self.hits.push_back(value > score.above);
        if self.hits.len() > score.needs.of {
            self.hits.pop_front();
        }
        let is_enough = self.hits.iter().filter(|hit| **hit).count() >= score.needs.hits;
        self.is_on = match score.release {
            None => is_enough,
            Some(release) => {
                self.below = if value < release.below { self.below + 1 } else { 0 };
                let is_released = self.below >= release.tokens;
                // What has led to it no longer counts after the release.
                if self.is_on && is_released {
                    self.hits.clear();
                }
                if self.is_on { !is_released } else { is_enough && !is_released }
            }
        };
        value
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::rules::{Needs, Release, ScoreOf},
        *,
    };
    use crate::Positions;

    fn score(smooth: Option<Smooth>, needs: (usize, usize), release: Option<(f32, usize)>) -> Score {
        Score {
            name: "x".into(),
            of: ScoreOf::Latent(0),
            sae: None,
            smooth,
            above: 1.0,
            needs: Needs { hits: needs.0, of: needs.1 },
            release: release.map(|(below, tokens)| Release { below, tokens }),
            at: Positions::default(),
        }
    }

    /// The smoothed scores, and on which tokens it is on.
    fn run(score: &Score, xs: &[f32]) -> (Vec<f32>, Vec<usize>) {
        let mut signal = Signal::default();
        let mut on = vec![];
        let values = xs.iter().enumerate().map(|(i, &x)| {
            let value = signal.step(score, x);
            if signal.is_on() {
                on.push(i);
            }
            value
        });
        (values.collect(), on)
    }

    #[test]
    fn scores_are_smoothed_by_a_mean_or_an_average_that_forgets() {
        assert_eq!(run(&score(Some(Smooth::Mean(3)), (1, 1), None), &[3.0, 0.0, 0.0, 6.0]).0, [3.0, 1.5, 1.0, 2.0]);
        assert_eq!(run(&score(Some(Smooth::Ema(0.5)), (1, 1), None), &[4.0, 0.0, 2.0]).0, [4.0, 2.0, 2.0]);
        assert_eq!(run(&score(None, (1, 1), None), &[4.0, 0.0]).0, [4.0, 0.0]);
    }

    #[test]
    fn a_single_token_is_no_evidence_where_two_of_four_must_hit() {
        let two_of_four = score(None, (2, 4), None);
        assert_eq!(run(&two_of_four, &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0]).1, [] as [usize; 0]);
        assert_eq!(run(&two_of_four, &[9.0, 0.0, 0.0, 9.0, 0.0, 0.0]).1, [3]);
        assert_eq!(run(&two_of_four, &[9.0, 9.0, 0.0, 0.0, 0.0, 0.0]).1, [1, 2, 3]);
        assert_eq!(run(&two_of_four, &[1.0, 1.0, 1.0, 1.0]).1, [] as [usize; 0], "at the threshold is not above it");
    }

    #[test]
    fn it_stays_on_until_enough_tokens_in_turn_are_below_the_release() {
        let held = score(None, (1, 1), Some((0.5, 2)));
        assert_eq!(run(&held, &[9.0, 0.7, 0.0, 0.7, 0.0, 0.0, 0.0, 9.0]).1, [0, 1, 2, 3, 4, 7]);
        // The hits before the release do not turn it on again.
        let twice = score(None, (2, 6), Some((0.5, 1)));
        assert_eq!(run(&twice, &[9.0, 9.0, 0.0, 0.6, 9.0, 9.0]).1, [1, 5]);
    }
}
