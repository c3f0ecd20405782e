//! Runs that begin from a finished SAE instead of random weights.
#![expect(clippy::unwrap_used, reason = "tests")]

mod synthetic;

use std::{fs, path::Path};

use harvester::Silent;
use serde_json::{Value, json};
use synthetic::{EARLIER, LATER, dataset, dataset_of_two, small_config};
use trainer::{MetricsLine, SaeManifest, TrainArchitecture, TrainConfig, train};

fn config(architecture: TrainArchitecture) -> TrainConfig {
    TrainConfig { tokens: 60 * 512, log_every: 1, ..small_config(architecture) }
}

fn lines(out: &Path) -> Vec<MetricsLine> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn held_out_fvu(manifest: &SaeManifest) -> f64 {
    manifest.results.as_ref().unwrap().held_out.unwrap().fvu
}

#[test]
fn without_a_k_of_its_own_a_run_has_that_of_the_sae() {
    let formats = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/formats");
    let k = |path: &Path, more: Value| {
        let mut settings = more.as_object().unwrap().clone();
        settings.insert("init_from".into(), path.to_str().unwrap().into());
        TrainConfig::from_settings(&settings).unwrap().k
    };
    let (none, default) = (|| json!({}), TrainConfig::default().k);
    assert_eq!(k(&formats.join("saelens-topk/sae"), none()), 4);
    assert_eq!(k(&formats.join("saelens-topk/sae"), json!({ "k": 7 })), 7);
    let fixed = json!({ "architecture": "relu", "sparsity_coefficient": 1.0 });
    assert_eq!(k(&formats.join("saelens-topk/sae"), fixed), default);
    assert_eq!(k(&formats.join("saelens-jumprelu/sae"), none()), default, "it does not say");
    let (_dir, dataset) = dataset(20);
    // BatchTopK is saved as jumprelu; its manifest knows what it was trained for.
    for architecture in [TrainArchitecture::TopK, TrainArchitecture::BatchTopK, TrainArchitecture::Relu] {
        let out = tempfile::tempdir().unwrap();
        let config = TrainConfig { k: 5, tokens: 2 * 512, ..config(architecture) };
        train(&dataset, &config, out.path(), &Silent).unwrap();
        assert_eq!(k(out.path(), json!({ "architecture": architecture })), 5, "{architecture}");
    }
    // All latents of `dense` are active: there, `k` has no effect.
    let out = tempfile::tempdir().unwrap();
    let dense = TrainConfig { tokens: 2 * 512, ..config(TrainArchitecture::Dense) };
    train(&dataset, &dense, out.path(), &Silent).unwrap();
    assert_eq!(k(out.path(), json!({ "architecture": "dense", "d_sae": 32 })), default);
}

#[test]
fn it_goes_on_where_the_sae_was_and_improves() {
    let (_dir, dataset) = dataset(200);
    for architecture in [
        TrainArchitecture::TopK,
        TrainArchitecture::BatchTopK,
        TrainArchitecture::Matryoshka,
        TrainArchitecture::JumpRelu,
        TrainArchitecture::Gated,
    ] {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let before = held_out_fvu(&train(&dataset, &config(architecture), first.path(), &Silent).unwrap());
        let from = TrainConfig { init_from: Some(first.path().into()), ..config(architecture) };
        let manifest = train(&dataset, &from, second.path(), &Silent).unwrap();
        let at_first = lines(second.path())[0].fvu;
        // The batch is another one, and BatchTopK selects over it instead of using its threshold.
        assert!((at_first / before - 1.0).abs() < 0.1, "{architecture}: {before} at the end, then {at_first}");
        assert!(held_out_fvu(&manifest) < before, "{architecture}: {before}, then {}", held_out_fvu(&manifest));
        let sha256 = harvester::sha256_file(&first.path().join("sae_weights.safetensors")).unwrap();
        let file = manifest.init_from.iter().find(|file| file.name == "sae_weights.safetensors").unwrap();
        assert_eq!(file.sha256, sha256);
        assert_eq!(manifest.config.init_from.as_deref(), Some(first.path()));
    }
}

#[test]
fn it_has_as_many_latents_as_the_sae_where_nobody_says_how_many() {
    let (_dir, dataset) = dataset(200);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(&dataset, &config(TrainArchitecture::TopK), first.path(), &Silent).unwrap();
    let from = TrainConfig { init_from: Some(first.path().into()), d_sae: None, ..config(TrainArchitecture::TopK) };
    assert_eq!(train(&dataset, &from, second.path(), &Silent).unwrap().d_sae, 32);
}

#[test]
fn an_adapted_weight_of_the_sparsity_loss_goes_on_where_it_was() {
    let (_dir, dataset) = dataset(200);
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let relu = config(TrainArchitecture::Relu);
    train(&dataset, &relu, first.path(), &Silent).unwrap();
    let from = TrainConfig { init_from: Some(first.path().into()), ..relu };
    train(&dataset, &from, second.path(), &Silent).unwrap();
    let last = lines(first.path()).pop().unwrap().sparsity_coefficient;
    assert_ne!(lines(first.path())[0].sparsity_coefficient, last);
    assert_eq!(lines(second.path())[0].sparsity_coefficient, last);
}

#[test]
fn a_crosscoder_does_not_go_on_with_its_places_in_another_order() {
    let (_dir, dataset) = dataset_of_two(200);
    let (first, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at =
        |places: [_; 2]| TrainConfig { hook_points: places.to_vec(), ..small_config(TrainArchitecture::Crosscoder) };
    train(&dataset, &at([EARLIER, LATER]), first.path(), &Silent).unwrap();
    let from = |places| TrainConfig { init_from: Some(first.path().into()), ..at(places) };
    train(&dataset, &from([EARLIER, LATER]), &out.path().join("same"), &Silent).unwrap();
    let message = train(&dataset, &from([LATER, EARLIER]), &out.path().join("swapped"), &Silent).unwrap_err();
    assert!(
        message.to_string().contains("the hook points in the order blocks.1.hook_resid_post, hook_embed"),
        "{message}"
    );
}

#[test]
fn another_sae_under_the_same_name_does_not_go_on() {
    let (_dir, dataset) = dataset(200);
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    train(&dataset, &config(TrainArchitecture::TopK), &at("first"), &Silent).unwrap();
    let from = TrainConfig { init_from: Some(at("first")), ..config(TrainArchitecture::BatchTopK) };
    let manifest = train(&dataset, &from, &at("second"), &Silent).unwrap();
    // The same files in another folder are the same SAE.
    fs::rename(at("first"), at("moved")).unwrap();
    let moved = TrainConfig { init_from: Some(at("moved")), ..from.clone() };
    assert_eq!(train(&dataset, &moved, &at("second"), &Silent).unwrap(), manifest);
    let other = TrainConfig { seed: 1, ..config(TrainArchitecture::TopK) };
    train(&dataset, &other, &at("first"), &Silent).unwrap();
    let message = train(&dataset, &from, &at("second"), &Silent).unwrap_err().to_string();
    assert!(message.contains("files of the initial SAE (`init_from`)"), "{message}");
    let message =
        train(&dataset, &config(TrainArchitecture::BatchTopK), &at("second"), &Silent).unwrap_err().to_string();
    assert!(message.contains("(`init_from`)"), "{message}");
    let narrow = TrainConfig { d_sae: Some(31), ..from };
    let message = train(&dataset, &narrow, &at("third"), &Silent).unwrap_err().to_string();
    assert!(message.contains("`init_from`") && message.contains("d_sae 31") && !at("third").exists(), "{message}");
}
