//! What a latent writes: the tokens whose logits its decoder direction raises and lowers, read straight off the head.
//!
//! `logits_j = W_U (w_final * W_dec[j])`, `w_final` the weight of the norm before the head. The norm's own scale is left
//! out: it multiplies all logits of a token alike.

use candle_core::Tensor;
use harvester::{Monitor, TextTokenizer, Transformer};
use rayon::prelude::*;
use trainer::Sae;

use crate::{Result, feature::TokenWeight};

/// Latents whose logits are computed together: 256 x 49,152 floats are 50 MB.
const BLOCK: usize = 256;

/// Promoted and suppressed tokens of one latent, strongest first.
pub(crate) type Lens = (Vec<TokenWeight>, Vec<TokenWeight>);

/// The `n` most promoted and the `n` most suppressed tokens of every latent.
pub(crate) fn logit_lens(
    sae: &Sae,
    transformer: &Transformer,
    tokenizer: &TextTokenizer,
    n: usize,
    monitor: &dyn Monitor,
) -> Result<Vec<Lens>> {
    let head = transformer.w_unembed().t()?; // [d_model, d_vocab]
    let mut lenses = Vec::with_capacity(sae.d_sae());
    monitor.start("logit lens", sae.d_sae() as u64, "latents");
    for block in sae.w_dec.chunks(BLOCK * sae.d_in()) {
        if monitor.cancelled() {
            break;
        }
        let rows = Tensor::from_slice(block, (block.len() / sae.d_in(), sae.d_in()), transformer.device())?;
        let logits = rows.broadcast_mul(transformer.final_norm_weight())?.matmul(&head)?; // [block, d_vocab]
        let logits: Vec<Vec<f32>> = logits.to_vec2()?;
        lenses.par_extend(logits.par_iter().map(|logits| (top(logits, n, 1.0), top(logits, n, -1.0))));
        monitor.advance((block.len() / sae.d_in()) as u64);
    }
    monitor.finish();
    let named = |tokens: Vec<(u32, f32)>| -> Vec<TokenWeight> {
        tokens
            .into_iter()
            .map(|(token, weight)| TokenWeight { token, text: tokenizer.token_text(token), weight })
            .collect()
    };
    Ok(lenses.into_iter().map(|(up, down)| (named(up), named(down))).collect())
}

/// The `n` largest of `sign * logits`, largest first; ties by token.
fn top(logits: &[f32], n: usize, sign: f32) -> Vec<(u32, f32)> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit =
        |a: &u32, b: &u32| (sign * logits[*b as usize]).total_cmp(&(sign * logits[*a as usize])).then(a.cmp(b));
    let n = n.min(order.len());
    if n < order.len() {
        order.select_nth_unstable_by(n, by_logit);
    }
    order.truncate(n);
    order.sort_unstable_by(by_logit);
    order.into_iter().map(|token| (token, logits[token as usize])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn top_and_bottom_are_in_order() {
        let logits = [0.5, -2.0, 3.0, 3.0, -1.0];
        assert_eq!(top(&logits, 3, 1.0), [(2, 3.0), (3, 3.0), (0, 0.5)]);
        assert_eq!(top(&logits, 2, -1.0), [(1, -2.0), (4, -1.0)]);
        assert_eq!(top(&logits, 9, 1.0).len(), 5);
    }
}
