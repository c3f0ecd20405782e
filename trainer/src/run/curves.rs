//! [`Curves`]: `curves.html`, a page that shows a run during and after training. It is one file that needs no network.
//! Unlike the log it is made for looking at: points are thinned out, and the speed is shown while the run is in
//! progress.
//!
//! The page of a finished run contains no wall-clock times: like every other file of the folder, it is the same byte
//! for byte whether or not the run was interrupted. This does not hold for the page of an unfinished run.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use harvester::write_atomically;
use serde_json::{Value, json};

use crate::{Error, MetricsLine, Result, SaeManifest, run::page::fill};

/// Name of the page in an SAE's folder.
pub const CURVES_FILE: &str = "curves.html";

const TEMPLATE: &str = include_str!("curves/curves.html");
/// Shortest time between two writes of the page; the page also reloads itself at this interval.
const INTERVAL: Duration = Duration::from_secs(5);
/// Largest number of points of one curve.
const MOST_POINTS: usize = 2_000;
/// Digits that are kept of a value: more than a screen can show.
const DIGITS: usize = 5;

/// The page of a run in progress.
#[derive(Debug)]
pub(crate) struct Curves {
    path: PathBuf,
    manifest: SaeManifest,
    began: Instant,
    /// Tokens already trained on when this process began.
    tokens_before: Option<u64>,
    written: Option<Instant>,
}

/// State of the run, as shown on the page.
#[derive(Debug, Clone, Copy)]
enum State<'a> {
    /// In progress, at this many tokens per second.
    Training(Option<f64>),
    /// Stopped by the user.
    Stopped(&'a str),
    /// Ended by an error.
    Failed(&'a str),
    Finished,
}

impl Curves {
    /// The page of the run in `dir`, whose manifest is `manifest`.
    pub(crate) fn new(dir: &Path, manifest: SaeManifest) -> Self {
        Self { path: dir.join(CURVES_FILE), manifest, began: Instant::now(), tokens_before: None, written: None }
    }

    /// Writes the page again, unless the last write was less than [`INTERVAL`] ago.
    pub(crate) fn refresh(&mut self, lines: &[MetricsLine]) -> Result<()> {
        let tokens = lines.last().map_or(0, |line| line.tokens);
        let before = *self.tokens_before.get_or_insert(tokens);
        if self.written.is_some_and(|written| written.elapsed() < INTERVAL) {
            return Ok(());
        }
        let rate = (tokens - before) as f64 / self.began.elapsed().as_secs_f64();
        self.write(State::Training((rate > 0.0).then_some(rate)), lines)?;
        self.written = Some(Instant::now());
        Ok(())
    }

    /// Writes the page of a run that was stopped by `error`. An error of writing the page is ignored, so that it does
    /// not hide `error`.
    pub(crate) fn stop(&self, lines: &[MetricsLine], error: &Error) {
        let text = error.said_in(self.path.parent().unwrap_or(&self.path));
        let cancelled = matches!(error, Error::Harvester(harvester::Error::Cancelled { .. }));
        let state = if cancelled { State::Stopped(&text) } else { State::Failed(&text) };
        let _ = self.write(state, lines);
    }

    /// Writes the final page; `manifest` has the results.
    pub(crate) fn finish(&mut self, manifest: &SaeManifest, lines: &[MetricsLine]) -> Result<()> {
        self.manifest.clone_from(manifest);
        self.write(State::Finished, lines)
    }

    fn write(&self, state: State<'_>, lines: &[MetricsLine]) -> Result<()> {
        Ok(write_atomically(&self.path, page(&self.manifest, state, lines).as_bytes())?)
    }
}

/// The whole page.
fn page(manifest: &SaeManifest, state: State<'_>, lines: &[MetricsLine]) -> String {
    let (name, note, rate) = match state {
        State::Training(rate) => ("training", "", rate),
        State::Stopped(note) => ("stopped", note, None),
        State::Failed(note) => ("failed", note, None),
        State::Finished => ("finished", "", None),
    };
    let data = json!({
        "state": name,
        "note": note,
        "tokens_per_second": rate.map(f64::round),
        "interval_s": INTERVAL.as_secs(),
        "manifest": shown(manifest),
        "last": lines.last(),
        "tokens": manifest.config.trained_tokens(),
        "curves": curves(lines),
    });
    fill(TEMPLATE, &data, (name == "training").then_some(INTERVAL.as_secs()))
}

/// The part of the manifest that the page shows. Hashes are left out.
fn shown(manifest: &SaeManifest) -> Value {
    let SaeManifest { refract_version, activations, model, d_in, d_sae, config, results, .. } = manifest;
    let points: Vec<_> = config.named_hook_points().iter().map(ToString::to_string).collect();
    let column = || manifest.vectors.as_ref().map(|vectors| vectors.column.clone()).unwrap_or_default();
    json!({
        "refract_version": refract_version,
        "activations": activations.to_string(),
        "source": model.as_ref().map_or("vectors (no model)", |model| model.source.as_str()),
        "trained_on": if points.is_empty() { column() } else { points.join(", ") },
        "d_in": d_in,
        "d_sae": d_sae,
        "config": config,
        "results": results,
    })
}

/// A column of the log: its name, and its value in a line that has one.
type Number = (&'static str, fn(&MetricsLine) -> Option<f64>);

/// Every column of the log as `[tokens, values]`. Columns that are always 0 are left out, except `dead`. The auxiliary
/// loss has no value while no latent is dead: its 0 would look like a start from which it rises.
fn curves(lines: &[MetricsLine]) -> Value {
    let numbers: [Number; 10] = [
        ("fvu", |line| Some(line.fvu)),
        ("held_out_fvu", |line| line.held_out_fvu),
        ("loss", |line| Some(line.loss)),
        ("l0", |line| Some(line.l0)),
        ("dead", |line| Some(line.dead as f64)),
        ("sparsity_loss", |line| Some(line.sparsity_loss)),
        ("sparsity_coefficient", |line| Some(line.sparsity_coefficient)),
        ("aux_loss", |line| Some(line.aux_loss).filter(|loss| *loss != 0.0)),
        ("grad_norm", |line| Some(line.grad_norm)),
        ("lr", |line| Some(line.lr)),
    ];
    let shown = numbers.into_iter().filter_map(|(name, of)| {
        let (at, values): (Vec<u64>, Vec<f64>) = lines.iter().filter_map(|line| Some((line.tokens, of(line)?))).unzip();
        let kept = thinned(&values);
        let tokens: Vec<u64> = kept.iter().map(|&place| at[place]).collect();
        let points: Vec<f64> = kept.iter().map(|&place| rounded(values[place])).collect();
        let matters = name == "dead" || values.iter().any(|&value| value != 0.0);
        matters.then(|| (name.to_string(), json!([tokens, points])))
    });
    Value::Object(shown.collect())
}

/// Indices of the values to draw: both ends and, if there are too many values, the lowest and the highest of each
/// interval, so that no spike is lost.
fn thinned(values: &[f64]) -> Vec<usize> {
    if values.len() <= MOST_POINTS {
        return (0..values.len()).collect();
    }
    let width = values.len().div_ceil(MOST_POINTS / 2 - 1);
    let mut kept = vec![0];
    for (stretch, start) in values.chunks(width).zip((0..).step_by(width)) {
        let by_value = |(_, a): &(usize, &f64), (_, b): &(usize, &f64)| a.total_cmp(b);
        let lowest = stretch.iter().enumerate().min_by(by_value).map_or(0, |(place, _)| place);
        let highest = stretch.iter().enumerate().max_by(by_value).map_or(0, |(place, _)| place);
        kept.extend([start + lowest.min(highest), start + lowest.max(highest)]);
    }
    kept.push(values.len() - 1);
    kept.dedup();
    kept
}

/// The number rounded to [`DIGITS`] digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.*e}", DIGITS - 1).parse().unwrap_or(value)
}

#[cfg(test)]
mod tests;
