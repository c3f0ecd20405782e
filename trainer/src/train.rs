//! [`train`]: the loop from a folder of activations to an SAE folder, which the same command resumes after any
//! interruption to the same bits.
//!
//! ```text
//! batch (activations.rs, shuffle_buffer.rs) -> step (step.rs) -> metrics.jsonl, now and then a checkpoint
//! at the end: scale folded in, threshold calibrated, held-out metrics, SAE saved, manifest complete
//! ```

use std::path::Path;

use harvester::{ActivationDataset, Monitor};

use crate::{
    Error, Result,
    activation_source::ActivationSource,
    activations::{Activations, RowSource, split},
    calibrate::calibrate,
    checkpoint::{self, Progress},
    config::{CALIBRATION_TOKENS, Resolved, TrainArchitecture, TrainConfig},
    formats::saelens,
    manifest::{SaeManifest, TrainResults, open_folder},
    metrics::{Reconstruction, ReconstructionMetrics},
    metrics_log::{MetricsLine, MetricsLog},
    sae::{Architecture, Sae, SaeConfig},
    schedule::Schedule,
    shard_source::ShardSource,
    shuffle_buffer::{Cursor, ShuffleBuffer},
    step::{Learner, StepReport},
    weights::Weights,
};

/// An error a hundred times the variance of the data: nothing good comes after it.
const DIVERGED_FVU: f64 = 100.0;
/// Held-out tokens scored at the end; `refract evaluate` scores all of them.
const HELD_OUT_TOKENS: u64 = 131_072;

/// Trains an SAE on `dataset` into the folder `out`. A folder that holds an unfinished run of the same config is
/// continued; a finished one is left as it is.
///
/// What opening `dataset` compared is all that is compared: each manifest with its own checksum; each part's size, rows
/// and columns with the manifest. The content of a part is not hashed: row groups are read in random order and one hook
/// point of each, so a hash would cost a pass of its own. [`ActivationDataset::verify`] makes that pass.
///
/// # Errors
/// When the config does not fit the activations, `out` holds another run, a file cannot be read or written, the loss
/// explodes, or the user asked to stop. The last checkpoint is kept in every case.
pub fn train(
    dataset: &ActivationDataset,
    config: &TrainConfig,
    out: &Path,
    monitor: &dyn Monitor,
) -> Result<SaeManifest> {
    let resolved = config.resolve(dataset.manifest())?;
    let (training, held_out) = split(dataset, resolved.hook_point, resolved.config.held_out_fraction)?;
    check_size(dataset, &training, resolved.config.batch)?;
    harvester::create_folder(out)?;
    let _lock = harvester::lock(out)?;
    let manifest = open_folder(out, SaeManifest::begin(dataset, &resolved, held_out.contexts())?)?;
    if manifest.complete {
        return Ok(manifest);
    }
    let (seed, buffer_bytes) = (resolved.config.seed, resolved.config.buffer_bytes);
    let source = |_: Cursor| Box::new(ShardSource::new(&training, seed, buffer_bytes)) as Box<dyn ActivationSource>;
    Run::open(dataset, training.n_rows_at_most(), source, resolved, out, monitor)?
        .complete(manifest, dataset, &held_out)
}

/// A run in progress.
pub(crate) struct Run<'a> {
    resolved: Resolved,
    schedule: Schedule,
    /// Multiplies raw activations into training units.
    scale: f32,
    learner: Learner,
    buffer: ShuffleBuffer<Box<dyn ActivationSource + 'a>>,
    /// Rows to train on at most; an epoch has no more.
    training_rows: u64,
    progress: Progress,
    log: MetricsLog,
    out: &'a Path,
    monitor: &'a dyn Monitor,
}

impl<'a> Run<'a> {
    /// A new run, or the one that `out` holds. `source` gives rows from the place where the run goes on.
    pub(crate) fn open(
        dataset: &ActivationDataset,
        training_rows: u64,
        source: impl FnOnce(Cursor) -> Box<dyn ActivationSource + 'a>,
        resolved: Resolved,
        out: &'a Path,
        monitor: &'a dyn Monitor,
    ) -> Result<Self> {
        let (scale, b_dec) = standardise(dataset, &resolved)?;
        let config = &resolved.config;
        let mut learner = Learner::new(Weights::random(resolved.d_sae, b_dec, config.seed), resolved.step_config());
        let progress = checkpoint::restore(out, &mut learner)?.unwrap_or_default();
        Ok(Self {
            schedule: Schedule::new(config.lr, resolved.n_steps, config.warmup, config.decay),
            scale,
            learner,
            buffer: ShuffleBuffer::new(source(progress.cursor), config.seed, progress.cursor),
            training_rows,
            progress,
            log: MetricsLog::open(out, progress.step)?,
            out,
            monitor,
            resolved,
        })
    }

    /// Everything that is left to do.
    pub(crate) fn complete(
        mut self,
        manifest: SaeManifest,
        dataset: &ActivationDataset,
        held_out: &Activations<'_>,
    ) -> Result<SaeManifest> {
        let fvu = self.fit()?;
        self.finish(manifest, fvu, dataset, held_out)
    }

    /// All steps that are left. Returns the last batch's fraction of variance unexplained.
    fn fit(&mut self) -> Result<f64> {
        let batch = self.resolved.config.batch;
        let mut x = vec![0.0; batch * self.resolved.d_in];
        self.monitor.start("train", self.resolved.n_steps * batch as u64, "tokens");
        self.monitor.advance(self.progress.step * batch as u64);
        while self.progress.step < self.resolved.n_steps {
            if self.monitor.cancelled() {
                self.save_checkpoint()?;
                return Err(harvester::Error::Cancelled { path: self.out.to_path_buf() }.into());
            }
            if let Err(error) = self.buffer.next_batch(self.scale, &mut x) {
                // Filling the buffer takes a while, and the steps before it are not to be lost by a stop.
                if self.monitor.cancelled() {
                    self.save_checkpoint()?;
                }
                return Err(error);
            }
            let lr = self.schedule.at(self.progress.step);
            let report = self.learner.step(&x, lr);
            self.check_loss(&report)?;
            self.progress = Progress {
                step: self.progress.step + 1,
                cursor: self.buffer.cursor(),
                loss: report.loss,
                fvu: report.fvu,
            };
            self.report(&report, lr)?;
            if self.progress.step.is_multiple_of(self.resolved.config.checkpoint_every) {
                self.save_checkpoint()?;
            }
        }
        self.save_checkpoint()?;
        self.monitor.finish();
        Ok(self.progress.fvu)
    }

    fn check_loss(&self, report: &StepReport) -> Result<()> {
        if report.loss.is_finite() && report.fvu < DIVERGED_FVU {
            return Ok(());
        }
        Err(Error::Diverged {
            step: self.progress.step + 1,
            loss: report.loss,
            before: self.progress.loss,
            suggested_lr: self.resolved.config.lr / 4.0,
            path: self.out.to_path_buf(),
        })
    }

    fn report(&mut self, report: &StepReport, lr: f64) -> Result<()> {
        let batch = self.resolved.config.batch as u64;
        self.monitor.advance(batch);
        let step = self.progress.step;
        if !step.is_multiple_of(self.resolved.config.log_every) && step != self.resolved.n_steps {
            return Ok(());
        }
        let StepReport { loss, fvu, l0, aux_loss, dead } = *report;
        self.monitor.note(&format!("fvu {fvu:.3}, l0 {l0:.1}, dead {dead}"));
        self.log.write(&MetricsLine { step, tokens: step * batch, loss, fvu, l0, aux_loss, dead, lr })
    }

    fn save_checkpoint(&self) -> Result<()> {
        self.log.sync()?;
        checkpoint::save(self.out, &self.learner, self.progress)
    }

    /// Turns the learner into the SAE that is saved.
    fn finish(
        mut self,
        mut manifest: SaeManifest,
        last_fvu: f64,
        dataset: &ActivationDataset,
        held_out: &Activations<'_>,
    ) -> Result<SaeManifest> {
        let dead = self.learner.dead_latents.count();
        // The batches after the last one trained on: the same ones whether or not the run was interrupted.
        let sample_rows = CALIBRATION_TOKENS.min(self.training_rows) as usize;
        let mut sample = vec![0.0; sample_rows * self.resolved.d_in];
        self.buffer.next_batch(1.0, &mut sample)?;
        let mut sae = self.export(dataset);
        let acts = match self.resolved.config.architecture {
            TrainArchitecture::TopK => sae.encode(&sample)?,
            TrainArchitecture::BatchTopK => calibrate(&mut sae, &sample, self.resolved.config.k)?,
        };
        let mut on_sample = ReconstructionMetrics::new(sae.d_in(), sae.d_sae());
        on_sample.add(&sample, &sae.decode(&acts), &acts);
        sae.save(self.out)?;
        saelens::save_sparsity(&on_sample.feature_density(), self.out)?;
        manifest.results = Some(TrainResults {
            weights_sha256: harvester::sha256_file(&self.out.join(saelens::WEIGHTS_FILE))?,
            steps: self.progress.step,
            tokens: self.progress.step * self.resolved.config.batch as u64,
            last_fvu,
            dead,
            held_out: score(&sae, held_out, self.monitor)?,
        });
        manifest.complete = true;
        manifest.write(self.out)?;
        Ok(manifest)
    }

    /// The weights for raw activations. Selection and decoder are homogeneous, so dividing the biases by the scale
    /// divides activations by it and leaves decoder rows at norm 1: an activation is a length in the residual stream.
    ///
    /// ```text
    /// s x ~ f(s x) W_dec + b_dec     =>     x ~ (f(s x) / s) W_dec + b_dec / s
    /// f(s x) / s = select(relu((x - b_dec / s) W_enc^T + b_enc / s))
    /// ```
    fn export(&self, dataset: &ActivationDataset) -> Sae {
        let parent = dataset.manifest();
        let (architecture, k) = match self.resolved.config.architecture {
            TrainArchitecture::TopK => (Architecture::TopK, Some(self.resolved.config.k)),
            TrainArchitecture::BatchTopK => (Architecture::JumpRelu, None),
        };
        let weights = self.learner.weights.clone();
        let unscaled = |bias: Vec<f32>| bias.iter().map(|b| b / self.scale).collect();
        Sae {
            config: SaeConfig {
                k,
                hook_point: Some(self.resolved.hook_point),
                model_name: parent.model.source.clone(),
                ctx_len: Some(parent.config.ctx_len),
                prepend_bos: parent.config.bos.id().is_some(),
                dataset: parent.corpus.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", "),
                ..SaeConfig::new(architecture, weights.d_in, weights.d_sae)
            },
            w_enc: weights.w_enc,
            b_enc: unscaled(weights.b_enc),
            w_dec: weights.w_dec,
            b_dec: unscaled(weights.b_dec),
            threshold: None,
            gate: None,
            w_skip: None,
        }
    }
}

fn check_size(dataset: &ActivationDataset, training: &Activations<'_>, batch: usize) -> Result<()> {
    let n = training.n_rows_at_most();
    if n >= batch as u64 {
        return Ok(());
    }
    let hint = "Harvest more tokens, or train with a smaller --batch";
    let expected = format!("at least a batch, {batch} rows, to train on");
    Err(Error::malformed(dataset.dir(), expected, n.to_string(), hint))
}

/// The scale after which dimensions have variance 1 on average, and the mean in that scale, where `b_dec` starts: a
/// mean that the latents must explain away is what kills most of them (arXiv 2605.31518).
fn standardise(dataset: &ActivationDataset, resolved: &Resolved) -> Result<(f32, Vec<f32>)> {
    let summary = dataset.manifest().hook_point(resolved.hook_point)?;
    let variance: f64 = summary.std.iter().map(|&std| f64::from(std).powi(2)).sum();
    let scale = (resolved.d_in as f64 / variance).sqrt() as f32;
    if !scale.is_finite() || scale <= 0.0 {
        let found = format!("a variance of {variance} at {}", resolved.hook_point);
        let hint = "Harvest another hook point, or more text";
        return Err(Error::malformed(dataset.dir(), "activations that vary", found, hint));
    }
    Ok((scale, summary.mean.iter().map(|mean| scale * mean).collect()))
}

/// The SAE on held-out rows; `None` where there are none.
fn score(sae: &Sae, held_out: &Activations<'_>, monitor: &dyn Monitor) -> Result<Option<Reconstruction>> {
    let mut metrics = ReconstructionMetrics::new(sae.d_in(), sae.d_sae());
    let groups = held_out.group_sizes().len();
    monitor.start("score held-out contexts", groups as u64, "row groups");
    for group in 0..groups {
        let x = held_out.read(group)?.to_f32();
        let acts = sae.encode(&x)?;
        metrics.add(&x, &sae.decode(&acts), &acts);
        monitor.advance(1);
        if metrics.n_tokens() >= HELD_OUT_TOKENS {
            break;
        }
    }
    monitor.finish();
    Ok(metrics.finish())
}
