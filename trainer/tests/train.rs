//! Whole runs on activations with known features.
#![expect(clippy::unwrap_used, reason = "tests")]

mod folder;
mod pca;
mod stop_at;
mod synthetic;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use folder::{assert_same, files, without_checkpoints};
use harvester::{ActivationDataset, HookPoint, Silent};
use pca::principal_variances;
use stop_at::{Stop, StopAt};
use synthetic::{CTX_LEN, Dictionary, EARLIER, LATER, SMALL, dataset, dataset_of_two, mean_max_cosine, small_config};
use trainer::{Architecture, Error, HookPoints, Sae, SaeManifest, TrainArchitecture, TrainConfig, train};

/// The config with hook points chosen from the two in the folder.
fn at_its_places(config: TrainConfig) -> TrainConfig {
    match config.architecture {
        TrainArchitecture::Transcoder => {
            TrainConfig { hook_points: vec![EARLIER], target_hook_point: Some(LATER), skip: true, ..config }
        }
        TrainArchitecture::Crosscoder => TrainConfig { hook_points: vec![EARLIER, LATER], ..config },
        _ => TrainConfig { hook_points: vec![LATER], ..config },
    }
}

#[test]
fn known_features_are_found() {
    let dictionary = Dictionary { d_in: 64, n_features: 256, active: 3.0, noise: 0.02, earlier_width: 64 };
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    dictionary.write(dir.path(), 12_000);
    let dataset = ActivationDataset::open(dir.path()).unwrap();
    let config = TrainConfig { k: 3, ..synthetic::recipe() };
    let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
    let held_out = manifest.results.unwrap().held_out.unwrap();
    // The threshold is calibrated on these rows, so k latents per token are active, except for ties.
    assert!((held_out.l0 - 3.0).abs() < 0.001, "{held_out:?}");
    assert_eq!(held_out.tokens, 600 * (CTX_LEN as u64 - 1), "only position 0 is dropped");

    let sae = Sae::load(out.path()).unwrap();
    assert_eq!(sae.architecture(), Architecture::JumpRelu);
    let (mmcs, found) = mean_max_cosine(&dictionary.directions(), sae.w_dec(), 64);
    // Measured: 0.9987, with every direction found. Random rows would have 0.375.
    assert!(mmcs > 0.99 && found > 0.99, "mean maximum cosine similarity {mmcs}, {found} of the directions");
}

#[test]
fn an_interrupted_run_ends_in_the_same_bytes() {
    let (_dir, dataset) = dataset_of_two(200);
    for architecture in TrainArchitecture::ALL {
        let config = at_its_places(small_config(architecture));
        let (whole, interrupted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        train(&dataset, &config, whole.path(), &Silent).unwrap();
        let stops = [(0, Stop::Cancel), (3, Stop::Kill), (10, Stop::Cancel), (11, Stop::Kill), (29, Stop::Kill)];
        for (step, how) in stops.into_iter().chain([(30, Stop::Kill)]) {
            let monitor = StopAt::new(step * 512, how);
            let result = catch_unwind(AssertUnwindSafe(|| train(&dataset, &config, interrupted.path(), &monitor)));
            let cancelled = matches!(result, Ok(Err(Error::Harvester(harvester::Error::Cancelled { .. }))));
            assert!(if how == Stop::Cancel { cancelled } else { result.is_err() }, "step {step}");
        }
        train(&dataset, &config, interrupted.path(), &Silent).unwrap();
        let expected = without_checkpoints(whole.path());
        for file in ["sae_weights.safetensors", "metrics.jsonl", "metrics.parquet", "curves.html"] {
            assert!(expected.contains_key(Path::new(file)), "{file}");
        }
        assert_same(&without_checkpoints(interrupted.path()), &expected, &architecture.to_string());
        let last = |out: &Path| fs::read(out.join("checkpoints/step-000000030.safetensors")).unwrap();
        assert!(last(whole.path()) == last(interrupted.path()), "{architecture}: the last checkpoints differ");
    }
}

/// The rows that a run uses, for training or held out: all except position 0. `[n, d_in]`
fn ordinary_rows(dataset: &ActivationDataset, point: HookPoint) -> Vec<f32> {
    let groups = dataset.row_groups.iter().map(|group| dataset.read(*group, point).unwrap());
    let kept = |read: harvester::ActivationRows| {
        let values = read.values.to_f32().into_owned();
        let rows = values.chunks(read.d_model).enumerate().filter(|(row, _)| read.rows.position[*row] > 0);
        rows.flat_map(|(_, x)| x.to_vec()).collect::<Vec<_>>()
    };
    groups.flat_map(kept).collect()
}

#[test]
fn a_dense_bottleneck_is_as_good_as_the_first_principal_components() {
    let (_dir, dataset) = dataset(1000);
    let (k, d) = (5, SMALL.d_in);
    let config =
        TrainConfig { d_sae: None, k, tokens: 1200 * 512, lr: Some(1e-2), ..small_config(TrainArchitecture::Dense) };
    let out = tempfile::tempdir().unwrap();
    let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
    assert_eq!((manifest.d_sae, manifest.results.unwrap().held_out.unwrap().l0), (k, k as f64));
    let rows = ordinary_rows(&dataset, LATER);
    let variances = principal_variances(&rows, d);
    let total: f64 = variances.iter().sum();
    let of_pca = variances[k..].iter().sum::<f64>() / total;
    let (_, x_hat) = Sae::load(out.path()).unwrap().reconstruct(&rows).unwrap();
    let error: f64 = rows.iter().zip(&x_hat).map(|(x, y)| f64::from(x - y).powi(2)).sum();
    let fvu = error / (total * (rows.len() / d) as f64);
    // No linear map through k dimensions can do better.
    assert!(fvu > of_pca * (1.0 - 1e-6) && fvu < of_pca * 1.01, "FVU {fvu}, that of PCA {of_pca}");
}

/// Trains on two hook points. Returns the held-out metrics and the SAE.
fn trained_at_two_places(config: TrainConfig) -> (trainer::Reconstruction, Sae) {
    let (_dir, dataset) = dataset_of_two(600);
    let out = tempfile::tempdir().unwrap();
    let manifest = train(&dataset, &TrainConfig { tokens: 600 * 512, ..config }, out.path(), &Silent).unwrap();
    (manifest.results.unwrap().held_out.unwrap(), Sae::load(out.path()).unwrap())
}

#[test]
fn a_transcoder_predicts_a_linear_map_by_its_skip_connection_or_by_its_latents() {
    let config = at_its_places(small_config(TrainArchitecture::Transcoder));
    let (held_out, sae) = trained_at_two_places(config.clone());
    // The skip connection alone can learn the map. Measured: FVU 0.0000649, L0 3.05.
    assert!(held_out.fvu < 1e-4 && (held_out.l0 - 3.0).abs() < 0.2, "{held_out:?}");
    assert_eq!((sae.d_in(), sae.d_out()), (SMALL.earlier_width, SMALL.d_in));
    let transcoder = HookPoints::Transcoder { from: Some(EARLIER), to: Some(LATER) };
    assert_eq!((&sae.config().hook_points, sae.has_skip()), (&transcoder, true));
    let (held_out, sae) = trained_at_two_places(TrainConfig { skip: false, ..config });
    // Measured: FVU 0.0526, L0 3.026.
    assert!(held_out.fvu < 0.055 && (held_out.l0 - 3.0).abs() < 0.2, "{held_out:?}");
    assert!(!sae.has_skip());
}

#[test]
fn a_crosscoder_rebuilds_both_places() {
    let (held_out, sae) = trained_at_two_places(at_its_places(small_config(TrainArchitecture::Crosscoder)));
    // Measured: FVU 0.0451, L0 3.034.
    assert!(held_out.fvu < 0.05 && (held_out.l0 - 3.0).abs() < 0.2, "{held_out:?}");
    let columns = vec![(EARLIER, SMALL.earlier_width), (LATER, SMALL.d_in)];
    assert_eq!(sae.config().hook_points, HookPoints::Crosscoder(columns));
    assert_eq!(sae.d_in(), SMALL.earlier_width + SMALL.d_in);
}

#[test]
fn a_finished_folder_is_left_alone_and_another_config_is_refused() {
    let (_dir, dataset) = dataset(100);
    let config = small_config(TrainArchitecture::TopK);
    let out = tempfile::tempdir().unwrap();
    let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
    let before = files(out.path());
    let again = train(
        &dataset,
        &TrainConfig { checkpoint_every: 3, keep_checkpoints: 5, ..config.clone() },
        out.path(),
        &Silent,
    )
    .unwrap();
    assert_eq!((again, files(out.path())), (manifest, before));

    let other = TrainConfig { k: 4, lr: Some(1e-3), ..config };
    let message = train(&dataset, &other, out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("`k`: 3 there, 4 here") && message.contains("`lr`: 0.01 there, 0.001 here"), "{message}");
}

#[test]
fn what_is_saved_says_where_it_is_from() {
    let (dir, dataset) = dataset(100);
    let out = tempfile::tempdir().unwrap();
    train(&dataset, &small_config(TrainArchitecture::TopK), out.path(), &Silent).unwrap();
    let manifest = SaeManifest::read(out.path()).unwrap();
    assert_eq!(manifest.held_out, 95..100);
    assert_eq!(manifest.activations.to_string(), dir.path().canonicalize().unwrap().to_str().unwrap());
    assert_eq!(manifest.config.hook_points, [LATER]);
    assert_eq!(manifest.sink_norm, dataset.manifest.hook_point(LATER).unwrap().sink_norm);
    let sae = Sae::load(out.path()).unwrap();
    assert_eq!((&sae.config().hook_points, sae.nonlinearity().k()), (&HookPoints::Autoencoder(Some(LATER)), Some(3)));
    assert_eq!((sae.config().model_name.as_str(), sae.config().ctx_len), ("synthetic", Some(CTX_LEN)));
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
    assert_eq!(refused(TrainConfig { k: 33, ..config.clone() }), "`k`: expected 1 to d_sae, 32, found 33");
    assert!(refused(TrainConfig { tokens: 100, ..config.clone() }).contains("at least one batch, 512"));
    assert!(refused(TrainConfig { held_out_fraction: 0.95, ..config.clone() }).contains("`held_out_fraction`"));
    let elsewhere = refused(TrainConfig { hook_points: vec![HookPoint::Embed], ..config.clone() });
    assert!(elsewhere.contains("blocks.1.hook_resid_post") && elsewhere.contains("hook_embed"), "{elsewhere}");
    for batch in [0, 1] {
        let message = refused(TrainConfig { batch, ..config.clone() });
        assert!(
            message.contains("`batch`: expected 2 or more") && message.ends_with(&format!("found {batch}")),
            "{message}"
        );
    }
    let transcoder = TrainConfig { architecture: TrainArchitecture::Transcoder, ..config.clone() };
    assert!(refused(transcoder).contains("`target_hook_point`: expected the hook point that a transcoder predicts"));
    let twice = vec![LATER; 2];
    let crosscoder = TrainConfig { architecture: TrainArchitecture::Crosscoder, hook_points: twice, ..config.clone() };
    assert!(refused(crosscoder).contains("each hook point once"));
    let few = refused(TrainConfig { batch: 1000, tokens: 5000, ..config.clone() });
    assert!(few.contains("at least a batch, 1000 rows, to train on, found 589"), "{few}");
    assert!(refused(TrainConfig { lr: Some(f64::NAN), ..config }).contains("lr"));
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
    let config = TrainConfig { lr: Some(1.0), warmup: 0.0, k: 16, clip: None, ..small_config(TrainArchitecture::TopK) };
    let message = train(&dataset, &config, out.path(), &Silent).unwrap_err().to_string();
    assert!(
        message.contains("diverged") && message.contains("`lr` (0.01)") && message.contains("`clip` 1"),
        "{message}"
    );
    assert!(message.contains("no good checkpoint yet"), "{message}");
    assert!(steps_of_checkpoints(out.path()).is_empty(), "a diverged checkpoint is not kept");
    assert!(out.path().join("metrics.parquet").exists());
    let lines = metrics(out.path());
    assert_eq!(lines.last().unwrap()["step"], lines.len(), "the steps up to the one that diverged");
    assert!(message.contains(&format!("diverged at step {}", lines.len())), "{message}");
    let page = fs::read_to_string(out.path().join("curves.html")).unwrap();
    assert!(page.contains("\"state\":\"failed\"") && page.contains("`lr` (0.01)"), "the page says so too");
}

/// The lines of a run's log.
fn metrics(out: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The finished SAE of these architectures selects latents as a step does, so its own metrics are the other source.
#[test]
fn the_curve_of_held_out_rows_ends_at_what_the_saved_sae_has_there() {
    let (_dir, dataset) = dataset(200);
    for architecture in [TrainArchitecture::TopK, TrainArchitecture::Relu, TrainArchitecture::JumpRelu] {
        let out = tempfile::tempdir().unwrap();
        let config = TrainConfig { held_out_fraction: 0.01, ..small_config(architecture) };
        let manifest = train(&dataset, &config, out.path(), &Silent).unwrap();
        let held_out = manifest.results.unwrap().held_out.unwrap();
        assert!(
            held_out.tokens <= config.batch as u64 / 2,
            "{} rows are held out: the curve is of all of them",
            held_out.tokens
        );
        let lines = metrics(out.path());
        let measured: Vec<_> =
            lines.iter().filter_map(|line| Some((line["step"].as_u64()?, line["held_out_fvu"].as_f64()?))).collect();
        assert_eq!(measured.iter().map(|(step, _)| *step).collect::<Vec<_>>(), [1, 20, 30], "{architecture}");
        let (_, last) = measured[2];
        assert!((last / held_out.fvu - 1.0).abs() < 1e-4, "{architecture}: {last}, {}", held_out.fvu);
        let steps: Vec<_> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, (1..=20).chain([24, 28, 30]).collect::<Vec<_>>(), "the first, every 4, the last");
    }
}

/// Steps of the checkpoints in a run's folder, ascending.
fn steps_of_checkpoints(out: &Path) -> Vec<u64> {
    let entries = fs::read_dir(out.join("checkpoints")).into_iter().flatten();
    let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
    let step = |name: String| name.trim_start_matches("step-").trim_end_matches(".safetensors").parse().unwrap();
    let mut steps: Vec<u64> = entries.map(|entry| step(name(entry.unwrap()))).collect();
    steps.sort_unstable();
    steps
}

/// The checksum in a checkpoint's header, over its note and the name, type, shape and bytes of each tensor, sorted by
/// name.
fn checksum(bytes: &[u8]) -> String {
    let (_, metadata) = safetensors::SafeTensors::read_metadata(bytes).unwrap();
    let header: serde_json::Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["refract"]).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let mut tensors = tensors.tensors();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let kind = |name: &str, tensor: &safetensors::tensor::TensorView<'_>| {
        format!("{name} {} {:?}", tensor.dtype(), tensor.shape()).into_bytes()
    };
    let of_tensors = tensors.iter().flat_map(|(name, tensor)| [kind(name, tensor), tensor.data().to_vec()]);
    harvester::sha256_bytes(std::iter::once(header["note"].as_str().unwrap().into()).chain(of_tensors))
}

/// Changes f32 tensors of a checkpoint, as if training had produced them.
fn change_checkpoint(out: &Path, step: u64, change: impl Fn(&str, &mut f32)) {
    let path = out.join(format!("checkpoints/step-{step:09}.safetensors"));
    let mut bytes = fs::read(&path).unwrap();
    let before = checksum(&bytes);
    let (length, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
    for (name, tensor) in metadata.tensors() {
        if tensor.dtype == safetensors::Dtype::F32 {
            let (start, end) = tensor.data_offsets;
            for value in bytes[8 + length..][start..end].as_chunks_mut::<4>().0 {
                let mut number = f32::from_le_bytes(*value);
                change(&name, &mut number);
                *value = number.to_le_bytes();
            }
        }
    }
    let place = bytes.windows(before.len()).position(|window| window == before.as_bytes()).unwrap();
    let after = checksum(&bytes);
    bytes[place..][..after.len()].copy_from_slice(after.as_bytes());
    fs::write(&path, bytes).unwrap();
}

/// A run of 30 steps with a checkpoint every 7, stopped by the user after 20.
fn stopped_run(dataset: &ActivationDataset, config: &TrainConfig) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    train(dataset, config, out.path(), &StopAt::new(20 * 512, Stop::Cancel)).unwrap_err();
    assert_eq!(steps_of_checkpoints(out.path()), [7, 14, 20], "the newest is not yet known to be good");
    out
}

#[test]
fn a_run_whose_latents_all_fall_silent_stops_and_goes_back_to_when_they_spoke() {
    let (_dir, dataset) = dataset(100);
    let config = small_config(TrainArchitecture::BatchTopK);
    let out = stopped_run(&dataset, &config);
    // An encoder of zeros, and moments that keep it at zero.
    change_checkpoint(out.path(), 20, |name, value| {
        if name.contains("_enc") {
            *value = 0.0;
        }
    });
    let message = train(&dataset, &config, out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("no latent has been active") && message.contains("`auxk_alpha` (0.5)"), "{message}");
    assert!(message.contains("checkpoints/step-000000014.safetensors"), "{message}");
    assert_eq!(steps_of_checkpoints(out.path()), [7, 14]);
    train(&dataset, &config, out.path(), &Silent).unwrap();
    assert_eq!(steps_of_checkpoints(out.path()), [28, 30], "it continues from there");
}

#[test]
fn weights_that_explode_late_leave_the_checkpoints_before() {
    let (_dir, dataset) = dataset(100);
    let config = small_config(TrainArchitecture::BatchTopK);
    for (spoiled, what) in [(1e4, "its recent best was"), (f32::NAN, "is NaN")] {
        let out = stopped_run(&dataset, &config);
        change_checkpoint(out.path(), 20, |name, value| {
            if name == "b_dec" {
                *value = spoiled;
            }
        });
        let message = train(&dataset, &config, out.path(), &Silent).unwrap_err().to_string();
        assert!(message.contains("diverged at step 21") && message.contains(what), "{message}");
        assert_eq!(steps_of_checkpoints(out.path()), [7, 14], "{message}");
    }
}

#[test]
fn as_many_checkpoints_are_kept_as_were_asked_for() {
    let (_dir, dataset) = dataset(100);
    for (keep_checkpoints, expected) in [(1, &[30][..]), (3, &[21, 28, 30]), (99, &[7, 14, 21, 28, 30])] {
        let out = tempfile::tempdir().unwrap();
        let config = TrainConfig { keep_checkpoints, ..small_config(TrainArchitecture::TopK) };
        train(&dataset, &config, out.path(), &Silent).unwrap();
        assert_eq!(steps_of_checkpoints(out.path()), expected);
    }
    let config = TrainConfig { keep_checkpoints: 0, ..small_config(TrainArchitecture::TopK) };
    let out = tempfile::tempdir().unwrap();
    let message = train(&dataset, &config, &out.path().join("sae"), &Silent).unwrap_err().to_string();
    assert_eq!(message, "`keep_checkpoints`: expected 1 or more, found 0");
}

#[test]
fn a_damaged_number_is_named_by_file_and_row() {
    let (dir, dataset) = dataset(100);
    let out = tempfile::tempdir().unwrap();
    let path = dir.path().join("part-00000.parquet");
    let mut bytes = fs::read(&path).unwrap();
    // Most of the file is values. Bits that are all ones are a NaN at any alignment.
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let message = train(&dataset, &small_config(TrainArchitecture::TopK), out.path(), &Silent).unwrap_err().to_string();
    assert!(message.contains("part-00000.parquet") && message.contains("in row "), "{message}");
}
