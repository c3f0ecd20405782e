//! [`evaluate`]: measures how well an SAE preserves the model, on text that it was not trained on.
//!
//! ```text
//! over all held-out rows, with y = x except for a transcoder:
//!     l0            = mean active latents per token
//!     fvu           = sum |y - y_hat(x)|^2 / sum |y - mean|^2
//! over some of them, cross-entropy of the next token, with the activation replaced by y_hat, and by zero ("ablated"):
//!     ce_loss_score = (ablated - with) / (ablated - without)
//! ```
//!
//! Position 0 and attention sinks always keep their value.

mod behavior;
mod measured;

use std::ops::Range;

use harvester::{ActivationDataset, HookPoint, LanguageModel, Monitor, RowGroup};
use serde::{Deserialize, Serialize};
use trainer::{HookPoints, Reconstruction, ReconstructionMetrics, Sae, add_ordinary_rows};

use self::behavior::{BehaviorSums, Compare};
pub use self::{behavior::Behavior, measured::Measured};
use crate::{Error, Result, SaeSite};

/// Settings of an evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EvaluationConfig {
    /// Tokens on which the whole model is run, three times from the hook point on: as many contexts as hold this
    /// many tokens if each is full. Default 8,192.
    pub ce_tokens: u64,
}

impl Default for EvaluationConfig {
    fn default() -> Self {
        Self { ce_tokens: 8_192 }
    }
}

/// The results of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Quality and sparsity of the reconstructions of held-out rows.
    #[serde(flatten)]
    pub reconstruction: Reconstruction,
    /// Number of latents.
    pub d_sae: u64,
    /// FVU per hook point for a crosscoder; empty for others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fvu_by_hook_point: Vec<PlaceFvu>,
    /// Effect on next-token predictions. `None` if the SAE cannot replace an activation in a pass: see
    /// [`SaeSite::spliced`].
    #[serde(flatten)]
    pub behavior: Option<Behavior>,
}

/// FVU at one hook point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PlaceFvu {
    /// The hook point.
    pub hook_point: HookPoint,
    /// Fraction of its variance unexplained.
    pub fvu: f64,
}

/// Evaluates the SAE at `site` on the contexts `held_out` of `dataset`. With a model, which [`SaeSite::spliced`] requires,
/// it also measures the model's behavior.
///
/// # Errors
/// No held-out context, a hook point that the dataset does not have or that has another width there, or a file that
/// cannot be read.
pub fn evaluate(
    model: Option<&LanguageModel>,
    site: SaeSite<'_>,
    dataset: &ActivationDataset,
    held_out: Range<u64>,
    config: &EvaluationConfig,
    monitor: &dyn Monitor,
) -> Result<Evaluation> {
    if config.ce_tokens == 0 {
        return Err(harvester::Error::invalid("`ce_tokens`", "1 or more", "0").into());
    }
    let mut rebuilt = Rebuilt::new(site, dataset, held_out.clone())?;
    let mut compare = match (model, site.spliced()) {
        (Some(model), Some(place)) => Some((model, Compare::new(site, place, rebuilt.sink_norm(place)?))),
        _ => None,
    };
    let mut behavior = BehaviorSums::default();
    let n_held_out = held_out.end - held_out.start;
    let contexts_to_run = config.ce_tokens.div_ceil(dataset.manifest.config.ctx_len.max(1) as u64).min(n_held_out);
    let in_range = |context: &u64| held_out.contains(context);
    monitor.start("evaluating", if compare.is_some() { contexts_to_run } else { n_held_out }, "contexts");
    for &group in &dataset.row_groups {
        let tokens = dataset.tokens(group)?;
        if !tokens.context.iter().any(in_range) {
            continue;
        }
        if monitor.cancelled() {
            return Err(Error::Stopped);
        }
        rebuilt.add(group)?;
        for rows in tokens.contexts().into_iter().filter(|rows| in_range(&tokens.context[rows.start])) {
            match &mut compare {
                None => monitor.advance(1),
                Some((model, compare)) if behavior.contexts < contexts_to_run && !monitor.cancelled() => {
                    behavior.add(model, &tokens.token[rows], compare)?;
                    monitor.advance(1);
                }
                Some(_) => break,
            }
        }
    }
    monitor.finish();
    if monitor.cancelled() {
        return Err(Error::Stopped);
    }
    let behavior = behavior.finish();
    match rebuilt.finish(behavior) {
        Some(evaluation) if compare.is_none() || behavior.is_some() => Ok(evaluation),
        _ => {
            let expected = format!("two ordinary tokens or more in contexts {held_out:?} of {}", &dataset.location);
            Err(harvester::Error::invalid("evaluation", expected, "fewer").into())
        }
    }
}

/// Accumulates the metrics of reconstructed held-out rows.
struct Rebuilt<'a> {
    site: SaeSite<'a>,
    dataset: &'a ActivationDataset,
    held_out: Range<u64>,
    /// The hook points that the SAE reads, then its target if that is another one; each with the norm above which a row
    /// is a sink.
    columns: Vec<(HookPoint, f32)>,
    metrics: ReconstructionMetrics,
}

impl<'a> Rebuilt<'a> {
    fn new(site: SaeSite<'a>, dataset: &'a ActivationDataset, held_out: Range<u64>) -> Result<Self> {
        let (inputs, targets) = (site.inputs(), site.targets()?);
        check_widths(site, dataset, &inputs, site.sae.d_in())?;
        check_widths(site, dataset, &targets, site.sae.d_out())?;
        let metrics = ReconstructionMetrics::of(site.sae);
        let mut rebuilt = Self { site, dataset, held_out, columns: vec![], metrics };
        let others = targets.iter().filter(|point| !inputs.contains(point));
        rebuilt.columns =
            inputs.iter().chain(others).map(|point| Ok((*point, rebuilt.sink_norm(*point)?))).collect::<Result<_>>()?;
        Ok(rebuilt)
    }

    /// The norm above which a row is an attention sink at `point`.
    fn sink_norm(&self, point: HookPoint) -> Result<f32> {
        if point == self.site.hook_point {
            return Ok(self.site.sink_norm);
        }
        Ok(self.dataset.manifest.hook_point(point)?.sink_norm)
    }

    /// Adds the held-out rows of a row group, without rows that are a sink in any column.
    fn add(&mut self, group: RowGroup) -> Result<()> {
        let read = |(point, _): &(HookPoint, f32)| Ok(self.dataset.read(group, *point)?);
        let columns = self.columns.iter().map(read).collect::<Result<_>>()?;
        let sink_norms: Vec<f32> = self.columns.iter().map(|(_, sink_norm)| *sink_norm).collect();
        let wanted = |context| self.held_out.contains(&context);
        Ok(add_ordinary_rows(&mut self.metrics, self.site.sae, columns, &sink_norms, wanted)?)
    }

    /// `None` if there were too few rows.
    fn finish(&self, behavior: Option<Behavior>) -> Option<Evaluation> {
        let reconstruction = self.metrics.finish()?;
        let fvu_of_columns = self.metrics.fvu_of_columns()?;
        let columns = crosscoder_columns(self.site.sae).iter().zip(fvu_of_columns);
        Some(Evaluation {
            reconstruction,
            d_sae: self.site.sae.d_sae() as u64,
            fvu_by_hook_point: columns.map(|((point, _), fvu)| PlaceFvu { hook_point: *point, fvu }).collect(),
            behavior,
        })
    }
}

/// Checks that the widths of `points` in `dataset` add up to `width`.
fn check_widths(site: SaeSite<'_>, dataset: &ActivationDataset, points: &[HookPoint], width: usize) -> Result<()> {
    let d_model = |point: &HookPoint| Ok(dataset.manifest.hook_point(*point)?.d_model);
    let widths: Vec<usize> = points.iter().map(d_model).collect::<Result<_>>()?;
    let columns = crosscoder_columns(site.sae).iter().zip(&widths);
    if widths.iter().sum::<usize>() == width && columns.into_iter().all(|((_, of_sae), found)| of_sae == found) {
        return Ok(());
    }
    let names: Vec<_> = points.iter().map(ToString::to_string).collect();
    let expected = format!("the width of {} in {}, {widths:?}", names.join(" and "), &dataset.location);
    Err(harvester::Error::invalid("SAE", expected, width.to_string()).into())
}

/// The hook points of a crosscoder with their widths; empty for other SAEs.
fn crosscoder_columns(sae: &Sae) -> &[(HookPoint, usize)] {
    match &sae.config().hook_points {
        HookPoints::Crosscoder(columns) => columns,
        HookPoints::Autoencoder(_) | HookPoints::Transcoder { .. } => &[],
    }
}
