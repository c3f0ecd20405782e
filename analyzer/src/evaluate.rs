//! [`evaluate`]: how much of the model an SAE keeps, on text it was not trained on.
//!
//! Reconstruction, over all held-out rows: `l0` = mean active latents a token,
//! `fvu` = sum |x - x_hat|^2 / sum |x - mean|^2.
//! Behaviour, over some of them: cross-entropy of the next token with the activation replaced by `x_hat`, and by zero;
//! `ce_loss_score = (ablated - with) / (ablated - without)`. Position 0 and attention sinks always keep their value.

use std::ops::Range;

use candle_core::Tensor;
use harvester::{ActivationDataset, ActivationRows, Hook, HookPoint, Monitor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use trainer::{Reconstruction, ReconstructionMetrics};

use crate::{Error, LanguageModel, Result, Site, shift, splice};

/// How much to evaluate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Tokens to run the whole model on, three times from the hook point; rounded up to whole contexts. Default 8,192.
    pub ce_tokens: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { ce_tokens: 8_192 }
    }
}

/// What an SAE keeps of the model. Cross-entropies in nats a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// How well and how sparsely the held-out rows are rebuilt.
    #[serde(flatten)]
    pub reconstruction: Reconstruction,
    /// Number of latents.
    pub d_sae: u64,
    /// Predictions behind the cross-entropies.
    pub ce_tokens: u64,
    /// The model's own.
    pub ce_loss_without_sae: f64,
    /// With the activation replaced by its reconstruction.
    pub ce_loss_with_sae: f64,
    /// With the activation replaced by zero.
    pub ce_loss_with_ablation: f64,
    /// Share of what ablation changes that the SAE keeps: 1 is perfect. `None` where ablation changes nothing. It says
    /// nothing where ablation lowers the loss.
    pub ce_loss_score: Option<f64>,
    /// Mean KL divergence from the model's own next-token distribution, in nats.
    pub kl: f64,
}

/// Positions whose logits are computed together.
const BLOCK: usize = 64;

/// Evaluates the SAE at `site` on the contexts `held_out` of `dataset`.
///
/// # Errors
/// No held-out context, an SAE that does not rebuild what it reads, or a file that cannot be read.
pub fn evaluate(
    model: &LanguageModel,
    site: Site<'_>,
    dataset: &ActivationDataset,
    held_out: Range<u64>,
    config: &EvaluationConfig,
    monitor: &dyn Monitor,
) -> Result<Evaluation> {
    let Site { sae, hook_point, .. } = site;
    sae.config.check_autoencoder()?;
    let summary = dataset.manifest().hook_point(hook_point)?;
    if summary.d_model != sae.d_in() {
        let expected = format!("d_in {}, the width of {hook_point} in {}", summary.d_model, dataset.dir().display());
        return Err(harvester::Error::invalid("SAE", expected, sae.d_in().to_string()).into());
    }
    let mut metrics = ReconstructionMetrics::new(sae.d_in(), sae.d_sae());
    let mut behaviour = Behaviour::default();
    let contexts_wanted = config.ce_tokens.div_ceil(dataset.manifest().config.ctx_len.max(1) as u64);
    let in_range = |context: &u64| held_out.contains(context);
    monitor.start("evaluating", contexts_wanted.min(held_out.end - held_out.start), "contexts");
    for &group in dataset.row_groups() {
        let tokens = dataset.tokens(group)?;
        if !tokens.context.iter().any(in_range) {
            continue;
        }
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        let read = dataset.read(group, hook_point)?;
        add_rows(&mut metrics, site, &read, &held_out)?;
        for rows in read.rows.contexts() {
            let wanted = held_out.contains(&read.rows.context[rows.start]) && behaviour.contexts < contexts_wanted;
            if wanted && !monitor.cancelled() {
                behaviour.add(model, &read.rows.token[rows], &mut Compare(site))?;
                monitor.advance(1);
            }
        }
    }
    monitor.finish();
    if monitor.cancelled() {
        return Err(Error::Stopped);
    }
    match metrics.finish() {
        Some(reconstruction) if behaviour.predictions > 0 => Ok(behaviour.beside(reconstruction, sae.d_sae())),
        _ => {
            let expected =
                format!("two ordinary tokens or more in contexts {held_out:?} of {}", dataset.dir().display());
            Err(harvester::Error::invalid("evaluation", expected, "fewer").into())
        }
    }
}

/// Adds the held-out rows of a row group to the reconstruction metrics.
fn add_rows(
    metrics: &mut ReconstructionMetrics,
    Site { sae, sink_norm, .. }: Site<'_>,
    read: &ActivationRows,
    held_out: &Range<u64>,
) -> Result<()> {
    let values = read.to_f32();
    let wanted = |row: usize| held_out.contains(&read.rows.context[row]) && read.is_ordinary(row, sink_norm);
    let rows = values.chunks_exact(read.d_model).enumerate();
    let x: Vec<f32> = rows.filter(|(row, _)| wanted(*row)).flat_map(|(_, x)| x).copied().collect();
    let (acts, x_hat) = sae.reconstruct(&x)?;
    metrics.add(&x, &x_hat, &acts);
    Ok(())
}

/// Runs a text three times from the hook point on: as it is, reconstructed, ablated.
struct Compare<'a>(Site<'a>);

impl Hook for Compare<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.0.hook_point
    }

    fn apply(&mut self, _point: HookPoint, activation: &Tensor) -> harvester::Result<Option<Tensor>> {
        let stacked = || -> Result<Tensor> {
            let x = splice::rows(activation)?;
            let mut x_hat = splice::reconstruct(self.0, &x)?;
            let mut ablated = splice::ablate(self.0, &x);
            // Position 0 of a context is not trained on, whatever its norm.
            let first = self.0.sae.d_in();
            x_hat[..first].copy_from_slice(&x[..first]);
            ablated[..first].copy_from_slice(&x[..first]);
            splice::stack(activation, vec![x_hat, ablated])
        };
        stacked().map(Some).map_err(harvester::Error::hook)
    }
}

/// Sums over the predictions made.
#[derive(Default)]
struct Behaviour {
    contexts: u64,
    predictions: u64,
    /// Without the SAE, with it, with ablation.
    cross_entropy: [f64; 3],
    kl: f64,
}

impl Behaviour {
    fn beside(&self, reconstruction: Reconstruction, d_sae: usize) -> Evaluation {
        let n = self.predictions as f64;
        let [without, with, ablated] = self.cross_entropy.map(|sum| sum / n);
        Evaluation {
            reconstruction,
            d_sae: d_sae as u64,
            ce_tokens: self.predictions,
            ce_loss_without_sae: without,
            ce_loss_with_sae: with,
            ce_loss_with_ablation: ablated,
            ce_loss_score: (ablated != without).then(|| (ablated - with) / (ablated - without)),
            kl: self.kl / n,
        }
    }

    fn add(&mut self, model: &LanguageModel, tokens: &[u32], hook: &mut Compare<'_>) -> Result<()> {
        let resid = model.transformer.resid_final(&model.row(tokens)?, None, hook)?; // [3, pos, d_model]
        let predicted = tokens.len() - 1;
        for start in (0..predicted).step_by(BLOCK) {
            let len = BLOCK.min(predicted - start);
            let log_probs = shift::log_probs(model, &resid.narrow(1, start, len)?)?; // [3 * len][d_vocab]
            let targets = &tokens[start + 1..=start + len];
            for (variant, rows) in log_probs.chunks_exact(len).enumerate() {
                let surprise = rows.iter().zip(targets).map(|(row, target)| -f64::from(row[*target as usize]));
                self.cross_entropy[variant] += surprise.sum::<f64>();
            }
            let (clean, others) = log_probs.split_at(len);
            self.kl += clean
                .par_iter()
                .zip(&others[..len])
                .map(|(p, q)| shift::kl(p, q))
                .collect::<Vec<_>>()
                .iter()
                .sum::<f64>();
        }
        self.contexts += 1;
        self.predictions += predicted as u64;
        Ok(())
    }
}
