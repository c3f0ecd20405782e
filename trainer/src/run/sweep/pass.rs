//! [`run_pass`]: trains several runs in one pass over the same rows. Each batch is read once, and every run takes its
//! step on it. It is the loop of `train` for several runs.
//!
//! ```text
//! begin with the run that has done the fewest steps;  batch of step s -> every run that has done s steps
//! ```
//!
//! After a kill, the runs may be one checkpoint apart. A run that is ahead skips batches until it is its turn.

use harvester::{Monitor, OutputFolder};

use super::{plan::SweepPlan, table::Table};
use crate::{
    Error, Result,
    data::{
        activation_source::ActivationSource, rows::RowSource, shard_source::ShardSource, shuffle_buffer::ShuffleBuffer,
        standardize::Standard, training_data::Split,
    },
    manifest::SaeManifest,
    run::{
        Run, next_batch, sample,
        score::curve_rows,
        train::{resolve, split},
    },
};

/// A run and its index in the plan.
struct Member<'a> {
    index: usize,
    manifest: SaeManifest,
    run: Run<'a>,
}

/// The runs of a pass that have not ended.
struct Pass<'a, 'b> {
    plan: &'a SweepPlan<'a>,
    members: Vec<Member<'a>>,
    table: &'b mut Table,
    monitor: &'a dyn Monitor,
    batch: usize,
    n_steps: u64,
    /// Values of each column of a row.
    widths: Vec<usize>,
}

/// Refuses folders of the runs `indices` of `plan` that contain other runs, and runs that do not fit in memory. Returns
/// those that have not ended. Does not change anything.
pub(super) fn check_pass(plan: &SweepPlan<'_>, indices: &[usize], table: &Table) -> Result<Vec<usize>> {
    let config = &plan.runs()[indices[0]].resolved.config;
    let data = plan.data.of(config)?;
    let split = split(data.as_ref(), config)?;
    let mut left = vec![];
    for &index in indices {
        let (run, out) = (&plan.runs()[index], table.dir(index));
        let wanted = SaeManifest::begin(data.as_ref(), &run.resolved, split.held_out_contexts.clone(), &out)?;
        let found = OutputFolder::at(out.as_path())?.find_run(&wanted)?;
        let has_finished = found.map_or(Ok(false), |manifest| manifest.is_finished(&out))?;
        if !has_finished && !table.has_diverged(index) {
            run.resolved.check_sizes(plan.buffer_bytes(run))?;
            left.push(index);
        }
    }
    Ok(left)
}

/// Trains the runs `indices` of `plan` together, except those that are done. They have the same hook points in the same
/// roles.
pub(super) fn run_pass(
    plan: &SweepPlan<'_>,
    indices: &[usize],
    table: &mut Table,
    monitor: &dyn Monitor,
) -> Result<()> {
    let config = &plan.runs()[indices[0]].resolved.config;
    let data = plan.data.of(config)?;
    let split = split(data.as_ref(), config)?;
    let training = split.training.as_ref();
    let n_steps = config.n_steps();
    let widths = training.widths().to_vec();
    let mut pass = Pass { plan, members: vec![], table, monitor, batch: config.batch, n_steps, widths };
    let held_out = curve_rows(split.held_out.as_ref(), config.batch, &Standard::of(data.as_ref())?.scales)?;
    let mut taken = vec![];
    for &index in indices {
        let out = pass.table.dir(index);
        if pass.table.has_diverged(index) {
            pass.skip(0);
            continue;
        }
        let resolved = resolve(&plan.runs()[index].config, data.as_ref())?;
        let folder = OutputFolder::open(out.as_path())?;
        let wanted = SaeManifest::begin(data.as_ref(), &resolved, split.held_out_contexts.clone(), &out)?;
        let manifest = folder.begin(wanted)?;
        taken.push(folder);
        if manifest.is_finished(&out)? {
            pass.skip(0);
            pass.table.finished(index, &manifest)?;
            continue;
        }
        let run = Run::open(data.as_ref(), &manifest, resolved, held_out.clone(), &out, monitor)?;
        pass.add(Member { index, manifest, run })?;
    }
    pass.complete(&split, ShardSource::new(training, config.seed, config.buffer_bytes), config.seed)
}

impl<'a> Pass<'a, '_> {
    /// Advances the progress bar by the steps of a run that are not taken: all after the first `done`.
    fn skip(&self, done: u64) {
        self.monitor.skip((self.n_steps - done) * self.batch as u64);
    }

    fn add(&mut self, mut member: Member<'a>) -> Result<()> {
        self.monitor.skip(member.run.progress().step * self.batch as u64);
        member.run.show()?;
        self.members.push(member);
        Ok(())
    }

    /// Runs everything that is left to do.
    fn complete(mut self, split: &Split<'_>, source: impl ActivationSource, seed: u64) -> Result<()> {
        let progress = self.members.iter().map(|member| member.run.progress());
        let Some(first) = progress.min_by_key(|progress| progress.step) else { return Ok(()) };
        let mut buffer = ShuffleBuffer::new(source, seed, first.cursor);
        let ended = self.fit_and_finish(split, &mut buffer, first.step);
        if let Err(error) = &ended {
            self.members.iter_mut().for_each(|member| member.run.show_end(&member.manifest, error));
        }
        ended
    }

    fn fit_and_finish(
        &mut self,
        split: &Split<'_>,
        buffer: &mut ShuffleBuffer<impl ActivationSource>,
        first: u64,
    ) -> Result<()> {
        self.fit(buffer, first)?;
        if self.members.is_empty() {
            return Ok(());
        }
        let sample = sample(buffer, &self.widths, split.training.n_rows_at_most())?;
        self.finish(split.held_out.as_ref(), &sample)
    }

    /// Runs all steps that are left, starting at `first`.
    fn fit(&mut self, buffer: &mut ShuffleBuffer<impl ActivationSource>, first: u64) -> Result<()> {
        let mut x = vec![0.0; self.batch * self.widths.iter().sum::<usize>()];
        for step in first..self.n_steps {
            // Runs with the same columns have the same scales.
            let Some(member) = self.members.first() else { return Ok(()) };
            if !next_batch(buffer, member.run.scales(), &mut x, self.monitor)? {
                return self.stop();
            }
            let cursor = buffer.cursor();
            self.each(|run| if run.progress().step == step { run.step(&x, cursor).map(drop) } else { Ok(()) })?;
            self.note();
        }
        self.each(Run::save_checkpoint)
    }

    /// Saves the state of every run because the user asked to stop.
    fn stop(&mut self) -> Result<()> {
        self.each(Run::save_checkpoint)?;
        Err(harvester::Error::Cancelled { place: self.table.out().display().to_string() }.into())
    }

    /// Does `work` with every run. A run that diverges is recorded and removed; any other error stops all runs.
    fn each(&mut self, mut work: impl FnMut(&mut Run<'a>) -> Result<()>) -> Result<()> {
        let mut left = vec![];
        let mut members = std::mem::take(&mut self.members).into_iter();
        for mut member in members.by_ref() {
            let done = match work(&mut member.run) {
                Err(error @ Error::Diverged { .. }) => {
                    member.run.show_end(&member.manifest, &error);
                    self.skip(member.run.progress().step);
                    self.table.diverged(member.index, member.run.progress().step * self.batch as u64, &error)
                }
                done => {
                    left.push(member);
                    done
                }
            };
            if done.is_err() {
                self.members = left.into_iter().chain(members).collect();
                return done;
            }
        }
        self.members = left;
        Ok(())
    }

    /// Reports the FVU of the best run.
    fn note(&self) {
        let logged = self.members.iter().filter(|member| member.run.is_logged());
        let best = logged.min_by(|a, b| a.run.progress().fvu.total_cmp(&b.run.progress().fvu));
        if let Some(best) = best {
            let name = &self.plan.runs()[best.index].name;
            self.monitor.note(&format!("{} runs, best fvu {:.3}: {name}", self.members.len(), best.run.progress().fvu));
        }
    }

    /// Turns every learner into its SAE. A finished run is removed.
    fn finish(&mut self, held_out: &dyn RowSource, sample: &[f32]) -> Result<()> {
        while let Some(Member { index, manifest, run }) = self.members.first_mut() {
            let manifest = run.finish(manifest.clone(), held_out, sample)?;
            self.table.finished(*index, &manifest)?;
            self.members.remove(0);
        }
        Ok(())
    }
}
