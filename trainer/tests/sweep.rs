//! Sweeps on activations whose features are known: each run is the single run, to the bit.
#![expect(clippy::unwrap_used, reason = "tests")]

mod folder;
mod synthetic;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use folder::files;
use harvester::{ActivationDataset, HookPoint, Monitor, Silent};
use synthetic::{CTX_LEN, Dictionary, EARLIER};
use trainer::{PARETO_FILE, RunState, SWEEP_FILE, SweepData, SweepPlan, SweepRow, TrainArchitecture, TrainConfig};

const SMALL: Dictionary = Dictionary { d_in: 16, n_features: 24, active: 2.0, noise: 0.02 };
const TOKENS: u64 = 30 * 512;

/// 30 steps, about three passes over the data, in several blocks an epoch.
fn config(architecture: TrainArchitecture, k: usize) -> TrainConfig {
    TrainConfig {
        architecture,
        hook_point: Some(HookPoint::resid_post(1)),
        d_sae: Some(32),
        k,
        tokens: TOKENS,
        batch: 512,
        dead_after_tokens: 2000,
        buffer_bytes: 2 * 16 * 8 * CTX_LEN as u64 * 16 * 4,
        checkpoint_every: 7,
        log_every: 4,
        ..TrainConfig::default()
    }
}

fn grid() -> Vec<TrainConfig> {
    let of = |architecture| [3, 5].map(|k| config(architecture, k));
    [of(TrainArchitecture::TopK), of(TrainArchitecture::BatchTopK)].concat()
}

fn dataset() -> (tempfile::TempDir, ActivationDataset) {
    let dir = tempfile::tempdir().unwrap();
    SMALL.write_two(dir.path(), 200);
    let dataset = ActivationDataset::open(dir.path()).unwrap();
    (dir, dataset)
}

fn sweep(
    dataset: &ActivationDataset,
    configs: Vec<TrainConfig>,
    at_once: Option<usize>,
    out: &Path,
    monitor: &dyn Monitor,
) -> trainer::Result<Vec<SweepRow>> {
    trainer::sweep(&SweepPlan::new(SweepData::Harvested(dataset), configs, at_once)?, out, monitor)
}

fn assert_same(found: &Path, expected: &Path) {
    let (found, expected) = (files(found), files(expected));
    assert!(found.keys().eq(expected.keys()), "{:?}\n{:?}", found.keys(), expected.keys());
    let differ: Vec<_> =
        found.iter().filter(|(path, bytes)| expected[*path] != **bytes).map(|(path, _)| path).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// Every run of the sweep in `out` is what `train` writes.
fn assert_single_runs(dataset: &ActivationDataset, configs: &[TrainConfig], names: &[&str], out: &Path) {
    for (config, name) in configs.iter().zip(names) {
        let single = tempfile::tempdir().unwrap();
        trainer::train(dataset, config, single.path(), &Silent).unwrap();
        assert_same(&out.join(name), single.path());
    }
}

/// Stops a sweep after so many tokens of all runs: as Ctrl-C does, or as SIGKILL does.
struct StopAt {
    tokens: u64,
    kill: bool,
    seen: AtomicU64,
}

impl Monitor for StopAt {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, n: u64) {
        let seen = self.seen.fetch_add(n, Ordering::Relaxed) + n;
        assert!(!self.kill || seen < self.tokens, "killed");
    }
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        !self.kill && self.seen.load(Ordering::Relaxed) >= self.tokens
    }
}

const NAMES: [&str; 4] = ["topk-k3-d32", "topk-k5-d32", "batch-topk-k3-d32", "batch-topk-k5-d32"];

#[test]
fn each_run_of_a_sweep_is_the_single_run_to_the_bit() {
    let (_dir, dataset) = dataset();
    let out = tempfile::tempdir().unwrap();
    let rows = sweep(&dataset, grid(), None, out.path(), &Silent).unwrap();
    assert_single_runs(&dataset, &grid(), &NAMES, out.path());

    assert!(rows.iter().all(|row| row.state == RunState::Finished && row.tokens == Some(TOKENS)));
    assert!(rows.is_sorted_by_key(|row| row.l0.unwrap()), "{rows:?}");
    assert!(rows.iter().any(|row| row.pareto) && out.path().join("sweep.parquet").is_file());
    let page = fs::read_to_string(out.path().join(PARETO_FILE)).unwrap();
    assert!(NAMES.iter().all(|name| page.contains(name)));
    let passes = tempfile::tempdir().unwrap();
    sweep(&dataset, grid(), Some(3), passes.path(), &Silent).unwrap();
    assert_same(passes.path(), out.path());
}

#[test]
fn runs_at_several_places_and_of_several_seeds_are_the_single_runs_too() {
    let (_dir, dataset) = dataset();
    let later = config(TrainArchitecture::JumpRelu, 3);
    let earlier = TrainConfig { hook_point: Some(EARLIER), ..later.clone() };
    let both = TrainConfig {
        architecture: TrainArchitecture::Crosscoder,
        hook_point: None,
        hook_points: vec![EARLIER, HookPoint::resid_post(1)],
        ..later.clone()
    };
    // The same columns in other roles.
    let from_one = TrainConfig {
        architecture: TrainArchitecture::Transcoder,
        hook_point: Some(EARLIER),
        target_hook_point: Some(HookPoint::resid_post(1)),
        ..later.clone()
    };
    let other_seed = TrainConfig { seed: 1, ..later.clone() };
    let configs = vec![later, earlier, from_one, both, other_seed];
    let names = [
        "blocks.1.hook_resid_post-jumprelu-k3-d32-seed-0",
        "hook_embed-jumprelu-k3-d32-seed-0",
        "hook_embed+blocks.1.hook_resid_post-transcoder-k3-d32-seed-0",
        "hook_embed+blocks.1.hook_resid_post-crosscoder-k3-d32-seed-0",
        "blocks.1.hook_resid_post-jumprelu-k3-d32-seed-1",
    ];
    let out = tempfile::tempdir().unwrap();
    let rows = sweep(&dataset, configs.clone(), None, out.path(), &Silent).unwrap();
    assert_single_runs(&dataset, &configs, &names, out.path());
    let places: Vec<_> = rows.iter().map(|row| row.hook_point.as_str()).collect();
    assert!(places.is_sorted() && places.len() == 5, "{places:?}");
    let pairs = ["hook_embed, blocks.1.hook_resid_post", "hook_embed -> blocks.1.hook_resid_post"];
    for row in rows.iter().filter(|row| pairs.contains(&row.hook_point.as_str())) {
        assert!(row.pareto, "what is rebuilt differs, so that neither beats the other: {row:?}");
    }
    assert!(pairs.iter().all(|pair| places.contains(pair)), "{places:?}");
}

#[test]
fn a_sweep_stopped_before_its_first_step_is_the_single_run_too() {
    let (_dir, dataset) = dataset();
    // Both fit their weights to the first batch.
    let configs = [TrainArchitecture::JumpRelu, TrainArchitecture::Relu].map(|architecture| config(architecture, 3));
    let out = tempfile::tempdir().unwrap();
    let at_once = StopAt { tokens: 0, kill: false, seen: AtomicU64::new(0) };
    let message = sweep(&dataset, configs.to_vec(), None, out.path(), &at_once).unwrap_err().to_string();
    assert!(message.contains("stopped"), "{message}");
    sweep(&dataset, configs.to_vec(), None, out.path(), &Silent).unwrap();
    assert_single_runs(&dataset, &configs, &["jumprelu-k3-d32", "relu-k3-d32"], out.path());
}

#[test]
fn a_sweep_that_is_killed_ends_in_the_same_bytes() {
    let (_dir, dataset) = dataset();
    let whole = tempfile::tempdir().unwrap();
    sweep(&dataset, grid(), None, whole.path(), &Silent).unwrap();
    let interrupted = tempfile::tempdir().unwrap();
    // The middle of a step: 7, whose checkpoint two of four runs have by then; then 12, 14, 29 and 30.
    for (steps, runs, kill) in [(6, 3, true), (12, 0, false), (13, 2, true), (29, 1, true), (29, 3, true)] {
        let monitor = StopAt { tokens: (steps * 4 + runs) * 512, kill, seen: AtomicU64::new(0) };
        let swept = catch_unwind(AssertUnwindSafe(|| sweep(&dataset, grid(), None, interrupted.path(), &monitor)));
        match swept {
            Ok(result) => assert!(result.unwrap_err().to_string().contains("stopped"), "step {steps}"),
            Err(_) => assert!(kill, "step {steps}"),
        }
    }
    let rows = sweep(&dataset, grid(), Some(2), interrupted.path(), &Silent).unwrap();
    assert_same(interrupted.path(), whole.path());
    let again = sweep(&dataset, grid(), None, interrupted.path(), &Silent).unwrap();
    assert_eq!(again, rows);
    assert_same(interrupted.path(), whole.path());
}

#[test]
fn a_run_that_diverges_is_reported_and_stops_no_other() {
    let (_dir, dataset) = dataset();
    let good = TrainConfig { lr: Some(3e-3), warmup: 0.0, clip: None, ..config(TrainArchitecture::TopK, 16) };
    let bad = TrainConfig { lr: Some(1.0), ..good.clone() };
    let out = tempfile::tempdir().unwrap();
    let swept = || sweep(&dataset, vec![bad.clone(), good.clone()], None, out.path(), &Silent).unwrap();
    let rows = swept();
    let [finished, diverged] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((finished.state, diverged.state), (RunState::Finished, RunState::Diverged));
    assert!(finished.pareto && !diverged.pareto && diverged.fvu.is_none());
    let note = diverged.note.as_ref().unwrap();
    assert!(note.contains("diverged at step") && note.contains("--lr (0.25)"), "{note}");
    assert_eq!((finished.name.as_str(), diverged.name.as_str()), ("topk-k16-d32-lr-0.003", "topk-k16-d32-lr-1.0"));
    assert_single_runs(&dataset, std::slice::from_ref(&good), &["topk-k16-d32-lr-0.003"], out.path());
    let before = files(out.path());
    assert_eq!(swept(), rows);
    assert!(files(out.path()) == before, "neither is begun again");
    fs::remove_dir_all(out.path().join(&diverged.name)).unwrap();
    swept();
    assert!(out.path().join(&diverged.name).join("metrics.jsonl").exists(), "without its folder it is tried again");
}

#[test]
fn what_cannot_be_swept_is_refused_before_anything_is_written() {
    let (_dir, dataset) = dataset();
    let out = tempfile::tempdir().unwrap();
    let refused =
        |configs, at_once, out: &Path| sweep(&dataset, configs, at_once, out, &Silent).unwrap_err().to_string();
    let sweep_in = out.path().join("sweep");
    let good = config(TrainArchitecture::TopK, 3);
    let wide = TrainConfig { k: 33, ..good.clone() };
    assert!(refused(vec![good.clone(), wide], None, &sweep_in).contains("--k: expected 1 to d_sae, 32, found 33"));
    assert!(refused(vec![good.clone(), good.clone()], None, &sweep_in).contains("topk-k3-d32 twice"));
    assert!(refused(vec![], None, &sweep_in).contains("runs of the sweep: expected 1 or more"));
    let few = refused(vec![good.clone(), TrainConfig { batch: 7000, ..good.clone() }], None, &sweep_in);
    assert!(few.contains("at least a batch, 7000 rows, to train on, found 5890"), "{few}");
    let all_held_out = TrainConfig { held_out_fraction: 0.9, batch: 1000, ..good.clone() };
    assert!(refused(vec![good.clone(), all_held_out], None, &sweep_in).contains("rows, to train on, found 620"));
    assert!(refused(vec![good.clone()], Some(0), &sweep_in).contains("--at-once: expected 1 or more"));
    assert!(!sweep_in.exists());
    fs::write(out.path().join("thesis.tex"), "").unwrap();
    let foreign = refused(vec![good.clone()], None, out.path());
    assert!(foreign.contains("thesis.tex") && foreign.contains("another --out"), "{foreign}");
    fs::write(out.path().join(SWEEP_FILE), "{").unwrap();
    let damaged = refused(vec![good], None, out.path());
    assert!(damaged.contains(SWEEP_FILE) && damaged.contains("Remove this file"), "{damaged}");
}
