//! [`Health`]: decides after every step, from its measurements, whether the run has diverged. It is saved in every
//! checkpoint, so that a resumed run is judged by the same history.
//!
//! ```text
//! recent_best = min(loss, 1.01 recent_best)                so it forgets a factor of 3 in about a hundred steps
//! diverged    = not finite, or fvu > max(100, 3 fvu_1), or (loss > 10 recent_best and fvu > 1)
//!               or no latent active for 10 steps, or none active and all dead
//! steady      = loss <= 3 recent_best and some latent active
//! ```
//!
//! A step measures the weights that it starts from, so the weights after step s are known to be good once step s + 1 is
//! steady. Until then, older checkpoints than that of step s are kept.

use serde::{Deserialize, Serialize};

use crate::{
    config::{TrainConfig, default_lr},
    error::Divergence,
    step::StepReport,
};

/// An error of a hundred times the variance of the data: the run does not recover from it. A run may begin there, if k
/// is many times the width of the data, but must not grow from there.
const DIVERGED_FVU: f64 = 100.0;
/// The loss has exploded if it is this many times its recent best and the SAE is worse than the mean. The second
/// condition spares runs whose loss was small before a sparsity coefficient rose.
const EXPLOSION: f64 = 10.0;
/// The loss is rising if it is this many times its recent best: batches differ by less.
const UNSTEADY: f64 = 3.0;
/// Factor per step by which the recent best is forgotten.
const FORGETTING: f64 = 1.01;
/// After this many steps without an active latent, none becomes active again. Only JumpReLU's latents just below their
/// thresholds have a gradient, and Adam's first moment, which could still move a latent, has decayed to a third
/// (0.9^10).
const SILENT_STEPS: u64 = 10;

/// The history of the steps so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Health {
    /// The lowest loss, slowly forgotten; `None` before the first step.
    recent_best: Option<f64>,
    /// FVU of the first step.
    #[serde(default)]
    first_fvu: Option<f64>,
    /// Number of latest steps in a row in which no latent was active.
    silent_steps: u64,
    /// The last steady step, counted from 1: checkpoints of earlier steps are good.
    pub(crate) steady_step: u64,
}

impl Health {
    /// Checks the measurements of step `step` of an SAE with `d_sae` latents.
    pub(crate) fn check(&mut self, step: u64, report: &StepReport, d_sae: usize) -> Result<(), Divergence> {
        finite(report)?;
        let StepReport { loss, fvu, .. } = *report;
        let best = self.recent_best.unwrap_or(loss);
        let first_fvu = *self.first_fvu.get_or_insert(fvu);
        if fvu > DIVERGED_FVU.max(UNSTEADY * first_fvu) || (loss > EXPLOSION * best && fvu > 1.0) {
            return Err(Divergence::Exploded { loss, best, fvu });
        }
        self.silent_steps = if report.l0 > 0.0 { 0 } else { self.silent_steps + 1 };
        if self.silent_steps >= SILENT_STEPS || (report.l0 == 0.0 && report.dead == d_sae) {
            let sparsity_coefficient = report.sparsity_coefficient;
            return Err(Divergence::NoneActive { steps: self.silent_steps, sparsity_coefficient });
        }
        if loss <= UNSTEADY * best && self.silent_steps == 0 {
            self.steady_step = step;
        }
        self.recent_best = Some(loss.min(FORGETTING * best));
        Ok(())
    }
}

/// Refuses a step with a number that is not finite. The gradient's norm is one of them, so that weights that this step
/// has spoiled are detected before they are saved.
fn finite(report: &StepReport) -> Result<(), Divergence> {
    let StepReport { loss, fvu, aux_loss, sparsity_loss, grad_norm, .. } = *report;
    let numbers = [
        ("the loss", loss),
        ("the FVU", fvu),
        ("the auxiliary loss", aux_loss),
        ("the sparsity loss", sparsity_loss),
        ("the norm of the gradient", grad_norm),
    ];
    match numbers.into_iter().find(|(_, value)| !value.is_finite()) {
        Some((what, value)) => Err(Divergence::NotFinite { what, value }),
        None => Ok(()),
    }
}

impl Divergence {
    /// Advice for another run.
    pub(crate) fn advice(self, config: &TrainConfig) -> String {
        // At most the default: a quarter of a diverging learning rate may still be far too high.
        let lr = short((config.lr.unwrap_or_default() / 4.0).min(default_lr(config.d_sae.unwrap_or_default())));
        let Self::NoneActive { sparsity_coefficient, .. } = self else {
            let clip = config.clip.map_or("`clip` 1".to_string(), |clip| format!("a smaller `clip` ({})", clip / 10.0));
            return format!(
                "a smaller `lr` ({lr}), a longer `warmup`, or {clip}, or data without the rows that are far larger than \
                 the rest, if it has such"
            );
        };
        let auxk = match config.auxk_alpha {
            0.0 => format!("`auxk_alpha` {}, by which dead latents learn", TrainConfig::default().auxk_alpha),
            alpha => format!("a larger `auxk_alpha` ({})", 4.0 * alpha),
        };
        if config.sparsity_coefficient.is_some() {
            let smaller = short(sparsity_coefficient / 4.0);
            return format!("a smaller `sparsity_coefficient` ({smaller}), or a smaller `lr` ({lr})");
        }
        if sparsity_coefficient > 0.0 {
            return format!(
                "a larger `k`, to which the weight of the sparsity loss is adapted, or a smaller `lr` ({lr})"
            );
        }
        format!("a smaller `lr` ({lr}), a longer `warmup`, or {auxk}")
    }
}

/// The number rounded to two digits.
fn short(value: f64) -> f64 {
    format!("{value:.1e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const D_SAE: usize = 32;

    fn report(loss: f64, fvu: f64) -> StepReport {
        StepReport {
            loss,
            fvu,
            l0: 3.0,
            aux_loss: 0.0,
            dead: 0,
            sparsity_loss: 0.0,
            sparsity_coefficient: 0.0,
            grad_norm: 1.0,
        }
    }

    /// The first step, counted from 1, whose report is refused, and the reason.
    fn stopped(reports: impl IntoIterator<Item = StepReport>) -> Option<(u64, Divergence)> {
        let mut health = Health::default();
        let checked = reports.into_iter().zip(1..).map(|(report, step)| (step, health.check(step, &report, D_SAE)));
        checked.into_iter().find_map(|(step, result)| Some((step, result.err()?)))
    }

    #[test]
    fn numbers_that_are_none_stop_the_run() {
        let nan = |spoil: fn(&mut StepReport)| {
            let mut spoiled = report(5.0, 0.5);
            spoil(&mut spoiled);
            stopped([report(5.0, 0.5), spoiled]).map(|(step, why)| (step, why.to_string()))
        };
        assert_eq!(nan(|report| report.loss = f64::NAN), Some((2, "the loss is NaN".into())));
        assert_eq!(nan(|report| report.aux_loss = f64::INFINITY), Some((2, "the auxiliary loss is inf".into())));
        assert_eq!(nan(|report| report.grad_norm = f64::NAN), Some((2, "the norm of the gradient is NaN".into())));
        assert_eq!(nan(|_| ()), None);
    }

    #[test]
    fn a_loss_is_judged_by_its_own_recent_best() {
        let jump = |to: f64, fvu: f64| stopped([report(4.0, 0.2), report(2.0, 0.1), report(to, fvu)]);
        let expected = Divergence::Exploded { loss: 21.0, best: 2.0, fvu: 1.05 };
        assert_eq!(jump(21.0, 1.05), Some((3, expected)));
        assert_eq!(jump(19.0, 1.05), None, "not yet ten times");
        assert_eq!(jump(21.0, 0.9), None, "still better than the mean");
        assert_eq!(stopped([report(10.0, 60.0), report(20.0, 181.0)]).map(|(step, _)| step), Some(2));
        assert_eq!(stopped([report(40.0, 250.0), report(39.0, 240.0)]), None, "k 32 of 1 dimension begins at k^2 / 4");
        assert_eq!(stopped([report(40.0, 250.0), report(130.0, 760.0)]).map(|(step, _)| step), Some(2));
        // A sparsity coefficient rises over a thousand steps, and the loss rises with it.
        assert_eq!(stopped((0..1000).map(|i| report(1.0 + 0.03 * f64::from(i), 1.1))), None);
    }

    #[test]
    fn silence_is_noticed_and_a_latent_that_speaks_ends_it() {
        let silent = StepReport { l0: 0.0, ..report(5.0, 1.0) };
        let why = Divergence::NoneActive { steps: 10, sparsity_coefficient: 0.0 };
        assert_eq!(stopped([report(5.0, 0.5)].into_iter().chain([silent; 10])), Some((11, why)));
        let nine = [silent; 9].into_iter();
        assert_eq!(stopped(nine.clone().chain([report(5.0, 0.5)]).chain(nine)), None);
        let all_dead = StepReport { dead: D_SAE, ..silent };
        assert_eq!(stopped([report(5.0, 0.5), all_dead]).map(|(step, _)| step), Some(2));
    }

    #[test]
    fn steps_on_the_way_up_and_silent_ones_are_not_steady() {
        let mut health = Health::default();
        let silent = StepReport { l0: 0.0, ..report(5.0, 0.5) };
        let reports =
            [(report(5.0, 0.5), 1), (report(14.0, 0.9), 2), (report(16.0, 0.9), 2), (silent, 2), (report(5.0, 0.5), 5)];
        for (step, (report, steady)) in (1..).zip(reports) {
            assert_eq!(health.check(step, &report, D_SAE), Ok(()));
            assert_eq!(health.steady_step, steady, "after step {step}");
        }
    }

    #[test]
    fn advice_names_what_can_still_be_changed() {
        let exploded = Divergence::Exploded { loss: 2.0, best: 1.0, fvu: 101.0 };
        let config = TrainConfig { lr: Some(0.02), clip: None, auxk_alpha: 0.0, ..TrainConfig::default() };
        assert!(
            exploded.advice(&config).starts_with("a smaller `lr` (0.005), a longer `warmup`, or `clip` 1, or data")
        );
        assert!(
            exploded
                .advice(&TrainConfig { lr: Some(0.02), ..TrainConfig::default() })
                .contains("a smaller `clip` (0.1)")
        );
        // A quarter of this learning rate would still be 60 times the default.
        let far = TrainConfig { lr: Some(1.0), d_sae: Some(4608), ..config.clone() };
        assert!(exploded.advice(&far).starts_with("a smaller `lr` (0.004)"));
        let silent = |sparsity_coefficient| Divergence::NoneActive { steps: 10, sparsity_coefficient };
        assert!(silent(0.0).advice(&config).contains("`auxk_alpha` 0.125"));
        assert!(silent(8.0).advice(&config).starts_with("a larger `k`, to which"));
        let given = TrainConfig { sparsity_coefficient: Some(8.0), ..config };
        assert!(silent(8.003).advice(&given).contains("a smaller `sparsity_coefficient` (2)"));
    }
}
