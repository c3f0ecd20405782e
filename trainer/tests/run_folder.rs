//! Runs whose folder was changed in between: files were removed, damaged, or copied from another run.
#![expect(clippy::unwrap_used, reason = "tests")]

mod folder;
mod stop_at;
mod synthetic;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use folder::{assert_same, files, without_checkpoints};
use harvester::{ActivationDataset, Silent};
use stop_at::{Stop, StopAt};
use synthetic::{dataset, small_config};
use trainer::{SWEEP_FILE, Sae, SaeManifest, SweepPlan, TrainArchitecture, TrainConfig, TrainData, sweep, train};

const WEIGHTS: &str = "sae_weights.safetensors";

/// A finished run, and one that was stopped after 20 of its 30 steps, with checkpoints of steps 7, 14 and 20.
fn whole_and_stopped(dataset: &ActivationDataset, config: &TrainConfig) -> (tempfile::TempDir, tempfile::TempDir) {
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(dataset, config, whole.path(), &Silent).unwrap();
    train(dataset, config, stopped.path(), &StopAt::new(20 * 512, Stop::Cancel)).unwrap_err();
    (whole, stopped)
}

fn checkpoint(out: &Path, step: u64) -> std::path::PathBuf {
    out.join(format!("checkpoints/step-{step:09}.safetensors"))
}

#[test]
fn a_damaged_checkpoint_costs_the_steps_since_the_one_before() {
    let (_dir, dataset) = dataset(200);
    let config = small_config(TrainArchitecture::JumpRelu);
    let (whole, stopped) = whole_and_stopped(&dataset, &config);
    let newest = checkpoint(stopped.path(), 20);
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
    // Only the intact checkpoint is to be kept, and the run is killed before it saves another.
    let config = TrainConfig { keep_checkpoints: 1, ..config };
    let killed = StopAt::new(19 * 512, Stop::Kill);
    catch_unwind(AssertUnwindSafe(|| train(&dataset, &config, stopped.path(), &killed))).unwrap_err();
    assert!(checkpoint(stopped.path(), 14).is_file());
    train(&dataset, &config, stopped.path(), &Silent).unwrap();
    assert_same(&without_checkpoints(stopped.path()), &without_checkpoints(whole.path()), "from step 14");
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let (_dir, dataset) = dataset(200);
    let config = small_config(TrainArchitecture::TopK);
    let (_, stopped) = whole_and_stopped(&dataset, &config);
    let (other, _) = whole_and_stopped(&dataset, &TrainConfig { seed: 1, ..config.clone() });
    fs::copy(checkpoint(other.path(), 30), checkpoint(stopped.path(), 30)).unwrap();
    let before = files(stopped.path());
    let message = train(&dataset, &config, stopped.path(), &Silent).unwrap_err().to_string();
    assert!(
        message.contains("step-000000030.safetensors") && message.contains("a checkpoint of another run"),
        "{message}"
    );
    assert_same(&files(stopped.path()), &before, "nothing was written");
}

#[test]
fn a_finished_folder_that_was_changed_is_refused_and_nothing_is_written() {
    let (_dir, dataset) = dataset(200);
    for architecture in [TrainArchitecture::TopK, TrainArchitecture::BatchTopK] {
        let config = small_config(architecture);
        let out = tempfile::tempdir().unwrap();
        let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
        for file in [WEIGHTS, "cfg.json"] {
            let path = out.path().join(file);
            let good = fs::read(&path).unwrap();
            let mut changed = good.clone();
            *changed.last_mut().unwrap() ^= 1;
            for bytes in [None, Some(changed)] {
                match &bytes {
                    None => fs::remove_file(&path).unwrap(),
                    Some(changed) => fs::write(&path, changed).unwrap(),
                }
                let before = files(out.path());
                let message = train(&dataset, &config, out.path(), &Silent).unwrap_err().to_string();
                assert!(message.contains(file) && message.contains("remove the folder and train again"), "{message}");
                assert_eq!(Sae::load(out.path()).unwrap_err().to_string(), message, "nobody uses it without noticing");
                assert_same(&files(out.path()), &before, file);
            }
            fs::write(&path, good).unwrap();
        }
        // A user's deletions of what is only to look at stay.
        for shown in ["metrics.parquet", "curves.html", "sparsity.safetensors"] {
            fs::remove_file(out.path().join(shown)).unwrap();
            assert_eq!(train(&dataset, &config, out.path(), &Silent).unwrap(), manifest);
            assert!(!out.path().join(shown).exists(), "{shown}");
        }
        // A path to a file in the folder is checked like the folder, and so is the manifest.
        let (weights, manifest) = (out.path().join(WEIGHTS), out.path().join("manifest.json"));
        assert!(Sae::load(&weights).is_ok());
        fs::write(&manifest, [fs::read(&manifest).unwrap(), b" ".to_vec()].concat()).unwrap();
        assert!(Sae::load(&weights).unwrap_err().to_string().contains("manifest"));
        assert!(Sae::load(out.path()).is_err());
    }
}

#[test]
fn a_run_of_which_nothing_was_saved_leaves_its_folder_to_another() {
    let (_dir, dataset) = dataset(200);
    let config = small_config(TrainArchitecture::TopK);
    let other = TrainConfig { k: 4, ..config.clone() };
    let (expected, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(&dataset, &other, expected.path(), &Silent).unwrap();
    train(&dataset, &config, out.path(), &StopAt::new(0, Stop::Cancel)).unwrap_err();
    assert_eq!(SaeManifest::read(out.path()).unwrap().config.k, 3);
    train(&dataset, &other, out.path(), &Silent).unwrap();
    assert_same(&files(out.path()), &files(expected.path()), "started again from the beginning");
}

#[test]
fn a_run_that_diverged_says_so_until_it_has_ended_well() {
    let (_dir, dataset) = dataset(100);
    let config = TrainConfig { warmup: 0.0, k: 16, clip: None, ..small_config(TrainArchitecture::TopK) };
    let out = tempfile::tempdir().unwrap();
    let exploding = TrainConfig { lr: Some(1.0), ..config.clone() };
    let message = train(&dataset, &exploding, out.path(), &Silent).unwrap_err().to_string();
    let manifest = SaeManifest::read(out.path()).unwrap();
    assert_eq!((manifest.complete, manifest.diverged), (false, Some(message)));
    // There was no good checkpoint, so the folder may be used again for the advised settings.
    train(&dataset, &TrainConfig { lr: Some(0.01), ..config }, out.path(), &Silent).unwrap();
    let manifest = SaeManifest::read(out.path()).unwrap();
    assert_eq!((manifest.complete, manifest.diverged), (true, None));
}

#[test]
fn a_sweep_whose_table_was_removed_knows_its_runs_and_writes_nothing_over_others() {
    let (_dir, dataset) = dataset(200);
    let out = tempfile::tempdir().unwrap();
    let swept = |seed| {
        let configs = [3, 4].map(|k| TrainConfig { k, seed, ..small_config(TrainArchitecture::TopK) }).to_vec();
        sweep(&SweepPlan::new(TrainData::Harvested(&dataset), configs, None).unwrap(), out.path(), &Silent)
    };
    swept(0).unwrap();
    let whole = files(out.path());
    fs::remove_file(out.path().join(SWEEP_FILE)).unwrap();
    let before = files(out.path());
    let message = swept(1).unwrap_err().to_string();
    assert!(message.contains("topk-k3-d32") && message.contains("`seed`: 0 there, 1 here"), "{message}");
    assert_same(&files(out.path()), &before, "nothing was written");
    swept(0).unwrap();
    assert_same(&files(out.path()), &whole, "written again");
}
