//! Every architecture from the command line: trained on a small harvest, measured and explained; and the options that
//! one has and another has not.

use std::sync::LazyLock;

use serde_json::Value;

use crate::sandbox::{Sandbox, corpus, tiny};

const FIRST: &str = "blocks.0.hook_resid_post";
const POINT: &str = "blocks.1.hook_resid_post";
const MLP_IN: &str = "blocks.1.ln2.hook_normalized";
const MLP_OUT: &str = "blocks.1.hook_mlp_out";

/// Activations of four places of a tiny model.
static RUN: LazyLock<Sandbox> = LazyLock::new(|| {
    let sandbox = Sandbox::new();
    let (model, text) = (tiny("llama"), corpus("speeches"));
    let harvest = ["harvest", "--model", &model, "--corpus", &text, "--ctx-len", "32", "--tokens", "8192"];
    sandbox.ok(&[&harvest[..], &["--hook-point", FIRST, POINT, MLP_IN, MLP_OUT, "--out", "acts"]].concat());
    sandbox
});

/// Trains `name` and returns what `evaluate` says of it.
fn trained(name: &str, more: &[&str]) -> Value {
    let train = ["train", "--activations", "acts", "--out", name, "--batch", "256", "--tokens", "40960"];
    RUN.ok(&[&train[..], more].concat());
    let evaluation = RUN.json(&["evaluate", "--sae", name, "--ce-tokens", "128"]).remove(0);
    let manifest = RUN.read_json(&format!("{name}/manifest.json"));
    // The same rows, read by another crate.
    assert_eq!(evaluation["fvu"], manifest["results"]["held_out"]["fvu"], "{name}");
    assert_eq!(evaluation["l0"], manifest["results"]["held_out"]["l0"], "{name}");
    assert!(evaluation["fvu"].as_f64().unwrap() < 0.9, "{name}: {evaluation}");
    evaluation
}

/// The output of `inspect` holds each of `parts`.
fn assert_explained(name: &str, parts: &[&str]) {
    let said = RUN.ok(&["inspect", name, "--verify"]);
    parts.iter().for_each(|part| assert!(said.contains(part), "{part} is not in\n{said}"));
}

#[test]
fn what_reads_one_place_is_trained_measured_and_explained() {
    for (arch, more, explained) in [
        ("relu", &["--d-sae", "96", "--k", "8"][..], &["standard", "relu, L0 about 8"][..]),
        ("gated", &["--d-sae", "96", "--l1-coefficient", "1.5"], &["gated", "sparsity coefficient 1.5"]),
        ("jumprelu", &["--d-sae", "96", "--k", "8", "--jumprelu-loss", "tanh"], &["jumprelu, L0 about 8"]),
        ("matryoshka", &["--d-sae", "96", "--k", "8", "--prefixes", "12,48"], &["the first 12, 48, 96 latents"]),
        ("dense", &["--k", "8"], &["dense, k 8", "d_in 48 x d_sae 8"]),
        ("topk", &["--expansion", "2", "--k", "8"], &["topk, k 8"]),
    ] {
        let evaluation = trained(arch, &[&["--arch", arch, "--hook-point", POINT], more].concat());
        assert!(evaluation["ce_loss_with_sae"].is_f64() && evaluation["kl"].is_f64(), "{arch}: {evaluation}");
        assert_explained(arch, explained);
    }
    assert_eq!(RUN.read_json("dense/manifest.json")["results"]["held_out"]["l0"], 8.0);
    let clamp = ["steer", "--sae", "gated", "--prompt", "fellow citizens", "--clamp", "3=2", "--max-new-tokens", "3"];
    assert!(RUN.json(&clamp)[0]["with"].is_string());
    assert!(RUN.json(&[&clamp[..], &["--compute", "int8"]].concat())[0]["with"].is_string());
}

#[test]
fn a_transcoder_is_measured_in_the_place_of_what_it_predicts_and_indexed_where_it_reads() {
    let places = ["--arch", "transcoder", "--hook-point", MLP_IN, "--target-hook-point", MLP_OUT];
    let evaluation = trained("transcoder", &[&places[..], &["--skip", "--d-sae", "96", "--k", "8"]].concat());
    let number = |key: &str| evaluation[key].as_f64().unwrap();
    assert!(number("ce_tokens") > 0.0 && number("kl") >= 0.0, "{evaluation}");
    let jump = format!("hook point     {MLP_IN}");
    assert_explained("transcoder", &[&jump, MLP_OUT, "bypasses the latents", "transcoder, k 8"]);
    let index = RUN.json(&["index", "--sae", "transcoder", "--out", "transcoder-features"]).remove(0);
    assert_eq!(index["d_sae"], 96);
    let message = RUN.error(&["steer", "--sae", "transcoder", "--prompt", "a", "--clamp", "1=0"]);
    assert!(message.contains(&format!("a transcoder from {MLP_IN} to {MLP_OUT}")), "{message}");
    let explain =
        ["explain", "--sae", "transcoder", "--features", "transcoder-features", "--text", "fellow citizens of the"];
    // The few latents of a tiny SAE are all dense.
    assert!(RUN.ok(&explain).contains("dense latents, which fire too often"));
    let explained = RUN.json(&[&explain[..], &["--max-density", "1"]].concat()).remove(0);
    let latents = explained["latents"].as_array().unwrap();
    assert!(!latents.is_empty() && latents.iter().all(|latent| latent["effect"].is_f64()), "{explained}");
    assert!(RUN.error(&[&explain[..], &["--token", "of the"]].concat()).contains("--token: expected one token"));
}

#[test]
fn a_crosscoder_is_measured_place_by_place() {
    let places = ["--arch", "crosscoder", "--hook-point", FIRST, POINT];
    let evaluation = trained("crosscoder", &[&places[..], &["--d-sae", "96", "--k", "8"]].concat());
    let by_place = evaluation["fvu_by_hook_point"].as_array().unwrap();
    let fvu: Vec<f64> = by_place.iter().map(|place| place["fvu"].as_f64().unwrap()).collect();
    assert_eq!((&by_place[0]["hook_point"], &by_place[1]["hook_point"]), (&FIRST.into(), &POINT.into()));
    assert!((fvu.iter().sum::<f64>() / 2.0 - evaluation["fvu"].as_f64().unwrap()).abs() < 1e-12, "{evaluation}");
    assert!(evaluation.get("ce_loss_with_sae").is_none(), "{evaluation}");
    assert!(RUN.ok(&["evaluate", "--sae", "crosscoder"]).contains("not measured"));
    assert_explained("crosscoder", &[FIRST, POINT, "crosscoder, k 8", "d_in 96"]);
    let message = RUN.error(&["index", "--sae", "crosscoder", "--out", "crosscoder-features"]);
    assert!(message.contains("a crosscoder of 2 hook points"), "{message}");
    let message = RUN.error(&["compare", "crosscoder", "crosscoder"]);
    assert!(message.contains("a crosscoder of 2 hook points"), "{message}");
}

#[test]
fn several_places_of_a_running_model_are_trained_on_too() {
    let sandbox = Sandbox::new();
    let (model, text) = (tiny("llama"), corpus("speeches"));
    let train = ["train", "--model", &model, "--corpus", &text, "--ctx-len", "32", "--out", "sae", "--d-sae", "96"];
    let size = ["--k", "8", "--batch", "256", "--tokens", "4096"];
    let refused = sandbox.error(&[&train[..], &size, &["--arch", "transcoder", "--hook-point", MLP_IN]].concat());
    assert!(refused.contains("--target-hook-point: expected the hook point that a transcoder"), "{refused}");
    assert!(!sandbox.path("sae").exists(), "nothing was harvested");
    sandbox.ok(&[&train[..], &size, &["--arch", "crosscoder", "--hook-point", FIRST, POINT]].concat());
    let manifest = sandbox.read_json("sae/manifest.json");
    assert_eq!(manifest["hook_points"], serde_json::json!([FIRST, POINT]));
    let evaluation = sandbox.json(&["evaluate", "--sae", "sae"]).remove(0);
    assert_eq!(evaluation["fvu"], manifest["results"]["held_out"]["fvu"]);
}

#[test]
fn an_option_that_the_architecture_has_not_is_refused() {
    let sandbox = Sandbox::new();
    let refused = |arch: &str, more: &[&str]| {
        sandbox.error(&[&["train", "--activations", "acts", "--out", "sae", "--arch", arch][..], more].concat())
    };
    for (arch, option, users) in [
        ("topk", &["--sparsity-coefficient", "3"][..], "relu, gated and jumprelu"),
        ("batch-topk", &["--sparsity-warmup", "0.1"], "relu, gated and jumprelu"),
        ("relu", &["--bandwidth", "0.1"], "jumprelu"),
        ("gated", &["--jumprelu-loss", "tanh"], "jumprelu"),
        ("batch-topk", &["--prefixes", "8,16"], "matryoshka"),
        ("crosscoder", &["--skip"], "transcoder"),
        ("dense", &["--auxk-alpha", "0.1"], "every architecture except dense"),
        ("dense", &["--k-aux", "9"], "every architecture except dense"),
        ("dense", &["--dead-after-tokens", "9"], "every architecture except dense"),
        ("dense", &["--expansion", "4"], "every architecture except dense"),
    ] {
        let message = refused(arch, option);
        let expected = format!("{} has no effect on {arch}: it is an option of {users}", option[0]);
        assert!(message.contains(&expected), "{message}");
    }
    for (arch, options, why) in [
        ("relu", &["--sparsity-warmup", "0.1"][..], "--sparsity-warmup has no effect without --sparsity-coefficient"),
        ("topk", &["--k-aux", "9", "--auxk-alpha", "0"], "--k-aux has no effect with --auxk-alpha 0"),
        ("dense", &["--k", "9", "--d-sae", "8"], "--k has no effect on dense with --d-sae"),
        ("topk", &["--hook-point", FIRST, POINT], "--hook-point: expected one hook point for topk"),
        ("relu", &["--target-hook-point", POINT], "--target-hook-point: expected none for relu"),
        ("crosscoder", &["--hook-point", FIRST], "--hook-point: expected two hook points or more"),
    ] {
        let message = refused(arch, options);
        assert!(message.contains(why), "{message}");
    }
    let vectors = ["train", "--vectors", "digits.parquet", "--arch", "crosscoder", "--out", "sae"];
    assert!(
        sandbox.error(&vectors).contains("--arch crosscoder: expected --activations: it needs several hook points")
    );
    assert!(!sandbox.path("sae").exists());
}

#[test]
fn the_config_file_has_every_option_under_its_name() {
    let file = format!(
        "[train]\narch = 'jumprelu'\nhook-point = '{POINT}'\nd-sae = 64\nsparsity-coefficient = 0.5\n\
         sparsity-warmup = 0.25\njumprelu-loss = 'tanh'\nbandwidth = 0.75\nk-aux = 5\nbatch = 256\ntokens = 2048\n"
    );
    RUN.write("run.toml", file);
    RUN.ok(&["train", "--config", "run.toml", "--activations", "acts", "--out", "from-file"]);
    let config = &RUN.read_json("from-file/manifest.json")["config"];
    for (name, value) in [
        ("sparsity_coefficient", Value::from(0.5)),
        ("sparsity_warmup", 0.25.into()),
        ("jumprelu_loss", "tanh".into()),
        ("bandwidth", 0.75.into()),
        ("k_aux", 5.into()),
    ] {
        assert_eq!(config[name], value, "{name}");
    }
    let other = RUN.error(&["train", "--config", "run.toml", "--activations", "acts", "--out", "o", "--arch", "topk"]);
    assert!(other.contains("--sparsity-coefficient has no effect on topk"), "{other}");
    RUN.write("more.toml", "[train]\nprefixes = [8, 32]\nskip = true\n");
    let more = ["train", "--config", "more.toml", "--activations", "acts", "--out", "o"];
    assert!(RUN.error(&[&more[..], &["--arch", "matryoshka"]].concat()).contains("--skip has no effect on matryoshka"));
    assert!(RUN.error(&[&more[..], &["--arch", "transcoder"]].concat()).contains("--prefixes has no effect"));
}

#[test]
fn the_help_names_every_architecture_with_a_phrase() {
    let help = Sandbox::new().ok(&["train", "--help"]);
    for arch in ["topk", "batch-topk", "matryoshka", "relu", "gated", "jumprelu", "transcoder", "crosscoder", "dense"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("- {arch}:"))), "{arch}:\n{help}");
    }
    assert!(help.contains("--arch transcoder --skip") && help.contains("--arch crosscoder"), "{help}");
}
