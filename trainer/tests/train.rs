//! Whole runs on activations whose features are known.
#![expect(clippy::unwrap_used, reason = "tests")]

mod synthetic;

use std::{
    collections::BTreeMap,
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use harvester::{ActivationDataset, HookPoint, Monitor, Silent};
use synthetic::{CTX_LEN, Dictionary};
use trainer::{Architecture, Error, Sae, SaeManifest, TrainArchitecture, TrainConfig, train};

/// Stops a run when it has come so far: as Ctrl-C does, or as SIGKILL does.
struct StopAt {
    tokens: u64,
    how: Stop,
    seen: AtomicU64,
}

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Cancel,
    Kill,
}

impl Monitor for StopAt {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {}
    fn advance(&self, n: u64) {
        let seen = self.seen.fetch_add(n, Ordering::Relaxed) + n;
        assert!(self.how != Stop::Kill || seen < self.tokens, "killed");
    }
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        self.how == Stop::Cancel && self.seen.load(Ordering::Relaxed) >= self.tokens
    }
}

fn stop_at(tokens: u64, how: Stop) -> StopAt {
    StopAt { tokens, how, seen: AtomicU64::new(0) }
}

const SMALL: Dictionary = Dictionary { d_in: 16, n_features: 24, active: 2.0, noise: 0.02 };

/// 30 steps, about three passes over the data, in several blocks an epoch.
fn small_config(architecture: TrainArchitecture) -> TrainConfig {
    TrainConfig {
        architecture,
        d_sae: Some(32),
        k: 3,
        tokens: 30 * 512,
        batch: 512,
        dead_after_tokens: 2000,
        buffer_bytes: 2 * 16 * 8 * CTX_LEN as u64 * 16 * 4,
        checkpoint_every: 7,
        log_every: 4,
        ..TrainConfig::default()
    }
}

fn dataset(n_contexts: u64) -> (tempfile::TempDir, ActivationDataset) {
    let dir = tempfile::tempdir().unwrap();
    SMALL.write(dir.path(), n_contexts);
    let dataset = ActivationDataset::open(dir.path()).unwrap();
    (dir, dataset)
}

/// Every file of a folder except the checkpoints' names, by relative path.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(dir).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn known_features_are_found() {
    let dictionary = Dictionary { d_in: 32, n_features: 64, active: 3.0, noise: 0.02 };
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dictionary.write(dir.path(), 2000);
    let dataset = ActivationDataset::open(dir.path()).unwrap();
    let config = TrainConfig {
        d_sae: Some(96),
        k: 3,
        tokens: 600_000,
        batch: 512,
        dead_after_tokens: 20_000,
        ..TrainConfig::default()
    };
    let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
    let held_out = manifest.results.unwrap().held_out.unwrap();
    assert!(held_out.fvu < 0.2 && (held_out.l0 - 3.0).abs() < 0.2, "{held_out:?}");
    assert_eq!(held_out.tokens, 100 * (CTX_LEN as u64 - 1), "position 0 is dropped, and nothing else");

    let sae = Sae::load(out.path()).unwrap();
    assert_eq!(sae.config.architecture, Architecture::JumpRelu);
    let cosine = |direction: &[f32], latent: usize| {
        sae.decoder_row(latent).iter().zip(direction).map(|(a, b)| a * b).sum::<f32>()
    };
    let best = |direction: &[f32]| (0..sae.d_sae()).map(|latent| cosine(direction, latent)).fold(-1.0, f32::max);
    let directions = dictionary.directions();
    let mmcs = directions.chunks(32).map(best).sum::<f32>() / 64.0;
    assert!(mmcs > 0.93, "mean maximum cosine similarity {mmcs}");
}

#[test]
fn an_interrupted_run_ends_in_the_same_bytes() {
    let (_dir, dataset) = dataset(200);
    for architecture in TrainArchitecture::ALL {
        let config = small_config(architecture);
        let whole = tempfile::tempdir().unwrap();
        train(&dataset, &config, whole.path(), &Silent).unwrap();
        let expected = files(whole.path());
        assert!(expected.contains_key(Path::new("sae_weights.safetensors")));

        let stops = [(3, Stop::Kill), (10, Stop::Cancel), (11, Stop::Kill), (29, Stop::Kill), (30, Stop::Kill)];
        let interrupted = tempfile::tempdir().unwrap();
        for (step, how) in stops {
            let monitor = stop_at(step * 512, how);
            let result = catch_unwind(AssertUnwindSafe(|| train(&dataset, &config, interrupted.path(), &monitor)));
            let cancelled = matches!(result, Ok(Err(Error::Harvester(harvester::Error::Cancelled { .. }))));
            assert!(if how == Stop::Cancel { cancelled } else { result.is_err() }, "step {step}");
        }
        train(&dataset, &config, interrupted.path(), &Silent).unwrap();
        let found = files(interrupted.path());
        let last = |files: &BTreeMap<PathBuf, Vec<u8>>| {
            files
                .iter()
                .filter(|(name, _)| !name.starts_with("checkpoints"))
                .map(|(n, b)| (n.clone(), b.clone()))
                .collect::<Vec<_>>()
        };
        let (expected_last, found_last) = (last(&expected), last(&found));
        let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&expected_last), names(&found_last), "{architecture}");
        for (a, b) in expected_last.iter().zip(&found_last) {
            assert!(a == b, "{architecture}: {} differs", a.0.display());
        }
        let checkpoint = Path::new("checkpoints/step-000000030.safetensors");
        assert!(expected[checkpoint] == found[checkpoint], "{architecture}: the last checkpoints differ");
    }
}

#[test]
fn a_finished_folder_is_left_alone_and_another_config_is_refused() {
    let (_dir, dataset) = dataset(100);
    let config = small_config(TrainArchitecture::TopK);
    let out = tempfile::tempdir().unwrap();
    let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
    let before = files(out.path());
    let again = train(&dataset, &TrainConfig { checkpoint_every: 3, ..config.clone() }, out.path(), &Silent).unwrap();
    assert_eq!((again, files(out.path())), (manifest, before));

    let other = TrainConfig { k: 4, lr: 1e-3, ..config };
    let message = train(&dataset, &other, out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("k: 3 there, 4 here") && message.contains("lr: 0.003 there, 0.001 here"), "{message}");
}

#[test]
fn what_is_saved_says_where_it_is_from() {
    let (dir, dataset) = dataset(100);
    let out = tempfile::tempdir().unwrap();
    train(&dataset, &small_config(TrainArchitecture::TopK), out.path(), &Silent).unwrap();
    let manifest = SaeManifest::read(out.path()).unwrap();
    assert_eq!(manifest.held_out, 95..100);
    assert_eq!(manifest.activations, dir.path().canonicalize().unwrap());
    assert_eq!(manifest.hook_point, HookPoint::resid_post(1));
    assert_eq!(manifest.sink_norm, dataset.manifest().sink_norm(HookPoint::resid_post(1)).unwrap());
    let sae = Sae::load(out.path()).unwrap();
    assert_eq!((sae.config.hook_point, sae.config.k), (Some(HookPoint::resid_post(1)), Some(3)));
    assert_eq!((sae.config.model_name.as_str(), sae.config.ctx_len), ("synthetic", Some(CTX_LEN)));
    for latent in 0..sae.d_sae() {
        let norm: f32 = sae.decoder_row(latent).iter().map(|w| w * w).sum();
        assert!((norm - 1.0).abs() < 1e-5, "decoder rows have norm 1 after the scale is folded in");
    }
}

#[test]
fn unusable_input_is_refused_before_anything_is_written() {
    let (_dir, dataset) = dataset(20);
    let config = small_config(TrainArchitecture::BatchTopK);
    let refused = |config: TrainConfig| {
        let out = tempfile::tempdir().unwrap();
        let message = train(&dataset, &config, &out.path().join("sae"), &Silent).unwrap_err().to_string();
        assert!(!out.path().join("sae").exists(), "{message}");
        message
    };
    assert_eq!(refused(TrainConfig { k: 33, ..config.clone() }), "--k: expected 1 to d_sae, 32, found 33");
    assert!(refused(TrainConfig { tokens: 100, ..config.clone() }).contains("at least one batch, 512"));
    assert!(refused(TrainConfig { held_out_fraction: 0.95, ..config.clone() }).contains("--held-out-fraction"));
    let elsewhere = refused(TrainConfig { hook_point: Some(HookPoint::Embed), ..config.clone() });
    assert!(elsewhere.contains("blocks.1.hook_resid_post") && elsewhere.contains("hook_embed"), "{elsewhere}");
    assert!(refused(TrainConfig { batch: 0, ..config.clone() }).contains("batch"));
    let few = refused(TrainConfig { batch: 1000, tokens: 5000, ..config.clone() });
    assert!(few.contains("at least a batch, 1000 rows, to train on, found 589"), "{few}");
    assert!(refused(TrainConfig { lr: f64::NAN, ..config }).contains("lr"));
}

#[test]
fn a_single_context_cannot_be_both_trained_on_and_held_out() {
    let (_dir, dataset) = dataset(1);
    let out = tempfile::tempdir().unwrap();
    let config = small_config(TrainArchitecture::TopK);
    let message = train(&dataset, &config, &out.path().join("sae"), &Silent).unwrap_err().to_string();
    assert!(message.contains("1 contexts, of which 1 are held out"), "{message}");
}

#[test]
fn a_run_that_explodes_stops_and_says_what_to_try() {
    let (_dir, dataset) = dataset(100);
    let out = tempfile::tempdir().unwrap();
    let config = TrainConfig { lr: 1.0, warmup: 0.0, k: 16, ..small_config(TrainArchitecture::TopK) };
    let message = train(&dataset, &config, out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("diverged") && message.contains("--lr (0.25)"), "{message}");
}

#[test]
fn a_damaged_number_is_named_by_file_and_row() {
    let (dir, dataset) = dataset(100);
    let out = tempfile::tempdir().unwrap();
    let path = dir.path().join("part-00000.parquet");
    let mut bytes = fs::read(&path).unwrap();
    // Most of the file is values; all ones is a nan, however they are aligned.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let message = train(&dataset, &small_config(TrainArchitecture::TopK), out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("part-00000.parquet") && message.contains("in row "), "{message}");
}
