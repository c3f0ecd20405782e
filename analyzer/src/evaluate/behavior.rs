//! [`Behavior`]: how much worse a model predicts if a forward pass continues with an SAE's reconstruction. An
//! autoencoder replaces the activation that it reads; a transcoder replaces a later one.

use candle_core::Tensor;
use harvester::{Batch, Edit, Hook, HookPoint, LanguageModel, Rows};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    Facts, Result, SaeSite,
    next_token::{kl, log_probs},
    tensor_rows,
};

/// Cross-entropies of the next token, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Behavior {
    /// Number of predictions in the cross-entropies.
    pub ce_tokens: u64,
    /// The model's own cross-entropy.
    pub ce_loss_without_sae: f64,
    /// With the activation replaced by its reconstruction.
    pub ce_loss_with_sae: f64,
    /// With the activation replaced by zero.
    pub ce_loss_with_ablation: f64,
    /// Share of the loss increase from ablation that the SAE avoids: 1 is perfect. `None` if ablation does not raise
    /// the loss.
    pub ce_loss_score: Option<f64>,
    /// Mean KL divergence from the model's own next-token distribution, in nats.
    pub kl: f64,
}

impl Behavior {
    pub(super) fn add_facts(&self, facts: &mut Facts) {
        let Self { ce_loss_without_sae, ce_loss_with_sae, ce_loss_with_ablation, ce_loss_score, kl, .. } = *self;
        facts.add("CE loss score", score_note(ce_loss_score));
        let losses = format!(
            "{ce_loss_without_sae:.3} without the SAE, {ce_loss_with_sae:.3} with it, {ce_loss_with_ablation:.2} ablated \
             (nats per token)"
        );
        facts.add("CE loss", losses);
        facts.add("KL", format!("{kl:.3} nats from the model's own next token"));
    }
}

/// The score and its meaning. It has none if ablation does not raise the loss.
fn score_note(score: Option<f64>) -> String {
    match score {
        Some(score) => format!("{score:.3} (1: as good as the activation, 0: as bad as zeros)"),
        None => "none: zero ablation does not raise the loss here, so nothing is destroyed".to_string(),
    }
}

/// Number of positions whose logits are computed together.
const BLOCK: usize = 64;

/// Runs a text three times from the replaced hook point on: unchanged, reconstructed, ablated. Position 0 and attention
/// sinks always keep their value.
pub(crate) struct Compare<'a> {
    site: SaeSite<'a>,
    /// The replaced hook point, and the norm above which a row is a sink there.
    place: HookPoint,
    sink_norm: f32,
    /// The SAE's input in this pass. `[rows, d_in]`
    x: Vec<f32>,
}

impl<'a> Compare<'a> {
    pub(crate) fn new(site: SaeSite<'a>, place: HookPoint, sink_norm: f32) -> Self {
        Self { site, place, sink_norm, x: vec![] }
    }

    /// `replaced`, with those rows of `y` that keep their value. `[rows, d_out]` both
    fn keep(&self, rows: &Rows, y: &[f32], mut replaced: Vec<f32>) -> Vec<f32> {
        let SaeSite { sae, .. } = self.site;
        let values = self.x.chunks_exact(sae.d_in()).zip(y.chunks_exact(sae.d_out()));
        for (row, ((x, y), replaced)) in rows.iter().zip(values.zip(replaced.chunks_exact_mut(sae.d_out()))) {
            if !self.site.is_ordinary(row, x) || harvester::norm(y) > self.sink_norm {
                replaced.copy_from_slice(y);
            }
        }
        replaced
    }

    /// Unchanged, reconstructed, ablated.
    fn variants(&self, rows: &Rows, activation: &Tensor) -> Result<Vec<Tensor>> {
        let y = tensor_rows::rows(activation)?;
        let (_, y_hat) = self.site.sae.reconstruct(&self.x)?;
        let ablated = vec![0.0; y.len()];
        let others = [y_hat, ablated].map(|values| tensor_rows::replaced(activation, self.keep(rows, &y, values)));
        [Ok(activation.clone())].into_iter().chain(others).collect()
    }
}

impl Hook for Compare<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.site.hook_point || point == self.place
    }

    fn apply(&mut self, point: HookPoint, rows: &Rows, activation: &Tensor) -> harvester::Result<Edit> {
        if point == self.site.hook_point {
            self.x = tensor_rows::rows(activation).map_err(|error| harvester::Error::Hook(error.into()))?;
        }
        if point != self.place {
            return Ok(Edit::Keep);
        }
        self.variants(rows, activation).map(Edit::Variants).map_err(|error| harvester::Error::Hook(error.into()))
    }
}

/// Sums over the predictions so far.
#[derive(Debug, Default)]
pub(crate) struct BehaviorSums {
    pub(crate) contexts: u64,
    predictions: u64,
    /// Sums without the SAE, with it, with ablation.
    cross_entropy: [f64; 3],
    kl: f64,
}

impl BehaviorSums {
    /// The means; `None` if nothing was predicted.
    pub(crate) fn finish(&self) -> Option<Behavior> {
        let n = self.predictions as f64;
        let [without, with, ablated] = self.cross_entropy.map(|sum| sum / n);
        (self.predictions > 0).then(|| Behavior {
            ce_tokens: self.predictions,
            ce_loss_without_sae: without,
            ce_loss_with_sae: with,
            ce_loss_with_ablation: ablated,
            ce_loss_score: (ablated > without).then(|| (ablated - with) / (ablated - without)),
            kl: self.kl / n,
        })
    }

    /// Adds the predictions of a context.
    pub(crate) fn add(&mut self, model: &LanguageModel, tokens: &[u32], hook: &mut Compare<'_>) -> Result<()> {
        let resid = model.resid_final(&Batch::of([tokens]), None, hook)?;
        let resid = resid.reshape((3, tokens.len(), ()))?; // [3, pos, d_model]
        let predicted = tokens.len() - 1;
        for start in (0..predicted).step_by(BLOCK) {
            let len = BLOCK.min(predicted - start);
            let log_probs = log_probs(model, &resid.narrow(1, start, len)?.flatten_to(1)?)?; // [3 * len][d_vocab]
            let targets = &tokens[start + 1..=start + len];
            for (variant, rows) in log_probs.chunks_exact(len).enumerate() {
                let surprise = rows.iter().zip(targets).map(|(row, target)| -f64::from(row[*target as usize]));
                self.cross_entropy[variant] += surprise.sum::<f64>();
            }
            let (clean, others) = log_probs.split_at(len);
            self.kl +=
                clean.par_iter().zip(&others[..len]).map(|(p, q)| kl(p, q)).collect::<Vec<_>>().iter().sum::<f64>();
        }
        self.contexts += 1;
        self.predictions += predicted as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_score_only_where_ablation_does_harm() {
        let score = |without: f64, with: f64, ablated: f64| {
            let cross_entropy = [without, with, ablated].map(|mean| 4.0 * mean);
            BehaviorSums { contexts: 1, predictions: 4, cross_entropy, kl: 0.0 }
                .finish()
                .and_then(|it| it.ce_loss_score)
        };
        assert_eq!(score(3.0, 4.0, 13.0), Some(0.9));
        assert_eq!(score(3.0, 3.0, 13.0), Some(1.0));
        assert_eq!(score(3.0, 13.0, 13.0), Some(0.0));
        assert_eq!(score(3.0, 3.5, 3.0), None);
        assert_eq!(score(3.0, 3.5, 2.0), None);
    }
}
