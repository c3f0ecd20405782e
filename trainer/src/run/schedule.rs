//! [`Schedule`]: the learning rate of each step. Short runs are far from converged, so the shape matters:
//!
//! ```text
//! lr_t = lr * min(1, (t + 1) / n_warmup, (n_steps - t) / n_decay)        t = 0 .. n_steps
//! ```

/// Linear warm-up, a plateau, linear decay toward zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    pub(crate) lr: f64,
    pub(crate) n_steps: u64,
    pub(crate) n_warmup: u64,
    pub(crate) n_decay: u64,
}

impl Schedule {
    /// `warmup` and `decay` are shares of the run.
    pub(crate) fn new(lr: f64, n_steps: u64, warmup: f64, decay: f64) -> Self {
        let share = |fraction: f64| (fraction * n_steps as f64).round() as u64;
        Self { lr, n_steps, n_warmup: share(warmup), n_decay: share(decay) }
    }

    /// Learning rate of step `t`, counted from 0. The last step's rate is still above 0.
    pub(crate) fn at(&self, t: u64) -> f64 {
        let up = (t + 1) as f64 / self.n_warmup.max(1) as f64;
        let down = self.n_steps.saturating_sub(t) as f64 / self.n_decay.max(1) as f64;
        self.lr * up.min(down).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_stays_and_falls() {
        let schedule = Schedule::new(2.0, 100, 0.1, 0.2);
        let expected = [(0, 0.2), (4, 1.0), (9, 2.0), (50, 2.0), (80, 2.0), (90, 1.0), (99, 0.1)];
        for (t, lr) in expected {
            assert!((schedule.at(t) - lr).abs() < 1e-12, "step {t}: {}", schedule.at(t));
        }
    }

    #[test]
    fn no_warm_up_and_no_decay_is_constant() {
        let schedule = Schedule::new(1.0, 3, 0.0, 0.0);
        assert!((0..3).all(|t| schedule.at(t) == 1.0));
    }
}
