//! Calibrates the threshold with which a BatchTopK SAE is used on single tokens. It is the threshold that keeps k
//! latents per token on average over a sample of tokens (held-out ones if there are some), so that L0 in use equals k.

use crate::{Result, sae::Sae};

/// Rows from which the search for the threshold starts.
const FIRST_ROWS: usize = 256;

/// Sets one threshold for all latents so that the mean number of active latents on `x` `[n, d_in]` is `k`, exactly
/// except for ties.
pub(crate) fn calibrate(sae: &mut Sae, x: &[f32], k: usize) -> Result<()> {
    let d_in = sae.d_in();
    let first = &x[..x.len().min(FIRST_ROWS * d_in)];
    let mut values = values_above(sae, first, 0.0)?;
    // A guess, so low that nearly always enough values exceed it. If too few do, a lower guess is tried.
    let mut floor = cut(&mut values, k * first.len() / d_in).unwrap_or(0.0) / 2.0;
    loop {
        let mut values = values_above(sae, x, floor)?;
        if let Some(threshold) = cut(&mut values, k * (x.len() / d_in)) {
            sae.set_threshold(threshold);
            return Ok(());
        }
        if floor == 0.0 {
            // Fewer than k latents per token are positive: keep them all.
            sae.set_threshold(0.0);
            return Ok(());
        }
        floor = if floor > 1e-6 && floor.is_finite() { floor / 4.0 } else { 0.0 };
    }
}

/// A number that exactly `count` of `values` exceed (ties aside); `None` if there are not more than `count` values. It
/// is halfway between the last value kept and the first one dropped, so that another program's rounding does not change
/// which values exceed it.
fn cut(values: &mut [f32], count: usize) -> Option<f32> {
    if values.len() <= count {
        return None;
    }
    let (kept, dropped, _) = values.select_nth_unstable_by(count, |a, b| b.total_cmp(a));
    let last_kept = kept.iter().copied().fold(f32::INFINITY, f32::min);
    let middle = *dropped + (last_kept - *dropped) / 2.0;
    // There may be no float between the two, and with `count` 0 the last value kept is infinite.
    Some(if middle < last_kept { middle } else { *dropped })
}

fn values_above(sae: &mut Sae, x: &[f32], floor: f32) -> Result<Vec<f32>> {
    sae.set_threshold(floor);
    Ok(sae.encode(x)?.values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        kernels::plain,
        sae::{Architecture, Nonlinearity, tests::example},
    };

    #[test]
    fn the_threshold_keeps_k_a_token_on_average() {
        let (n, d_in, d_sae) = (700, 24, 100);
        let x = plain::random(n * d_in, 9);
        for k in [1, 5, 20] {
            let mut sae = example(Architecture::JumpRelu, d_in, d_sae);
            calibrate(&mut sae, &x, k).expect("whole rows");
            assert_eq!(sae.encode(&x).expect("whole rows").n_active(), k * n, "k {k}");
        }
    }

    #[test]
    fn the_cut_is_in_the_middle_between_kept_and_dropped() {
        assert_eq!(cut(&mut [1.0, 4.0, 2.0, 8.0], 2), Some(3.0));
        assert_eq!(cut(&mut [1.0, 4.0, 4.0, 8.0], 2), Some(4.0));
        assert_eq!(cut(&mut [1.0, 1f32.next_up()], 1), Some(1.0));
        assert_eq!((cut(&mut [1.0, 2.0], 0), cut(&mut [1.0, 2.0], 2)), (Some(2.0), None));
    }

    #[test]
    fn where_too_few_are_positive_all_are_kept() {
        let mut sae = example(Architecture::JumpRelu, 24, 100);
        let x = plain::random(40 * 24, 9);
        calibrate(&mut sae, &x, 99).expect("whole rows");
        assert_eq!(*sae.nonlinearity(), Nonlinearity::JumpRelu { threshold: vec![0.0; 100] });
    }
}
