//! The model's predictions of the next token, and how far two of them are apart.

use candle_core::Tensor;
use harvester::LanguageModel;
use rayon::prelude::*;

use crate::Result;

/// Log-probabilities of the next token after each row. `resid`: `[rows, d_model]` -> `[rows][d_vocab]`
pub(crate) fn log_probs(model: &LanguageModel, resid: &Tensor) -> Result<Vec<Vec<f32>>> {
    let mut rows: Vec<Vec<f32>> = model.unembed(resid)?.to_vec2()?;
    rows.par_iter_mut().for_each(|logits| {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from((logit - max).exp())).sum();
        let log_sum = f64::from(max) + sum.ln();
        logits.iter_mut().for_each(|logit| *logit = (f64::from(*logit) - log_sum) as f32);
    });
    Ok(rows)
}

/// `sum_t p(t) (log p(t) - log q(t))`
pub(crate) fn kl(log_p: &[f32], log_q: &[f32]) -> f64 {
    log_p.iter().zip(log_q).map(|(p, q)| f64::from(p.exp()) * (f64::from(*p) - f64::from(*q))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kl_of_a_known_pair() {
        // KL((1/2, 1/2) || (1/4, 3/4)) = ln(2) - ln(3) / 2 = 0.143841
        let log = |p: [f32; 2]| p.map(f32::ln);
        assert!((kl(&log([0.5, 0.5]), &log([0.25, 0.75])) - 0.143_841).abs() < 1e-6);
        assert_eq!(kl(&log([0.3, 0.7]), &log([0.3, 0.7])), 0.0);
    }
}
