//! Which activations an SAE is used on: those it was trained on, of which a part was held out; others of its model,
//! all of them; and none of another model.

use std::sync::LazyLock;

use crate::sandbox::{Sandbox, corpus, root, tiny};

const POINT: &str = "blocks.1.hook_resid_post";

/// Harvests [`POINT`] of a model into `out`.
fn harvest(sandbox: &Sandbox, model: &str, corpus: &str, out: &str) {
    let args = ["harvest", "--model", model, "--corpus", corpus, "--hook-point", POINT, "--out", out];
    sandbox.ok(&[&args[..], &["--ctx-len", "32", "--tokens", "4096"]].concat());
}

/// Trains `sae` on `activations`.
fn train(sandbox: &Sandbox, activations: &str, sae: &str) {
    let args = ["train", "--activations", activations, "--out", sae, "--d-sae", "64", "--k", "4"];
    sandbox.ok(&[&args[..], &["--batch", "256", "--tokens", "4096"]].concat());
}

/// An SAE of a tiny model, activations of another text, and those of a model as wide.
static RUN: LazyLock<Sandbox> = LazyLock::new(|| {
    let sandbox = Sandbox::new();
    harvest(&sandbox, &tiny("llama"), &corpus("speeches"), "acts");
    harvest(&sandbox, &tiny("llama"), &corpus("code"), "others");
    harvest(&sandbox, &tiny("llama_untied"), &corpus("speeches"), "twin");
    train(&sandbox, "acts", "sae");
    sandbox
});

#[test]
fn what_was_held_out_is_told_from_all_of_other_activations() {
    let evaluate = ["evaluate", "--sae", "sae", "--ce-tokens", "64"];
    let held_out = RUN.json(&evaluate).remove(0);
    let scored = &RUN.read_json("sae/manifest.json")["results"]["held_out"];
    assert_eq!((&held_out["held_out"], &held_out["tokens"]), (&true.into(), &scored["tokens"]));
    let named = [&evaluate[..], &["--activations", "acts"]].concat();
    assert_eq!(RUN.json(&named).remove(0), held_out, "naming them changes nothing");
    assert!(RUN.ok(&evaluate).contains("held-out tokens"));

    let others = [&evaluate[..], &["--activations", "others"]].concat();
    let all = RUN.json(&others).remove(0);
    assert_eq!(all["held_out"], false);
    assert!(all["tokens"].as_u64() > Some(4096 / 2), "not a twentieth: {all}");
    let said = RUN.ok(&others);
    assert!(said.contains("tokens, all of the activations") && !said.contains("held-out"), "{said}");
}

#[test]
fn activations_of_another_model_are_refused_though_they_are_as_wide() {
    for command in
        [&["evaluate"][..], &["index", "--out", "refused"], &["steer", "--prompt", "fellow citizens", "--clamp", "3=2"]]
    {
        let message = RUN.error(&[command, &["--sae", "sae", "--activations", "twin"]].concat());
        assert!(message.contains("model of the activations twin: expected"), "{message}");
        assert!(message.contains("which the SAE sae belongs to, found"), "{message}");
    }
    assert!(!RUN.path("refused").exists());
    let steer = ["steer", "--prompt", "fellow citizens", "--clamp", "3=2", "--max-new-tokens", "2", "--sae", "sae"];
    RUN.ok(&[&steer[..], &["--activations", "others"]].concat());
}

/// The tiny models of other widths have no tokenizer: it gets one of some words.
#[test]
fn an_sae_of_another_width_is_refused() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("narrow")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(root().join("tests/fixtures/tiny/llama3").join(file), sandbox.path("narrow").join(file)).unwrap();
    }
    let words = "the of and to in a that is it for we be our this as with on have not are by will from they all or";
    let words = words.split(' ').chain(["<unk>"]).enumerate();
    let vocab: serde_json::Map<_, _> = words.map(|(id, word)| (word.to_string(), id.into())).collect();
    let model = serde_json::json!({ "type": "WordLevel", "vocab": vocab, "unk_token": "<unk>" });
    let tokenizer = serde_json::json!({ "pre_tokenizer": { "type": "Whitespace" }, "model": model });
    sandbox.write("narrow/tokenizer.json", tokenizer.to_string());
    harvest(&sandbox, "./narrow", &corpus("speeches"), "narrow-acts");
    train(&sandbox, "narrow-acts", "sae");
    let acts = RUN.path("acts").display().to_string();
    let message = sandbox.error(&["index", "--sae", "sae", "--activations", &acts, "--out", "features"]);
    assert!(message.contains(&format!("expected d_in 48, the width of {POINT}")), "{message}");
    assert!(message.contains("found 24"), "{message}");
}

#[test]
fn show_gives_programs_as_many_examples_as_were_asked_for() {
    RUN.ok(&["index", "--sae", "sae", "--out", "features", "--examples", "5"]);
    let latents: Vec<String> = (0..64).map(|latent: u32| latent.to_string()).collect();
    let latents: Vec<&str> = latents.iter().map(String::as_str).collect();
    let shown = |n: &str, latents: &[&str]| {
        let found = RUN.json(&[&["show", "--features", "features", "--examples", n], latents].concat());
        found.iter().map(|line| line["examples"].as_array().unwrap().len()).collect::<Vec<_>>()
    };
    let of_five = shown("5", &latents);
    assert!(of_five.contains(&5), "{of_five:?}");
    let of_two: Vec<_> = of_five.iter().map(|n| (*n).min(2)).collect();
    assert_eq!(shown("2", &latents), of_two);
    assert!(shown("2", &[]).iter().all(|n| *n <= 2));
}
