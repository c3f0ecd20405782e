//! Sweeps on activations with known features: each run is bit-identical to the single run.
#![expect(clippy::unwrap_used, reason = "tests")]

mod folder;
mod stop_at;
mod synthetic;

use std::{
    fs::{self, File},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Float64Type, UInt64Type},
};
use folder::{assert_same, files};
use harvester::{ActivationDataset, Monitor, Silent};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;
use stop_at::{Stop, StopAt};
use synthetic::{EARLIER, LATER, dataset_of_two, small_config};
use trainer::{PARETO_FILE, RunState, SWEEP_FILE, SweepPlan, SweepRow, TrainArchitecture, TrainConfig, TrainData};

const TOKENS: u64 = 30 * 512;

fn config(architecture: TrainArchitecture, k: usize) -> TrainConfig {
    TrainConfig { hook_points: vec![LATER], k, tokens: TOKENS, ..small_config(architecture) }
}

fn grid() -> Vec<TrainConfig> {
    let of = |architecture| [3, 5].map(|k| config(architecture, k));
    [of(TrainArchitecture::TopK), of(TrainArchitecture::BatchTopK)].concat()
}

fn sweep(
    dataset: &ActivationDataset,
    configs: Vec<TrainConfig>,
    at_once: Option<usize>,
    out: &Path,
    monitor: &dyn Monitor,
) -> trainer::Result<Vec<SweepRow>> {
    trainer::sweep(&SweepPlan::new(TrainData::Harvested(dataset), configs, at_once)?, out, monitor)
}

/// Checks that every run of the sweep in `out` equals the files that `train` writes.
fn assert_single_runs(dataset: &ActivationDataset, configs: &[TrainConfig], names: &[&str], out: &Path) {
    for (config, name) in configs.iter().zip(names) {
        // As deep as a sweep's: the manifest has the path from there to the activations.
        let single = tempfile::tempdir().unwrap();
        trainer::train(dataset, config, &single.path().join(name), &Silent).unwrap();
        assert_same(&files(&out.join(name)), &files(&single.path().join(name)), name);
    }
}

/// Checks that `sweep.parquet` equals the rows, except for notes and settings.
fn assert_table(out: &Path, rows: &[SweepRow]) {
    let file = File::open(out.join("sweep.parquet")).unwrap();
    let batches: Vec<_> =
        ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect();
    let [batch] = &batches[..] else { panic!("{} batches", batches.len()) };
    assert_eq!(batch.num_rows(), rows.len());
    for (i, row) in rows.iter().enumerate() {
        let Value::Object(expected) = serde_json::to_value(row).unwrap() else { panic!("{row:?}") };
        let columns = batch.schema_ref().fields().iter().zip(batch.columns());
        let found: serde_json::Map<_, _> =
            columns.map(|(field, column)| (field.name().clone(), cell(column, i))).collect();
        let left_out = ["note", "config"];
        let expected = expected.into_iter().filter(|(name, _)| !left_out.contains(&name.as_str())).collect();
        assert_eq!(found, expected);
    }
}

fn cell(column: &dyn Array, i: usize) -> Value {
    match column.data_type() {
        _ if column.is_null(i) => Value::Null,
        DataType::Utf8 => column.as_string::<i32>().value(i).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(i).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(i).into(),
        DataType::Boolean => column.as_boolean().value(i).into(),
        other => panic!("a column of {other}"),
    }
}

#[test]
fn another_plan_does_not_replace_the_table() {
    let (_dir, dataset) = dataset_of_two(200);
    let out = tempfile::tempdir().unwrap();
    let of = |k| config(TrainArchitecture::TopK, k);
    let swept = |configs| sweep(&dataset, configs, None, out.path(), &Silent).map_err(|error| error.to_string());
    swept(vec![of(3), of(5)]).unwrap();
    let before = files(out.path());
    let fewer = swept(vec![of(3)]).unwrap_err();
    assert!(fewer.contains("topk-k5-d32: a run there, none here") && fewer.contains("another `out`"), "{fewer}");
    let longer = swept(vec![of(3), TrainConfig { tokens: 2 * TOKENS, ..of(5) }]).unwrap_err();
    assert!(longer.contains("topk-k3-d32: a run there, none here"), "names say what differs: {longer}");
    let seeds = swept(vec![TrainConfig { seed: 1, ..of(3) }, TrainConfig { seed: 1, ..of(5) }]).unwrap_err();
    assert!(seeds.contains("topk-k3-d32, `seed`: 0 there, 1 here"), "{seeds}");
    assert!(files(out.path()) == before);
    // Settings that do not change the result may differ, and runs may be added.
    swept([3, 5].map(|k| TrainConfig { checkpoint_every: 9, ..of(k) }).into()).unwrap();
    assert_eq!(swept(vec![of(3), of(4), of(5)]).unwrap().len(), 3);
}

const NAMES: [&str; 4] = ["topk-k3-d32", "topk-k5-d32", "batch-topk-k3-d32", "batch-topk-k5-d32"];

#[test]
fn each_run_of_a_sweep_is_the_single_run_to_the_bit() {
    let (_dir, dataset) = dataset_of_two(200);
    let out = tempfile::tempdir().unwrap();
    let rows = sweep(&dataset, grid(), None, out.path(), &Silent).unwrap();
    assert_single_runs(&dataset, &grid(), &NAMES, out.path());

    assert!(rows.iter().all(|row| row.state == RunState::Finished && row.tokens == Some(TOKENS)));
    assert!(rows.is_sorted_by_key(|row| row.l0.unwrap()), "{rows:?}");
    // No run reconstructs better than the best one.
    let best = rows.iter().min_by(|a, b| a.fvu.unwrap().total_cmp(&b.fvu.unwrap())).unwrap();
    assert!(best.pareto);
    assert_table(out.path(), &rows);
    let page = fs::read_to_string(out.path().join(PARETO_FILE)).unwrap();
    assert!(NAMES.iter().all(|name| page.contains(name)));
    let passes = tempfile::tempdir().unwrap();
    sweep(&dataset, grid(), Some(3), passes.path(), &Silent).unwrap();
    assert_same(&files(passes.path()), &files(out.path()), "the sweep");
}

#[test]
fn runs_at_several_places_and_of_several_seeds_are_the_single_runs_too() {
    let (_dir, dataset) = dataset_of_two(200);
    let later = config(TrainArchitecture::JumpRelu, 3);
    let earlier = TrainConfig { hook_points: vec![EARLIER], ..later.clone() };
    let both =
        TrainConfig { architecture: TrainArchitecture::Crosscoder, hook_points: vec![EARLIER, LATER], ..later.clone() };
    // The same hook points in other roles.
    let from_one = TrainConfig {
        architecture: TrainArchitecture::Transcoder,
        hook_points: vec![EARLIER],
        target_hook_point: Some(LATER),
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
        assert!(row.pareto, "the reconstructed activations differ, so neither beats the other: {row:?}");
    }
    assert!(pairs.iter().all(|pair| places.contains(pair)), "{places:?}");
}

#[test]
fn a_sweep_stopped_before_its_first_step_is_the_single_run_too() {
    let (_dir, dataset) = dataset_of_two(200);
    // Both architectures adapt their weights to the first batch.
    let configs = [TrainArchitecture::JumpRelu, TrainArchitecture::Relu].map(|architecture| config(architecture, 3));
    let out = tempfile::tempdir().unwrap();
    let message =
        sweep(&dataset, configs.to_vec(), None, out.path(), &StopAt::new(0, Stop::Cancel)).unwrap_err().to_string();
    assert!(message.contains("stopped"), "{message}");
    sweep(&dataset, configs.to_vec(), None, out.path(), &Silent).unwrap();
    assert_single_runs(&dataset, &configs, &["jumprelu-k3-d32", "relu-k3-d32"], out.path());
}

#[test]
fn a_sweep_that_is_killed_ends_in_the_same_bytes() {
    let (_dir, dataset) = dataset_of_two(200);
    let whole = tempfile::tempdir().unwrap();
    sweep(&dataset, grid(), None, whole.path(), &Silent).unwrap();
    let interrupted = tempfile::tempdir().unwrap();
    // Stops in the middle of steps: of step 7, when two of four runs have saved its checkpoint, then of 12, 14, 29 and
    // 30.
    let stops =
        [(6, 3, Stop::Kill), (12, 0, Stop::Cancel), (13, 2, Stop::Kill), (29, 1, Stop::Kill), (29, 3, Stop::Kill)];
    for (steps, runs, how) in stops {
        let monitor = StopAt::new((steps * 4 + runs) * 512, how);
        let swept = catch_unwind(AssertUnwindSafe(|| sweep(&dataset, grid(), None, interrupted.path(), &monitor)));
        match swept {
            Ok(result) => assert!(result.unwrap_err().to_string().contains("stopped"), "step {steps}"),
            Err(_) => assert!(how == Stop::Kill, "step {steps}"),
        }
    }
    let rows = sweep(&dataset, grid(), Some(2), interrupted.path(), &Silent).unwrap();
    assert_same(&files(interrupted.path()), &files(whole.path()), "the sweep");
    let again = sweep(&dataset, grid(), None, interrupted.path(), &Silent).unwrap();
    assert_eq!(again, rows);
    assert_same(&files(interrupted.path()), &files(whole.path()), "the sweep");
}

#[test]
fn a_run_that_diverges_is_reported_and_stops_no_other() {
    let (_dir, dataset) = dataset_of_two(200);
    let good = TrainConfig { lr: Some(3e-3), warmup: 0.0, clip: None, ..config(TrainArchitecture::TopK, 16) };
    let bad = TrainConfig { lr: Some(1.0), ..good.clone() };
    let out = tempfile::tempdir().unwrap();
    let swept = || sweep(&dataset, vec![bad.clone(), good.clone()], None, out.path(), &Silent).unwrap();
    let rows = swept();
    let [finished, diverged] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((finished.state, diverged.state), (RunState::Finished, RunState::Diverged));
    assert!(finished.pareto && !diverged.pareto && diverged.fvu.is_none());
    let note = diverged.note.as_ref().unwrap();
    assert!(note.contains("diverged at step") && note.contains("`lr` (0.01)"), "{note}");
    assert_eq!((finished.name.as_str(), diverged.name.as_str()), ("topk-k16-d32-lr-0.003", "topk-k16-d32-lr-1.0"));
    assert_single_runs(&dataset, std::slice::from_ref(&good), &["topk-k16-d32-lr-0.003"], out.path());
    assert_table(out.path(), &rows);
    let before = files(out.path());
    assert_eq!(swept(), rows);
    assert!(files(out.path()) == before, "neither is started again");
    fs::remove_dir_all(out.path().join(&diverged.name)).unwrap();
    swept();
    assert!(out.path().join(&diverged.name).join("metrics.jsonl").exists(), "without its folder it is tried again");
}

#[test]
fn what_cannot_be_swept_is_refused_before_anything_is_written() {
    let (_dir, dataset) = dataset_of_two(200);
    let out = tempfile::tempdir().unwrap();
    let refused =
        |configs, at_once, out: &Path| sweep(&dataset, configs, at_once, out, &Silent).unwrap_err().to_string();
    let sweep_in = out.path().join("sweep");
    let good = config(TrainArchitecture::TopK, 3);
    let wide = TrainConfig { k: 33, ..good.clone() };
    assert!(refused(vec![good.clone(), wide], None, &sweep_in).contains("`k`: expected 1 to d_sae, 32, found 33"));
    assert!(refused(vec![good.clone(), good.clone()], None, &sweep_in).contains("topk-k3-d32 twice"));
    assert!(refused(vec![], None, &sweep_in).contains("runs of the sweep: expected 1 or more"));
    let few = refused(vec![good.clone(), TrainConfig { batch: 7000, ..good.clone() }], None, &sweep_in);
    assert!(few.contains("at least a batch, 7000 rows, to train on, found 5890"), "{few}");
    let all_held_out = TrainConfig { held_out_fraction: 0.9, batch: 1000, ..good.clone() };
    assert!(refused(vec![good.clone(), all_held_out], None, &sweep_in).contains("rows, to train on, found 620"));
    assert!(refused(vec![good.clone()], Some(0), &sweep_in).contains("`at_once`: expected 1 or more"));
    assert!(!sweep_in.exists());
    fs::write(out.path().join("thesis.tex"), "").unwrap();
    let foreign = refused(vec![good.clone()], None, out.path());
    assert!(foreign.contains("thesis.tex") && foreign.contains("another `out`"), "{foreign}");
    fs::write(out.path().join(SWEEP_FILE), "{").unwrap();
    let damaged = refused(vec![good], None, out.path());
    assert!(damaged.contains(SWEEP_FILE) && damaged.contains("Remove this file"), "{damaged}");
    fs::write(out.path().join(SWEEP_FILE), "{\"format\": \"refract.sweep\", \"version\": 2, \"rows\": []}").unwrap();
    let later = refused(vec![config(TrainArchitecture::TopK, 3)], None, out.path());
    assert!(later.contains("expected version 1, found version 2"), "{later}");
}
