//! [`HookPoints`]: the hook points that an SAE reads and reconstructs.

use std::fmt;

use harvester::HookPoint;

use crate::{Error, Result};

/// The hook points that an SAE reads and reconstructs. `None`: unknown, or it was trained on vectors that no model
/// computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookPoints {
    /// Reconstructs the hook point that it reads.
    Autoencoder(Option<HookPoint>),
    /// Reconstructs another hook point than it reads.
    Transcoder {
        /// The hook point that it reads.
        from: Option<HookPoint>,
        /// The hook point that it reconstructs.
        to: Option<HookPoint>,
    },
    /// Reads several hook points, one after the other in a row, and reconstructs all of them. Each has its width.
    Crosscoder(Vec<(HookPoint, usize)>),
}

impl HookPoints {
    /// The hook points of an SAE that reads `d_in` values of `from` and reconstructs `d_out` values of `to`.
    pub(crate) fn between(from: Option<HookPoint>, to: Option<HookPoint>, [d_in, d_out]: [usize; 2]) -> Self {
        let is_other = to.is_some() && to != from;
        if is_other || d_in != d_out { Self::Transcoder { from, to } } else { Self::Autoencoder(from) }
    }

    /// The hook points that it reads, as far as they are known, in the order of a row.
    pub fn reads(&self) -> Vec<HookPoint> {
        match self {
            Self::Autoencoder(at) | Self::Transcoder { from: at, .. } => at.iter().copied().collect(),
            Self::Crosscoder(points) => points.iter().map(|(point, _)| *point).collect(),
        }
    }

    /// The hook points that it reconstructs, as far as they are known, in the order of a row.
    pub fn writes(&self) -> Vec<HookPoint> {
        match self {
            Self::Transcoder { to, .. } => to.iter().copied().collect(),
            Self::Autoencoder(_) | Self::Crosscoder(_) => self.reads(),
        }
    }

    /// The hook points of a training row: those that it reads and, for a transcoder, the one that it predicts.
    pub(crate) fn columns(&self) -> Vec<HookPoint> {
        let (_, to) = self.ends();
        self.reads().into_iter().chain(to).collect()
    }

    /// The first hook point that it reads and, for a transcoder, the one that it reconstructs.
    pub(crate) fn ends(&self) -> (Option<HookPoint>, Option<HookPoint>) {
        let to = if self.is_transcoder() { self.writes().first().copied() } else { None };
        (self.reads().first().copied(), to)
    }

    /// The first hook point that it reads; only crosscoders read more than one.
    ///
    /// # Errors
    /// When it names no hook point.
    pub fn first_read(&self) -> Result<HookPoint> {
        self.reads().first().copied().ok_or_else(|| {
            let expected = "an SAE that names the hook point that it reads; name it with `hook_points`";
            Error::invalid("hook point", expected, "none")
        })
    }

    /// The same, with `at` as the hook point that it reads if that is unknown.
    #[must_use]
    pub fn or_reading(self, at: HookPoint) -> Self {
        match self {
            Self::Autoencoder(said) => Self::Autoencoder(said.or(Some(at))),
            Self::Transcoder { from, to } => Self::Transcoder { from: from.or(Some(at)), to },
            Self::Crosscoder(points) => Self::Crosscoder(points),
        }
    }

    pub(crate) fn is_transcoder(&self) -> bool {
        matches!(self, Self::Transcoder { .. })
    }

    pub(crate) fn is_crosscoder(&self) -> bool {
        matches!(self, Self::Crosscoder(_))
    }

    /// Checks that it reconstructs the hook point that it reads, as steering requires.
    ///
    /// # Errors
    /// For a transcoder and for a crosscoder, by name.
    pub fn check_autoencoder(&self) -> Result<()> {
        match self {
            Self::Autoencoder(_) => Ok(()),
            other => {
                let expected = "an autoencoder: one that reconstructs the activations that it reads";
                Err(Error::invalid("SAE", expected, other.to_string()))
            }
        }
    }
}

impl fmt::Display for HookPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |point: &Option<HookPoint>| point.map_or("an unnamed hook point".into(), |point| point.to_string());
        match self {
            Self::Autoencoder(at) => write!(f, "an autoencoder of {}", name(at)),
            Self::Transcoder { from, to } => write!(f, "a transcoder from {} to {}", name(from), name(to)),
            Self::Crosscoder(points) => write!(f, "a crosscoder of {} hook points", points.len()),
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const A: HookPoint = HookPoint::Embed;

    #[test]
    fn another_hook_point_or_another_width_is_a_transcoders() {
        let b = HookPoint::resid_post(1);
        let between = |from, to, d_out| HookPoints::between(from, to, [8, d_out]);
        for to in [None, Some(A)] {
            assert_eq!(between(Some(A), to, 8), HookPoints::Autoencoder(Some(A)));
            assert_eq!(between(Some(A), to, 6), HookPoints::Transcoder { from: Some(A), to });
        }
        assert_eq!(between(None, None, 8), HookPoints::Autoencoder(None));
        for from in [None, Some(A)] {
            let transcoder = between(from, Some(b), 8);
            assert_eq!(transcoder, HookPoints::Transcoder { from, to: Some(b) });
            assert_eq!(transcoder.or_reading(A).columns(), [A, b]);
        }
    }

    #[test]
    fn what_is_no_autoencoder_says_what_it_is() {
        let b = HookPoint::resid_post(1);
        let message = |points: &HookPoints| points.check_autoencoder().unwrap_err().to_string();
        assert!(HookPoints::Autoencoder(None).check_autoencoder().is_ok());
        let transcoder = HookPoints::Transcoder { from: None, to: Some(b) };
        let expected = "a transcoder from an unnamed hook point to blocks.1.hook_resid_post";
        assert!(message(&transcoder).contains(expected));
        assert!(transcoder.first_read().unwrap_err().to_string().contains("`hook_points`"));
        let crosscoder = HookPoints::Crosscoder(vec![(A, 3), (b, 5)]);
        assert!(message(&crosscoder).contains("a crosscoder of 2 hook points"));
        assert_eq!((crosscoder.reads(), crosscoder.columns()), (vec![A, b], vec![A, b]));
    }
}
