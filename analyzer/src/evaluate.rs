//! [`evaluate`]: how much of the model an SAE keeps, on text it was not trained on.
//!
//! Reconstruction, over all held-out rows: `l0` = mean active latents a token, `fvu` = sum |x - x_hat|^2 / sum |x - mean|^2.
//! Behaviour, over some of them: cross-entropy of the next token with the activation replaced by `x_hat`, and by zero;
//! `ce_loss_score = (ablated - with) / (ablated - without)`. Position 0 and attention sinks keep their value throughout.

use std::ops::Range;

use candle_core::Tensor;
use harvester::{ActivationDataset, Hook, HookPoint, Monitor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use trainer::Sae;

use crate::{LanguageModel, Result, feature_index::encode_rows, shift, splice};

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
    /// Held-out tokens that were reconstructed.
    pub tokens: u64,
    /// Mean active latents a token.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: f64,
    /// `1 - fvu`.
    pub explained_variance: f64,
    /// Latents that fire on no held-out token.
    pub silent_latents: u64,
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
    /// Share of what ablation destroys that the SAE keeps: 1 is perfect.
    pub ce_loss_score: f64,
    /// Mean KL divergence from the model's own next-token distribution, in nats.
    pub kl: f64,
}

/// Positions whose logits are computed together.
const BLOCK: usize = 64;

/// Evaluates `sae` on the contexts `held_out` of `dataset`.
///
/// # Errors
/// No held-out context, or a file that cannot be read.
pub fn evaluate(
    model: &LanguageModel,
    sae: &Sae,
    hook_point: HookPoint,
    dataset: &ActivationDataset,
    held_out: Range<u64>,
    config: &EvaluationConfig,
    monitor: &dyn Monitor,
) -> Result<Evaluation> {
    let sink_norm = dataset.manifest().sink_norm(hook_point)?;
    let mut reconstruction = Reconstruction::new(sae);
    let mut behaviour = Behaviour::default();
    let contexts_wanted = config.ce_tokens.div_ceil(dataset.manifest().config.ctx_len.max(1) as u64);
    let in_range = |context: &u64| held_out.contains(context);
    monitor.start("evaluating", contexts_wanted.min(held_out.end - held_out.start), "contexts");
    for &group in dataset.row_groups() {
        let tokens = dataset.tokens(group)?;
        if !tokens.context.iter().any(in_range) {
            continue;
        }
        let read = dataset.read(group, hook_point)?;
        reconstruction.add(sae, &read, sink_norm, &held_out)?;
        let mut hook = Compare { sae, hook_point, sink_norm };
        for rows in tokens.context.chunk_by(|a, b| a == b).scan(0, |start, rows| {
            *start += rows.len();
            Some(*start - rows.len()..*start)
        }) {
            let wanted = held_out.contains(&tokens.context[rows.start]) && behaviour.contexts < contexts_wanted;
            if wanted && !monitor.cancelled() {
                behaviour.add(model, &tokens.token[rows], &mut hook)?;
                monitor.advance(1);
            }
        }
    }
    monitor.finish();
    if monitor.cancelled() {
        return Err(harvester::Error::Cancelled { path: dataset.dir().to_path_buf() }.into());
    }
    if reconstruction.tokens == 0 || behaviour.predictions == 0 {
        let expected = format!("some of the held-out contexts {held_out:?} in {}", dataset.dir().display());
        return Err(harvester::Error::invalid("evaluation", expected, "none").into());
    }
    Ok(reconstruction.with(&behaviour))
}

/// Sums over all held-out rows; nothing here depends on how they are cut into batches.
struct Reconstruction {
    tokens: u64,
    active: u64,
    fired: Vec<bool>,
    squared_error: f64,
    /// Per dimension, for the variance about the held-out mean.
    sum: Vec<f64>,
    sum_of_squares: f64,
}

impl Reconstruction {
    fn new(sae: &Sae) -> Self {
        Self {
            tokens: 0,
            active: 0,
            fired: vec![false; sae.d_sae()],
            squared_error: 0.0,
            sum: vec![0.0; sae.d_in()],
            sum_of_squares: 0.0,
        }
    }

    fn add(
        &mut self,
        sae: &Sae,
        read: &harvester::ActivationRows,
        sink_norm: f32,
        held_out: &Range<u64>,
    ) -> Result<()> {
        let values = read.to_f32();
        let acts = encode_rows(sae, read, sink_norm)?;
        let x_hat = sae.decode(&acts);
        let pairs = values.chunks_exact(read.d_model).zip(x_hat.chunks_exact(read.d_model)).enumerate();
        for (row, (x, x_hat)) in pairs {
            if !held_out.contains(&read.rows.context[row]) || !crate::feature_index::counts(read, row, sink_norm) {
                continue;
            }
            self.tokens += 1;
            let (latents, _) = acts.row(row);
            self.active += latents.len() as u64;
            latents.iter().for_each(|&latent| self.fired[latent as usize] = true);
            for ((x, x_hat), sum) in x.iter().zip(x_hat).zip(&mut self.sum) {
                let x = f64::from(*x);
                self.squared_error += (x - f64::from(*x_hat)).powi(2);
                self.sum_of_squares += x * x;
                *sum += x;
            }
        }
        Ok(())
    }

    /// `sum |x - mean|^2 = sum |x|^2 - |sum x|^2 / n`
    fn total_variance(&self) -> f64 {
        self.sum_of_squares - self.sum.iter().map(|sum| sum * sum).sum::<f64>() / self.tokens as f64
    }

    fn with(&self, behaviour: &Behaviour) -> Evaluation {
        let n = behaviour.predictions as f64;
        let [without, with, ablated] = behaviour.cross_entropy.map(|sum| sum / n);
        let fvu = self.squared_error / self.total_variance();
        Evaluation {
            tokens: self.tokens,
            l0: self.active as f64 / self.tokens as f64,
            fvu,
            explained_variance: 1.0 - fvu,
            silent_latents: self.fired.iter().filter(|fired| !**fired).count() as u64,
            d_sae: self.fired.len() as u64,
            ce_tokens: behaviour.predictions,
            ce_loss_without_sae: without,
            ce_loss_with_sae: with,
            ce_loss_with_ablation: ablated,
            ce_loss_score: (ablated - with) / (ablated - without),
            kl: behaviour.kl / n,
        }
    }
}

/// Runs a text three times from the hook point on: as it is, reconstructed, ablated.
struct Compare<'a> {
    sae: &'a Sae,
    hook_point: HookPoint,
    sink_norm: f32,
}

impl Hook for Compare<'_> {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.hook_point
    }

    fn apply(&mut self, _point: HookPoint, activation: &Tensor) -> harvester::Result<Option<Tensor>> {
        let stacked = || -> Result<Tensor> {
            let x = splice::rows(activation)?;
            let mut x_hat = splice::reconstruct(self.sae, &x, self.sink_norm)?;
            let mut ablated = splice::ablate(&x, self.sae.d_in(), self.sink_norm);
            // Position 0 of a context is not trained on, whatever its norm.
            let first = self.sae.d_in();
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
            self.kl += clean.par_iter().zip(&others[..len]).map(|(p, q)| shift::kl(p, q)).collect::<Vec<_>>().iter().sum::<f64>();
        }
        self.contexts += 1;
        self.predictions += predicted as u64;
        Ok(())
    }
}
