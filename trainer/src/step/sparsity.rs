//! [`SparsityCoefficient`]: the weight c of the sparsity loss. It is either fixed, after a warm-up, or adapted, so that
//! a user who asks for k active latents gets about k with any architecture:
//!
//! ```text
//! c_{t+1} = c_t exp(GAIN clamp(ln(L0_t / k), -1, 1))
//! ```

/// Speed at which c adapts. L0 responds to c within tens of steps; a larger gain overshoots.
const GAIN: f64 = 0.05;

/// The weight of the sparsity loss, step by step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SparsityCoefficient {
    /// The current c, before the warm-up factor.
    pub(crate) value: f64,
    /// The target L0, if c is adapted.
    target: Option<f64>,
    warmup_steps: u64,
}

impl SparsityCoefficient {
    /// A fixed c if `fixed` is given, else one that starts at `first` and is adapted to `k`.
    pub(crate) fn new(fixed: Option<f64>, first: f64, k: usize, warmup_steps: u64) -> Self {
        match fixed {
            Some(value) => Self { value, target: None, warmup_steps },
            None => Self { value: first, target: Some(k as f64), warmup_steps: 0 },
        }
    }

    /// c at step `t`, counted from 0.
    pub(crate) fn at(&self, t: u64) -> f64 {
        self.value * ((t + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0)
    }

    /// Adapts c to the L0 of a step.
    pub(crate) fn observe(&mut self, l0: f64) {
        if let Some(target) = self.target {
            self.value *= (GAIN * (l0 / target).ln().clamp(-1.0, 1.0)).exp();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_one_warms_up_and_stays() {
        let mut fixed = SparsityCoefficient::new(Some(5.0), 1.0, 32, 10);
        fixed.observe(1000.0);
        assert_eq!([0, 4, 9, 50].map(|t| fixed.at(t)), [0.5, 2.5, 5.0, 5.0]);
    }

    #[test]
    fn an_adapted_one_finds_the_weight_that_gives_k() {
        // Simulates an L0 that follows 100 / c with a delay of 20 steps.
        let mut c = SparsityCoefficient::new(None, 1.0, 32, 0);
        let mut l0 = 400.0;
        for t in 0..400 {
            l0 += (100.0 / c.at(t) - l0) / 20.0;
            c.observe(l0);
        }
        assert!((l0 - 32.0).abs() < 1.0, "{l0}");
    }
}
