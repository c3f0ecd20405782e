//! The logit lens: the tokens whose logits a latent's decoder direction raises and lowers, computed by applying the
//! head to it.
//!
//! ```text
//! logit_jt = W_U[t] . (w_final * W_dec[j])            w_final: weight of the norm before the head;
//!                                                     a layer norm subtracts the mean, so W_dec[j] loses its mean
//! z_jt     = (logit_jt - mean_j logit_jt) / std_j logit_jt
//! ```
//! Tokens are ranked by `z`, which compares this latent with all others. With the plain logit, the same few
//! undertrained tokens, whose rows of W_U are long, would be at the top of nearly every list. For the same reason, only
//! tokens that occur in the indexed text are ranked. The norm's scale is left out, because it multiplies all logits of
//! a position by the same factor.

use candle_core::Tensor;
use harvester::{LanguageModel, Monitor};
use rayon::prelude::*;
use trainer::Sae;

use crate::{Result, TokenWeight};

/// Number of latents whose logits are computed together: 256 x 49,152 floats are 50 MB.
const BLOCK: usize = 256;

/// Promoted and suppressed tokens of one latent, strongest first.
pub(crate) type Lens = (Vec<TokenWeight>, Vec<TokenWeight>);

/// The `n` most promoted and the `n` most suppressed tokens of every latent, among the tokens that `occurs` lists.
pub(crate) fn logit_lens(
    sae: &Sae,
    model: &LanguageModel,
    (occurs, n): (&[u32], usize),
    monitor: &dyn Monitor,
) -> Result<Vec<Lens>> {
    if n == 0 {
        return Ok(vec![(vec![], vec![]); sae.d_sae()]);
    }
    let (directions, w_unembed) = model.logit_lens(sae.w_dec(), occurs)?; // [d_sae, d_model], [tokens, d_model]
    let (mean, std) = mean_and_std(&directions, &w_unembed)?; // [tokens] each
    let columns = w_unembed.t()?;
    let mut lenses = Vec::with_capacity(sae.d_sae());
    monitor.start("logit lens", sae.d_sae() as u64, "latents");
    for first in (0..sae.d_sae()).step_by(BLOCK) {
        if monitor.cancelled() {
            break;
        }
        let len = BLOCK.min(sae.d_sae() - first);
        let logits: Vec<Vec<f32>> = directions.narrow(0, first, len)?.matmul(&columns)?.to_vec2()?; // [block, tokens]
        lenses.par_extend(logits.par_iter().map(|logits| {
            let z: Vec<f32> = logits.iter().zip(&mean).zip(&std).map(|((l, mean), std)| (l - mean) / std).collect();
            let named = |places: Vec<usize>| {
                let weight = |place: usize| TokenWeight {
                    token: occurs[place],
                    text: model.tokenizer().token_text(occurs[place]),
                    weight: logits[place],
                };
                places.into_iter().map(weight).collect()
            };
            (named(top(&z, n, 1.0)), named(top(&z, n, -1.0)))
        }));
        monitor.advance(len as u64);
    }
    monitor.finish();
    Ok(lenses)
}

/// Mean and standard deviation of each token's logit over all latents, without computing the logits: `mean_t = W_U[t] .
/// mean`, `var_t = W_U[t] C W_U[t]^T`, with `C` the covariance of the directions.
///
/// # Shapes
/// `directions`: `[d_sae, d_model]`, `head`: `[tokens, d_model]` -> `[tokens]` each
fn mean_and_std(directions: &Tensor, head: &Tensor) -> Result<(Vec<f32>, Vec<f32>)> {
    let mean = directions.mean_keepdim(0)?; // [1, d_model]
    let centered = directions.broadcast_sub(&mean)?;
    let covariance = (centered.t()?.matmul(&centered)? / directions.dim(0)? as f64)?; // [d_model, d_model]
    let variance = (head.matmul(&covariance)? * head)?.sum(1)?; // [tokens]
    let means = head.matmul(&mean.t()?)?.flatten_all()?.to_vec1()?;
    // The 1e-12 keeps z at 0 for a token that no latent affects.
    Ok((means, (variance.relu()?.sqrt()? + 1e-12)?.to_vec1()?))
}

/// Indices of the `n` largest of `sign * values`, largest first; ties go to the lower index.
fn top(values: &[f32], n: usize, sign: f32) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    let by_value = |a: &usize, b: &usize| (sign * values[*b]).total_cmp(&(sign * values[*a])).then(a.cmp(b));
    let n = n.min(order.len());
    if n < order.len() {
        order.select_nth_unstable_by(n, by_value);
    }
    order.truncate(n);
    order.sort_unstable_by(by_value);
    order
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn top_and_bottom_are_in_order() {
        let values = [0.5, -2.0, 3.0, 3.0, -1.0];
        assert_eq!(top(&values, 3, 1.0), [2, 3, 0]);
        assert_eq!(top(&values, 2, -1.0), [1, 4]);
        assert_eq!(top(&values, 9, 1.0).len(), 5);
    }

    #[test]
    fn mean_and_deviation_equal_those_of_the_logits_themselves() {
        let directions = Tensor::randn(0.3f32, 1., (40, 6), &Device::Cpu).unwrap();
        let head = Tensor::randn(0f32, 2., (9, 6), &Device::Cpu).unwrap();
        let (means, stds) = mean_and_std(&directions, &head).unwrap();
        let logits: Vec<Vec<f32>> = head.matmul(&directions.t().unwrap()).unwrap().to_vec2().unwrap(); // [9, 40]
        for ((logits, got_mean), got_std) in logits.iter().zip(means).zip(stds) {
            let mean = logits.iter().sum::<f32>() / 40.0;
            let std = (logits.iter().map(|l| (l - mean).powi(2)).sum::<f32>() / 40.0).sqrt();
            assert!((got_mean - mean).abs() < 1e-4 && (got_std - std).abs() < 1e-4 * std.max(1.0));
        }
    }
}
