//! [`Run`]: trains one SAE, step by step, to the end. The caller provides the rows: `train` those of a folder,
//! `train_live` those of a running model, and in a `sweep` several runs share the same batches.
//!
//! ```text
//! batch (data/shuffle_buffer.rs) -> step (step.rs) -> metrics.jsonl, curves.html, now and then a checkpoint
//! at the end: scale folded in, threshold calibrated, SAE saved, held-out metrics, manifest completed
//! ```

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use harvester::{Manifest, Monitor};

use crate::{
    Error, Result,
    config::{CALIBRATION_TOKENS, Resolved},
    data::{
        activation_source::ActivationSource,
        rows::RowSource,
        shuffle_buffer::{Cursor, ShuffleBuffer},
        standardize::Standard,
        training_data::{Label, TrainingData},
    },
    error::Divergence,
    formats::saelens,
    manifest::{SaeManifest, TrainResults, checkpoint_files},
    run::{
        calibrate::calibrate,
        checkpoint::Progress,
        curves::Curves,
        export::export,
        metrics_line::MetricsLine,
        metrics_log::MetricsLog,
        schedule::Schedule,
        score::{add_rows, first_rows, inputs_and_targets, score},
    },
    sae::{
        Sae,
        metrics::{Reconstruction, ReconstructionMetrics},
    },
    step::{Learner, StepReport},
};

mod buffer_file;
mod calibrate;
mod checkpoint;
pub(crate) mod curves;
pub(crate) mod estimate;
mod export;
mod health;
pub(crate) mod initial_weights;
pub(crate) mod metrics_file;
pub(crate) mod metrics_line;
mod metrics_log;
mod page;
mod run_folder;
mod schedule;
pub(crate) mod score;
pub(crate) mod source;
pub(crate) mod sweep;
pub(crate) mod train;
pub(crate) mod train_live;
mod units;

/// A threshold is calibrated on held-out rows, because an SAE has more active latents on rows that it has not seen; the
/// effect grows with the number of passes over the training rows. With fewer held-out rows than this, their mean L0
/// says little about other rows.
const LEAST_UNSEEN_ROWS: usize = 100;

/// Held-out FVU is measured every this many times `log_every` steps.
const HELD_OUT_EVERY: u64 = 5;

/// A run in progress, without the source of its rows, which several runs may share (`sweep`).
pub(crate) struct Run<'a> {
    /// [`SaeManifest::run_id`].
    id: String,
    resolved: Resolved,
    schedule: Schedule,
    /// Converts raw values to training units.
    standard: Standard,
    /// Facts about the data for the SAE's config.
    label: Label,
    learner: Learner,
    /// Rows for the curve of held-out FVU. `[n, sum of widths]`
    held_out: Arc<[f32]>,
    progress: Progress,
    /// Step of the newest checkpoint.
    saved_step: u64,
    /// True if there may be more checkpoints than should be kept.
    surplus: bool,
    log: MetricsLog,
    curves: Curves,
    out: PathBuf,
    monitor: &'a dyn Monitor,
}

impl<'a> Run<'a> {
    /// Starts a new run, or resumes the one in `out`; `manifest` is that of `out`, `held_out` is from
    /// [`score::curve_rows`].
    pub(crate) fn open(
        data: &dyn TrainingData,
        manifest: &SaeManifest,
        mut resolved: Resolved,
        held_out: Arc<[f32]>,
        out: &Path,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let standard = Standard::of(data)?;
        let (id, initial) = (manifest.run_id.clone(), resolved.initial.take());
        if let Some(sae) = &initial
            && checkpoint_files::list(out)?.is_empty()
        {
            initial_weights::say_elsewhere(sae, &resolved, &data.label().model_name);
        }
        let mut learner = begin(initial, &standard, &resolved);
        if let Some(last) = manifest.init_sparsity_coefficient {
            learner.sparsity.value = last;
        }
        let config = &resolved.config;
        let progress = checkpoint::restore(out, &id, &mut learner)?.unwrap_or_default();
        let log = MetricsLog::open(out, progress.step)?;
        log.say_lost(progress.step, config.log_every);
        Ok(Self {
            id,
            schedule: Schedule::new(resolved.lr, resolved.n_steps, config.warmup, config.decay),
            standard,
            label: data.label(),
            learner,
            held_out,
            progress,
            saved_step: progress.step,
            surplus: true,
            log,
            curves: Curves::new(out, manifest.clone()),
            out: out.to_path_buf(),
            monitor,
            resolved,
        })
    }

    /// The progress so far.
    pub(crate) fn progress(&self) -> Progress {
        self.progress
    }

    /// Runs everything that is left to do, on the rows of `source`. An epoch has at most `training_rows` rows.
    pub(crate) fn complete(
        mut self,
        manifest: SaeManifest,
        source: impl ActivationSource,
        training_rows: u64,
        held_out: &dyn RowSource,
    ) -> Result<SaeManifest> {
        let mut buffer = ShuffleBuffer::new(source, self.resolved.config.seed, self.progress.cursor);
        buffer_file::restore(&self.out, &self.id, self.progress.step, &mut buffer);
        self.show()?;
        let ended = self.fit_and_finish(&manifest, &mut buffer, training_rows, held_out);
        ended.inspect_err(|error| self.show_end(&manifest, error))
    }

    fn fit_and_finish(
        &mut self,
        manifest: &SaeManifest,
        buffer: &mut ShuffleBuffer<impl ActivationSource>,
        training_rows: u64,
        held_out: &dyn RowSource,
    ) -> Result<SaeManifest> {
        let sample = self.fit(buffer).and_then(|()| sample(buffer, &self.resolved.widths, training_rows));
        if let Err(Error::Harvester(harvester::Error::Cancelled { .. })) = &sample {
            buffer_file::save(&self.out, &self.id, self.progress.step, buffer, self.monitor);
        }
        self.finish(manifest.clone(), held_out, &sample?)
    }

    /// Updates the page of curves.
    pub(crate) fn show(&mut self) -> Result<()> {
        self.curves.refresh(self.log.lines())
    }

    /// Updates the log and the page of a run that was ended by `error`. Errors of writing them are ignored, so that
    /// they do not hide `error`.
    pub(crate) fn show_end(&mut self, manifest: &SaeManifest, error: &Error) {
        let _ = self.log.sync();
        self.curves.stop(self.log.lines(), error);
        if let Error::Diverged { .. } = error {
            let _ = SaeManifest { diverged: Some(error.said_in(&self.out)), ..manifest.clone() }.write(&self.out);
        }
    }

    /// Runs all steps that are left.
    fn fit(&mut self, buffer: &mut ShuffleBuffer<impl ActivationSource>) -> Result<()> {
        let batch = self.resolved.config.batch;
        let mut x = vec![0.0; batch * self.resolved.widths.iter().sum::<usize>()];
        self.monitor.start("train", self.resolved.n_steps * batch as u64, "tokens");
        self.monitor.skip(self.progress.step * batch as u64);
        while self.progress.step < self.resolved.n_steps {
            if !next_batch(buffer, &self.standard.scales, &mut x, self.monitor)? {
                self.save_checkpoint()?;
                return Err(harvester::Error::Cancelled { place: self.out.display().to_string() }.into());
            }
            let StepReport { loss, fvu, l0, dead, .. } = self.step(&x, buffer.cursor())?;
            if self.is_logged() {
                self.monitor.note(&format!("loss {loss:.4}, fvu {fvu:.3}, l0 {l0:.1}, dead {dead}"));
            }
        }
        self.save_checkpoint()?;
        self.monitor.finish();
        Ok(())
    }

    /// Runs one step on the next batch `x` `[batch, sum of widths]`, in training units. The rows after it begin at
    /// `cursor`.
    pub(crate) fn step(&mut self, x: &[f32], cursor: Cursor) -> Result<StepReport> {
        let lr = self.schedule.at(self.progress.step);
        let row_limit = self.resolved.config.row_limit.unwrap_or(f64::INFINITY);
        let report = self.learner.step(&self.standard.shortened(x, self.resolved.d_in, row_limit), lr);
        if let Err(error) = self.check_loss(&report) {
            let last = self.line(self.progress.step + 1, &report, lr);
            if last.is_finite() {
                // An error of writing it must not hide why the run ends.
                let _ = self.log.write(&last);
            }
            return Err(error);
        }
        self.progress = Progress {
            step: self.progress.step + 1,
            cursor,
            fvu: report.fvu,
            sparsity_coefficient: self.learner.sparsity.value,
            health: self.progress.health,
        };
        self.report(&report, lr)?;
        if self.progress.step.is_multiple_of(self.resolved.config.checkpoint_every) {
            self.save_checkpoint()?;
        }
        Ok(report)
    }

    /// Converts raw values to training units.
    pub(crate) fn scales(&self) -> &[f32] {
        &self.standard.scales
    }

    /// Stops a run that has diverged. Removes older checkpoints once the loss after the newest one is steady.
    fn check_loss(&mut self, report: &StepReport) -> Result<()> {
        let step = self.progress.step + 1;
        self.progress.health.check(step, report, self.resolved.d_sae).map_err(|cause| self.diverged(step, cause))?;
        if self.surplus && self.progress.health.steady_step == step {
            checkpoint::keep_last(&self.out, self.resolved.config.keep_checkpoints)?;
            self.surplus = false;
        }
        Ok(())
    }

    /// The error of a run that diverged. Checkpoints saved while it diverged are removed, so that a resumed run begins
    /// at a good one.
    fn diverged(&self, step: u64, cause: Divergence) -> Error {
        let advice = cause.advice(&self.resolved.config);
        let good = checkpoint::remove_from(&self.out, self.progress.health.steady_step);
        good.map_or_else(|error| error, |checkpoint| Error::Diverged { step, cause, advice, checkpoint })
    }

    fn report(&mut self, report: &StepReport, lr: f64) -> Result<()> {
        let batch = self.resolved.config.batch as u64;
        self.monitor.advance(batch);
        if !self.is_logged() {
            return Ok(());
        }
        let mut line = self.line(self.progress.step, report, lr);
        line.held_out_fvu = self.held_out_fvu();
        self.log.write(&line)?;
        self.curves.refresh(self.log.lines())
    }

    fn line(&self, step: u64, report: &StepReport, lr: f64) -> MetricsLine {
        let StepReport { loss, fvu, l0, aux_loss, dead, sparsity_loss, sparsity_coefficient, grad_norm } = *report;
        let tokens = step * self.resolved.config.batch as u64;
        MetricsLine {
            step,
            tokens,
            loss,
            fvu,
            held_out_fvu: None,
            l0,
            sparsity_loss,
            sparsity_coefficient,
            aux_loss,
            dead,
            lr,
            grad_norm,
        }
    }

    /// FVU of held-out rows after the last step, if it is measured there and they vary.
    fn held_out_fvu(&mut self) -> Option<f64> {
        let (step, every) = (self.progress.step, HELD_OUT_EVERY * self.resolved.config.log_every);
        let is_due = step == 1 || step.is_multiple_of(every) || step == self.resolved.n_steps;
        let fvu = (is_due && !self.held_out.is_empty()).then(|| self.learner.fvu(&self.held_out))?;
        fvu.is_finite().then_some(fvu)
    }

    /// True if the last step has a line in the log.
    pub(crate) fn is_logged(&self) -> bool {
        let step = self.progress.step;
        MetricsLine::is_due(step, self.resolved.config.log_every) || step == self.resolved.n_steps
    }

    /// Saves the state of the run, but never weights that are not finite. Before the first step nothing is saved:
    /// restored weights count as started and would never be adapted to the first batch.
    pub(crate) fn save_checkpoint(&mut self) -> Result<()> {
        if self.progress.step == self.saved_step {
            return Ok(());
        }
        if !checkpoint::is_finite(&self.learner) {
            return Err(self.diverged(self.progress.step, Divergence::Weights));
        }
        self.log.sync()?;
        self.surplus = true;
        buffer_file::remove(&self.out)?;
        checkpoint::save(&self.out, &self.id, &self.learner, self.progress)?;
        self.saved_step = self.progress.step;
        Ok(())
    }

    /// Turns the learner, which is empty afterwards, into the saved SAE. `sample` `[n, sum of widths]`: see [`sample`].
    pub(crate) fn finish(
        &mut self,
        mut manifest: SaeManifest,
        held_out: &dyn RowSource,
        sample: &[f32],
    ) -> Result<SaeManifest> {
        checkpoint::keep_last(&self.out, self.resolved.config.keep_checkpoints)?;
        let (dead, batch) = (self.learner.dead_latents.count(), self.resolved.config.batch);
        let weights = std::mem::take(&mut self.learner.weights);
        let mut sae = export(weights, &self.standard, &self.resolved, self.label.clone())?;
        if self.resolved.config.architecture.is_batch_topk() {
            let unseen = first_rows(held_out, CALIBRATION_TOKENS)?;
            let n_unseen = unseen.len() / self.resolved.widths.iter().sum::<usize>();
            let rows = if n_unseen >= LEAST_UNSEEN_ROWS { &unseen[..] } else { sample };
            let (inputs, _) = inputs_and_targets(&sae, rows);
            calibrate(&mut sae, &inputs, self.resolved.config.k)?;
        }
        let mut on_sample = ReconstructionMetrics::of(&sae);
        add_rows(&mut on_sample, &sae, sample)?;
        sae.save(&self.out)?;
        saelens::save_sparsity(&on_sample.feature_density(), &self.out)?;
        let held_out = score(&sae, held_out, self.monitor)?;
        manifest.results = Some(results(&self.out, self.progress, batch, dead, held_out)?);
        self.curves.finish(&manifest, self.log.lines())?;
        buffer_file::remove(&self.out)?;
        manifest.diverged = None;
        manifest.complete = true;
        manifest.write(&self.out)?;
        Ok(manifest)
    }
}

/// The results of the run whose SAE is saved in `out`.
fn results(
    out: &Path,
    progress: Progress,
    batch: usize,
    dead: usize,
    held_out: Option<Reconstruction>,
) -> Result<TrainResults> {
    let (weights_sha256, files_sha256) = TrainResults::hash_files(out)?;
    let tokens = progress.step * batch as u64;
    Ok(TrainResults {
        weights_sha256,
        files_sha256,
        steps: progress.step,
        tokens,
        last_fvu: progress.fvu,
        dead,
        held_out,
    })
}

/// The learner of a new run, from an SAE or from random weights.
fn begin(initial: Option<Sae>, standard: &Standard, resolved: &Resolved) -> Learner {
    let Some(sae) = initial else {
        return Learner::start(resolved.d_sae, standard.mean.clone(), resolved.config.seed, resolved.step_config());
    };
    Learner::new(initial_weights::of(sae, standard, resolved), resolved.step_config())
}

/// Writes the next batch to `x`. Returns false if the user asked to stop, before or while the buffer was filled:
/// filling takes a while, and the earlier steps must not be lost.
///
/// # Shapes
/// `scales` `[columns]`, `x` `[batch, sum of widths]`.
pub(crate) fn next_batch(
    buffer: &mut ShuffleBuffer<impl ActivationSource>,
    scales: &[f32],
    x: &mut [f32],
    monitor: &dyn Monitor,
) -> Result<bool> {
    if monitor.cancelled() {
        return Ok(false);
    }
    match buffer.next_batch(scales, x) {
        Err(_) if monitor.cancelled() => Ok(false),
        filled => filled.map(|()| true),
    }
}

/// Raw rows of the batches after the last training batch; an interrupted run gets the same ones. `[n, sum of widths]`,
/// n at most [`CALIBRATION_TOKENS`].
pub(crate) fn sample(
    buffer: &mut ShuffleBuffer<impl ActivationSource>,
    widths: &[usize],
    training_rows: u64,
) -> Result<Vec<f32>> {
    let n_rows = CALIBRATION_TOKENS.min(training_rows) as usize;
    let mut sample = vec![0.0; n_rows * widths.iter().sum::<usize>()];
    buffer.next_batch(&vec![1.0; widths.len()], &mut sample)?;
    Ok(sample)
}
