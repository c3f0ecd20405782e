//! Checks that a config can be trained, before anything is written: each number by itself, and the memory that they
//! need together.

use std::ops::RangeInclusive;

use super::{Resolved, memory::available_memory_bytes};
use crate::{
    Error, Result,
    step::{architecture::TrainArchitecture, memory::learner_bytes},
};

impl Resolved {
    pub(super) fn check(&self) -> Result<()> {
        self.check_counts()?;
        self.check_dead_latents()?;
        self.check_rates()
    }

    fn check_counts(&self) -> Result<()> {
        let config = &self.config;
        if config.batch < 2 {
            let expected = "2 or more: FVU and the auxiliary loss are shares of a batch's spread";
            return Err(Error::invalid("`batch`", expected, config.batch.to_string()));
        }
        at_least_one("`d_sae`", self.d_sae as u64)?;
        at_least_one("`checkpoint_every`", config.checkpoint_every)?;
        at_least_one("`keep_checkpoints`", config.keep_checkpoints as u64)?;
        at_least_one("log_every", config.log_every)?;
        if config.k == 0 || config.k > self.d_sae {
            return Err(Error::invalid("`k`", format!("1 to d_sae, {}", self.d_sae), config.k.to_string()));
        }
        if self.n_steps == 0 {
            let expected = format!("at least one batch, {}", config.batch);
            return Err(Error::invalid("`tokens`", expected, config.tokens.to_string()));
        }
        Ok(())
    }

    fn check_dead_latents(&self) -> Result<()> {
        if self.config.auxk_alpha == 0.0 || self.config.architecture == TrainArchitecture::Dense {
            return Ok(());
        }
        at_least_one("`dead_after_tokens`", self.config.dead_after_tokens)?;
        if self.k_aux == 0 {
            let expected = "1 or more; `auxk_alpha` 0 switches the auxiliary loss off";
            return Err(Error::invalid("`k_aux`", expected, "0"));
        }
        if self.k_aux > self.d_sae {
            return Err(Error::invalid("`k_aux`", format!("1 to d_sae, {}", self.d_sae), self.k_aux.to_string()));
        }
        Ok(())
    }

    /// Refuses sizes that, with a shuffle buffer of `buffer` bytes, do not fit in the memory that is left here, and sizes
    /// that cannot be counted in 32 bits. A run that has finished needs no memory and is not checked.
    pub(crate) fn check_sizes(&self, buffer: u64) -> Result<()> {
        let (d_sae, batch) = (self.d_sae, self.config.batch);
        let learner = learner_bytes(self.d_in, self.d_out, d_sae);
        check_memory(&format!("{d_sae} latents (`d_sae`)"), learner)?;
        // Rows of a batch and its active (row, latent) pairs are counted in 32 bits.
        if d_sae > u32::MAX as usize {
            return Err(Error::invalid("`d_sae`", format!("at most {}", u32::MAX), d_sae.to_string()));
        }
        let most = u32::MAX as usize / d_sae.max(self.widths.iter().sum()).max(1);
        if batch > most {
            return Err(Error::invalid("`batch`", format!("{most} or less at this width"), batch.to_string()));
        }
        // The rows, those of the step (centered, errors), and a batch's active latents with their gradients.
        let active = self.config.k.min(d_sae) + self.k_aux;
        let row = 4 * (2 * self.d_in + 2 * self.d_out) as u64 + 24 * active as u64;
        check_memory(&format!("a batch of {batch} rows (`batch`)"), row.saturating_mul(batch as u64))?;
        let both = "latents and the shuffle buffer together (`d_sae`, `buffer_bytes`)";
        check_memory(both, learner.saturating_add(buffer))
    }

    fn check_rates(&self) -> Result<()> {
        let config = &self.config;
        in_range("`held_out_fraction`", config.held_out_fraction, 0.0..=0.9)?;
        in_range("`warmup`", config.warmup, 0.0..=1.0)?;
        in_range("`decay`", config.decay, 0.0..=1.0)?;
        // A rate that falls before it has risen never reaches lr. Two decimals may add up to a bit over 1.
        in_range("`warmup` and `decay` together", config.warmup + config.decay, 0.0..=1.0 + 1e-9)?;
        in_range("`lr`", self.lr, f64::MIN_POSITIVE..=1.0)?;
        in_range("`sparsity_coefficient`", config.sparsity_coefficient.unwrap_or(0.0), 0.0..=f64::MAX)?;
        in_range("`sparsity_warmup`", config.sparsity_warmup, 0.0..=1.0)?;
        // It is used as an f32.
        in_range("`bandwidth`", f64::from(config.bandwidth as f32), f64::MIN_POSITIVE..=f64::MAX)?;
        in_range("`auxk_alpha`", config.auxk_alpha, 0.0..=f64::MAX)?;
        in_range("adam.beta1", config.adam.beta1, 0.0..=1.0 - f64::EPSILON)?;
        in_range("adam.beta2", config.adam.beta2, 0.0..=1.0 - f64::EPSILON)?;
        in_range("adam.eps", config.adam.eps, 0.0..=1.0)?;
        in_range("`weight_decay`", config.weight_decay.unwrap_or(0.0), 0.0..=1.0 / self.lr)?;
        for (name, limit) in [("`clip`", config.clip), ("`row_limit`", config.row_limit)] {
            if let Some(limit) = limit.filter(|limit| limit.is_nan() || *limit <= 0.0) {
                return Err(Error::invalid(name, "a number above 0, or 0 for none", limit.to_string()));
            }
        }
        Ok(())
    }
}

/// Refuses what needs more bytes of memory than are left here, before any of it is allocated.
pub(crate) fn check_memory(what: &str, needed: u64) -> Result<()> {
    match available_memory_bytes() {
        Some(left) if needed > left => {
            let gib = |bytes: u64| format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64);
            let expected = format!("at most {}, which is left on this machine", gib(left));
            Err(Error::invalid(format!("memory for {what}"), expected, gib(needed)))
        }
        _ => Ok(()),
    }
}

fn at_least_one(what: &str, value: u64) -> Result<()> {
    if value == 0 { Err(Error::invalid(what, "1 or more", "0")) } else { Ok(()) }
}

fn in_range(what: &str, value: f64, range: RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        return Ok(());
    }
    // The smallest positive number stands for "above 0", the largest for "no limit", and the largest below 1 for "below
    // 1".
    let (least, most) = (*range.start(), *range.end());
    let shown = |limit: f64| (limit * 1e6).round() / 1e6;
    let expected = match (least == f64::MIN_POSITIVE, most) {
        (true, f64::MAX) => "a number above 0".to_string(),
        (true, _) => format!("a number above 0, at most {}", shown(most)),
        (false, f64::MAX) => format!("{least} or more"),
        (false, _) if most == 1.0 - f64::EPSILON => format!("a number from {least} to below 1"),
        (false, _) => format!("a number from {least} to {}", shown(most)),
    };
    Err(Error::invalid(what, expected, value.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_told_in_plain_numbers() {
        let message = |value, range| in_range("x", value, range).map_err(|error| error.to_string());
        assert_eq!(message(0.5, 0.0..=1.0), Ok(()));
        let refused = |expected: &str, found: &str| Err(format!("x: expected {expected}, found {found}"));
        assert_eq!(message(2.0, 0.0..=1.0), refused("a number from 0 to 1", "2"));
        assert_eq!(message(0.0, f64::MIN_POSITIVE..=f64::MAX), refused("a number above 0", "0"));
        assert_eq!(message(2.0, f64::MIN_POSITIVE..=1.0), refused("a number above 0, at most 1", "2"));
        assert_eq!(message(1.0, 0.0..=1.0 - f64::EPSILON), refused("a number from 0 to below 1", "1"));
        assert_eq!(message(-1.0, 0.0..=f64::MAX), refused("0 or more", "-1"));
        assert_eq!(message(f64::NAN, 0.0..=1.0 / 0.3), refused("a number from 0 to 3.333333", "NaN"));
    }
}
