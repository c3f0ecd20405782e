//! What each latent does to the output, measured: the latent's direction is added to the activation at the last token
//! of some neutral prompts, and the next token's distribution `q` is compared with the model's own `p`.
//!
//! ```text
//! x' = x + s d W_dec[j]                               d: the dose; s: 1, or the factor that undoes an input norm
//! kl               = sum_t p(t) log(p(t) / q(t))
//! output_score     = P_q(M) - P_p(M),  P_q(M) = (1 - rank_q(m) / d_vocab) q(m)
//!                    m: the likeliest under q of M, the 20 tokens of largest logit in head(W_dec[j]); rank: from 0
//! delta_confidence = log p(most likely under p) - log q(most likely under q)
//! change_t         = log q(t) - log p(t)
//! ```
//! Each is a mean over the prompts. The output score is that of Arad et al. 2025 (arXiv 2505.20063, section 4), minus
//! its value without the edit; the confidence is that of arXiv 2510.03659 for k = 1. Transcoders are edited where they
//! write.

mod dose;

use candle_core::Tensor;
use harvester::{LanguageModel, Monitor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use trainer::Sae;

use self::dose::DoseSearch;
use crate::{
    Error, Result, TokenWeight, Workbench,
    neutral::{Fork, NEUTRAL_PROMPTS},
    next_token::{Prediction, Reference},
    tensor_rows::with_rows,
    token_weight::top,
};

/// The KL divergence of [`Effect::dose_kl25`], in nats.
const DOSE_KL: f64 = 0.25;

/// Tokens of the logit lens that [`Effect::output_score`] and [`Effect::lens_agreement`] look at.
const LENS_TOKENS: usize = 20;

/// Tokens of [`Effect::promoted`] and [`Effect::suppressed`].
const TOKENS: usize = 10;

/// Mean probability with or without the edit from which a token is listed: below it, changes are large and mean
/// nothing.
const VISIBLE: f32 = 1e-5;

/// Rows whose logits are in memory together: 25 MB for a vocabulary of 49,152.
const HEAD_ROWS: usize = 128;

/// Settings of [`EffectMeter`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EffectsConfig {
    /// The prompts, at least two tokens each. Default: eight short beginnings of sentences, of speech and of code.
    pub prompts: Vec<String>,
}

impl Default for EffectsConfig {
    fn default() -> Self {
        Self { prompts: NEUTRAL_PROMPTS.map(String::from).to_vec() }
    }
}

/// How strongly to activate a latent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dose {
    /// The latent.
    pub latent: u32,
    /// The activation to add: its 99.9th percentile.
    pub activation: f32,
    /// Its largest activation: [`Effect::dose_kl25`] is at most 20 times as large.
    pub max: f32,
}

/// What a latent does to the next token, as means over the prompts.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Effect {
    /// The latent.
    pub latent: u32,
    /// The activation that was added.
    pub dose: f32,
    /// Norm of the added direction over the norm of the activation that it is added to (median over the prompts).
    pub relative_dose: f32,
    /// KL divergence from the model's own distribution, in nats.
    pub kl: f32,
    /// The activation that moves the next token by 0.25 nats, within 5 %; infinite if 20 times the latent's maximum
    /// does not.
    pub dose_kl25: f32,
    /// Gain in the rank-weighted probability of the likeliest of the 20 tokens of the latent's logit lens: `P_q(M) -
    /// P_p(M)` above. Negative if the edit makes them less likely. `None` if the SAE does not write to a residual stream.
    pub output_score: Option<f32>,
    /// Log probability of the most likely token before the edit minus after it: negative if the edit makes the model
    /// more certain.
    pub delta_confidence: f32,
    /// Share of tokens that are both in the top 20 of the logit lens and in the top 20 of the measured ones (Jaccard).
    /// `None` as for [`Effect::output_score`].
    pub lens_agreement: Option<f32>,
    /// The tokens whose log probability rises most, largest mean change first, among tokens with a mean probability of
    /// at least 1e-5 with or without the edit.
    pub promoted: Vec<TokenWeight>,
    /// The tokens whose log probability falls most, largest mean change first.
    pub suppressed: Vec<TokenWeight>,
}

/// Measures effects. Latents may be measured in any blocks: the numbers are the same.
#[derive(Debug)]
pub struct EffectMeter<'a> {
    fork: Fork<'a>,
    unedited: Unedited<'a>,
}

/// The prompts without edits, with which the others are compared.
#[derive(Debug)]
struct Unedited<'a> {
    model: &'a LanguageModel,
    sae: &'a Sae,
    prompts: Vec<Prompt>,
    /// Mean probability of each token over the prompts. `[d_vocab]`
    p: Vec<f32>,
    /// True if the head can be applied to what the SAE writes.
    reaches_head: bool,
}

/// A prompt without edits.
#[derive(Debug)]
struct Prompt {
    reference: Reference,
    log_sum: f64,
    log_p_max: f64,
    /// The factor of a direction that is added here.
    scale: f32,
    /// Norm of the activation that is edited.
    norm: f32,
}

impl<'a> EffectMeter<'a> {
    /// Latents per call of [`Self::measure`] that keep all cores busy.
    pub const BLOCK: usize = 128;

    /// Runs the prompts.
    ///
    /// # Errors
    /// No prompts, or one of a single token; an SAE that does not write where or after it reads; a model that cannot be
    /// read.
    pub fn new(bench: &'a Workbench, config: &EffectsConfig, monitor: &dyn Monitor) -> Result<Self> {
        let (model, site) = (bench.model(monitor)?, bench.sae().site());
        let texts: Vec<Vec<u32>> =
            config.prompts.iter().map(|prompt| bench.prompt(prompt, monitor)).collect::<Result<_>>()?;
        if let Some(short) = texts.iter().position(|text| text.len() < 2) {
            let found = format!("{:?}", config.prompts[short]);
            return Err(harvester::Error::invalid("`prompts`", "at least two tokens each", found).into());
        }
        if texts.is_empty() {
            return Err(harvester::Error::invalid("`prompts`", "at least one", "none").into());
        }
        let texts: Vec<(&[u32], &[u32])> = texts.iter().map(|text| text.split_at(text.len() - 1)).collect();
        let mut fork = Fork::new(model, site, &texts)?;
        let mut places = vec![];
        let resid = fork.run(1, &mut |_, x, y| {
            places.push((site.sae.config().input_norm.scale(x), harvester::norm(y)));
        })?;
        let logits: Vec<Vec<f32>> = model.unembed(&resid)?.to_vec2()?;
        let prompts: Vec<Prompt> = logits
            .into_iter()
            .zip(places)
            .map(|(logits, (scale, norm))| {
                let reference = Reference::new(logits);
                let Prediction { log_sum, .. } = reference.prediction();
                Prompt { log_p_max: reference.prediction().log_p_max(), reference, log_sum, scale, norm }
            })
            .collect();
        let mut p = vec![0.0; model.config().d_vocab];
        for prompt in &prompts {
            p.iter_mut().zip(prompt.reference.p()).for_each(|(sum, p)| *sum += p / prompts.len() as f32);
        }
        let reaches_head = fork.place().writes_to_resid() && site.sae.d_out() == model.config().d_model;
        Ok(Self { fork, unedited: Unedited { model, sae: site.sae, prompts, p, reaches_head } })
    }

    /// Measures a block of latents.
    ///
    /// # Errors
    /// A latent that the SAE does not have; an error of the forward pass.
    pub fn measure(&mut self, doses: &[Dose]) -> Result<Vec<Effect>> {
        let Self { fork, unedited } = self;
        if let Some(dose) = doses.iter().find(|dose| dose.latent as usize >= unedited.sae.d_sae()) {
            let expected = format!("below {}", unedited.sae.d_sae());
            return Err(harvester::Error::invalid("latent", expected, dose.latent.to_string()).into());
        }
        let lenses = unedited.lenses(doses)?;
        let edits: Vec<(u32, f32)> = doses.iter().map(|dose| (dose.latent, dose.activation)).collect();
        let read = |i: usize, predictions: &[Prediction<'_>]| unedited.effect(doses[i], lenses.get(i), predictions);
        let mut effects = unedited.predictions(fork, &edits, read)?;
        if let Some(Effect { latent, dose, kl, .. }) = effects.iter().find(|effect| !effect.kl.is_finite()) {
            let what = format!("the next token with {dose} of latent {latent} added");
            return Err(harvester::Error::invalid(what, "a finite KL divergence", kl.to_string()).into());
        }
        unedited.find_doses(fork, doses, &mut effects)?;
        Ok(effects)
    }
}

impl Unedited<'_> {
    /// Adds each `(latent, activation)` to a copy of the prompts. Calls `read` with its number and its predictions, one
    /// for each prompt.
    fn predictions<T: Send>(
        &self,
        fork: &mut Fork<'_>,
        edits: &[(u32, f32)],
        read: impl Fn(usize, &[Prediction<'_>]) -> T + Sync,
    ) -> Result<Vec<T>> {
        let sae = self.sae;
        let resid = fork.run(edits.len(), &mut |row, x, y| {
            let (latent, activation) = edits[row.variant];
            // A change of 0 must not alter anything, not even the sign of a zero.
            let change = sae.config().input_norm.scale(x) * activation;
            if change != 0.0 {
                y.iter_mut().zip(sae.decoder_row(latent as usize)).for_each(|(y, d)| *y += change * d);
            }
        })?; // [edits * prompts, d_model]
        let per_chunk = (HEAD_ROWS / self.prompts.len()).max(1);
        let mut results = Vec::with_capacity(edits.len());
        for first in (0..edits.len()).step_by(per_chunk) {
            let n = per_chunk.min(edits.len() - first);
            let rows = resid.narrow(0, first * self.prompts.len(), n * self.prompts.len())?;
            let logits = self.model.unembed(&rows)?; // [n * prompts, d_vocab]
            with_rows(&logits, |logits| {
                let by_edit = logits.par_chunks(self.prompts.len() * self.p.len()).enumerate();
                results.par_extend(by_edit.map(|(i, logits)| {
                    let predictions: Vec<_> = logits.chunks_exact(self.p.len()).map(Prediction::new).collect();
                    read(first + i, &predictions)
                }));
            })?;
        }
        Ok(results)
    }

    /// The tokens of largest logit in `head(W_dec[j])`; nothing if the head cannot be applied to it.
    fn lenses(&self, doses: &[Dose]) -> Result<Vec<Vec<u32>>> {
        let mut lenses = vec![];
        for doses in doses.chunks(HEAD_ROWS).filter(|_| self.reaches_head) {
            let rows: Vec<f32> =
                doses.iter().flat_map(|dose| self.sae.decoder_row(dose.latent as usize)).copied().collect();
            let rows = Tensor::from_vec(rows, (doses.len(), self.sae.d_out()), &candle_core::Device::Cpu)?;
            with_rows(&self.model.unembed(&rows)?, |logits| {
                let tokens = |logits: &[f32]| top((0..).zip(logits.iter().copied()), LENS_TOKENS);
                let ids = |logits| tokens(logits).into_iter().map(|(token, _)| token).collect();
                lenses.par_extend(logits.par_chunks(self.p.len()).map(ids));
            })?;
        }
        Ok(lenses)
    }

    /// The effect of a dose, without its `dose_kl25`.
    fn effect(&self, dose: Dose, lens: Option<&Vec<u32>>, predictions: &[Prediction<'_>]) -> Effect {
        let n = self.prompts.len() as f64;
        let pairs = || self.prompts.iter().zip(predictions);
        let mean = |value: &dyn Fn(&Prompt, &Prediction<'_>) -> f64| pairs().map(|(p, q)| value(p, q)).sum::<f64>() / n;
        let (mut changes, mut p) = (vec![0.0; self.p.len()], vec![0.0; self.p.len()]);
        pairs().for_each(|(prompt, q)| prompt.reference.add_changes(q, &mut changes, &mut p));
        let log_sums = mean(&|p, q| q.log_sum - p.log_sum);
        let visible = |token: &u32| {
            self.p[*token as usize] >= VISIBLE || p[*token as usize] >= VISIBLE * self.prompts.len() as f32
        };
        let sign = |sign: f32| (0..).zip(&changes).map(move |(token, change)| (token, sign * change));
        let ranked = |up, n| top(sign(up).filter(|(token, _)| visible(token)), n);
        let rising = ranked(1.0, LENS_TOKENS);
        let weight = |up: f64| {
            move |&(token, change): &(u32, f32)| TokenWeight {
                token,
                text: self.model.tokenizer().token_text(token),
                weight: (up * f64::from(change) / n - log_sums) as f32,
            }
        };
        let mut relative: Vec<f32> = self.prompts.iter().map(|prompt| prompt.scale / prompt.norm).collect();
        relative.sort_by(f32::total_cmp);
        let middle = relative.len() / 2;
        let median = f32::midpoint(relative[middle], relative[(relative.len() - 1) / 2]);
        Effect {
            latent: dose.latent,
            dose: dose.activation,
            relative_dose: dose.activation * harvester::norm(self.sae.decoder_row(dose.latent as usize)) * median,
            kl: mean(&|p, q| p.reference.kl(p.log_sum, q)) as f32,
            dose_kl25: f32::INFINITY,
            output_score: lens.map(|lens| {
                mean(&|p, q| probability_of(lens, q) - probability_of(lens, &p.reference.prediction())) as f32
            }),
            delta_confidence: mean(&|p, q| p.log_p_max - q.log_p_max()) as f32,
            lens_agreement: lens.map(|lens| {
                let both = rising.iter().filter(|(token, _)| lens.contains(token)).count();
                both as f32 / (lens.len() + rising.len() - both) as f32
            }),
            promoted: rising.iter().take(TOKENS).map(weight(1.0)).collect(),
            suppressed: ranked(-1.0, TOKENS).iter().map(weight(-1.0)).collect(),
        }
    }

    /// Finds the dose of [`DOSE_KL`] nats of each effect. Each round measures those that have not converged.
    fn find_doses(&self, fork: &mut Fork<'_>, doses: &[Dose], effects: &mut [Effect]) -> Result<()> {
        let search = |(dose, effect): (&Dose, &Effect)| DoseSearch::new(dose, f64::from(effect.kl) / DOSE_KL);
        let mut searches: Vec<DoseSearch> = doses.iter().zip(&*effects).map(search).collect();
        loop {
            let (open, edits): (Vec<usize>, Vec<(u32, f32)>) = (0..doses.len())
                .filter_map(|i| searches[i].next().map(|dose| (i, (doses[i].latent, dose as f32))))
                .unzip();
            if open.is_empty() {
                break;
            }
            let kls = self.predictions(fork, &edits, |_, predictions| {
                let kl = |(prompt, q): (&Prompt, &Prediction<'_>)| prompt.reference.kl(prompt.log_sum, q);
                self.prompts.iter().zip(predictions).map(kl).sum::<f64>() / self.prompts.len() as f64
            })?;
            for ((i, kl), (_, dose)) in open.into_iter().zip(kls).zip(edits) {
                searches[i].add(f64::from(dose), kl / DOSE_KL);
            }
        }
        for (effect, search) in effects.iter_mut().zip(searches) {
            effect.dose_kl25 = search.result();
        }
        Ok(())
    }
}

/// `P(M) = (1 - rank(m) / d_vocab) p(m)` of the likeliest token `m` of M.
fn probability_of(tokens: &[u32], q: &Prediction<'_>) -> f64 {
    let Some(best) = tokens.iter().copied().max_by(|a, b| q.log_p(*a).total_cmp(&q.log_p(*b))) else { return 0.0 };
    let rank = q.rank(q.logits[best as usize]);
    (1.0 - rank as f64 / q.logits.len() as f64) * q.log_p(best).exp()
}

/// Measures the effects of `doses`, with a progress bar.
///
/// # Errors
/// As [`EffectMeter::new`] and [`EffectMeter::measure`]; or the monitor stops it.
pub fn effects(
    bench: &Workbench,
    doses: &[Dose],
    config: &EffectsConfig,
    monitor: &dyn Monitor,
) -> Result<Vec<Effect>> {
    let mut meter = EffectMeter::new(bench, config, monitor)?;
    let mut effects = Vec::with_capacity(doses.len());
    monitor.start("effects", doses.len() as u64, "latents");
    for doses in doses.chunks(EffectMeter::BLOCK) {
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        effects.extend(meter.measure(doses)?);
        monitor.advance(doses.len() as u64);
    }
    monitor.finish();
    Ok(effects)
}
