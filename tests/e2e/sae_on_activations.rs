//! The activations that an SAE is used on: those it was trained on, of which a part was held out; others of its model,
//! all of them; and none of another model.

use std::sync::LazyLock;

use harvester::HookPoint;
use trainer::{HookPoints, InputNorm, Nonlinearity, Sae, SaeConfig, SaeWeights};

use crate::sandbox::{Sandbox, corpus, root, text, tiny};

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

#[test]
fn an_sae_shares_every_latent_with_itself_and_few_with_another() {
    let own = RUN.json(&["compare", "sae", "sae", "--tokens", "2k"]).remove(0);
    let tokens = own["tokens"].as_u64().unwrap();
    assert!((2000..2000 + 256).contains(&tokens), "as asked, up to a whole context: {tokens}");
    for side in own["latents"].as_array().unwrap() {
        for latent in side.as_array().unwrap() {
            let fires = latent["density"].as_f64() > Some(0.0);
            assert_eq!(latent["fate"], if fires { "shared" } else { "silent" }, "{latent}");
            assert_eq!(latent["partner"], latent["latent"]);
            assert!(!fires || latent["correlation"].as_f64() > Some(1.0 - 1e-9), "{latent}");
        }
    }
    assert!(own["mean_max_cosine"][0].as_f64() > Some(0.999_99));
    assert!(own["mean_max_cosine_by_chance"][0].as_f64() < Some(0.9));

    let seed = ["train", "--activations", "acts", "--d-sae", "96", "--k", "4", "--batch", "256", "--tokens", "4096"];
    RUN.ok(&[&seed[..], &["--seed", "1", "--out", "seed"]].concat());
    let other = RUN.json(&["compare", "sae", "seed"]).remove(0);
    let n = |side: usize| other["latents"][side].as_array().unwrap().len();
    assert_eq!((n(0), n(1)), (64, 96));
    let partners = other["latents"][1].as_array().unwrap().iter().filter(|latent| !latent["partner"].is_null());
    assert_eq!(partners.count(), 64, "the larger SAE has latents left over");
    assert!(other["matched_cosine"].as_f64() < Some(0.999));
    let said = RUN.ok(&["compare", "sae", "seed"]);
    assert!(said.contains("MMCS") && said.contains("by chance"), "{said}");
    // Which is which, and the other way round in the other order.
    let turned = RUN.json(&["compare", "seed", "sae"]).remove(0);
    let silent = |side: &serde_json::Value| {
        let n = side.as_array().unwrap().iter().filter(|latent| latent["fate"] == "silent").count();
        format!("{n} ({:.1} %)", 100.0 * n as f64 / side.as_array().unwrap().len() as f64)
    };
    let [of_sae, of_seed] = [0, 1].map(|side| silent(&other["latents"][side]));
    assert_eq!([&of_sae, &of_seed], [&silent(&turned["latents"][1]), &silent(&turned["latents"][0])]);
    for (names, a, b) in [(["sae", "seed"], &of_sae, &of_seed), (["seed", "sae"], &of_seed, &of_sae)] {
        let said = RUN.ok(&["compare", names[0], names[1]]);
        let sizes = names.map(|name| format!("{name}: {} latents", if name == "sae" { 64 } else { 96 }));
        let line = |name: &str| said.lines().find(|line| line.trim_start().starts_with(name)).unwrap().to_string();
        assert!(line("A ").ends_with(&sizes[0]) && line("B ").ends_with(&sizes[1]), "{said}");
        assert!(line("silent").contains(&format!("{a} of A, {b} of B")), "{said}");
    }

    let elsewhere = ["harvest", "--model", &tiny("llama"), "--corpus", &corpus("speeches"), "--out", "embed"];
    RUN.ok(&[&elsewhere[..], &["--hook-point", "hook_embed", "--ctx-len", "32", "--tokens", "4096"]].concat());
    train(&RUN, "embed", "at-embed");
    train(&RUN, "twin", "of-twin");
    for other in ["at-embed", "of-twin"] {
        let refused = RUN.error(&["compare", "sae", other]);
        assert!(refused.contains(&format!("SAE {other}: expected one like sae: at {POINT}")), "{refused}");
    }
    let refused = RUN.error(&["compare", "sae", "sae", "--activations", "twin"]);
    assert!(refused.contains("model of the activations twin"), "{refused}");
}

/// A harvest with a BOS of its own choice, and one without any, of a model that has none.
#[test]
fn a_prompt_begins_as_the_contexts_of_the_activations_did() {
    let sandbox = Sandbox::new();
    let steer = |sae: &str| {
        let args = ["steer", "--prompt", "fellow citizens", "--scale", "3=1", "--max-new-tokens", "1", "--sae", sae];
        sandbox.json(&args).remove(0)["prompt_tokens"].clone()
    };
    for (bos, sae) in [("7", "with"), ("none", "without")] {
        let acts = format!("acts-{bos}");
        let args = ["harvest", "--model", &tiny("llama"), "--corpus", &corpus("speeches"), "--hook-point", POINT];
        sandbox.ok(&[&args[..], &["--ctx-len", "32", "--tokens", "4096", "--bos", bos, "--out", &acts]].concat());
        train(&sandbox, &acts, sae);
        assert_eq!(sandbox.read_json(&format!("{sae}/manifest.json"))["bos"], bos);
    }
    let (with, without) = (steer("with"), steer("without"));
    assert_eq!(with.as_array().unwrap()[1..], without.as_array().unwrap()[..]);
    assert_eq!(with[0], 7);
    assert_ne!(without[0], 7);
    std::fs::remove_dir_all(sandbox.path("acts-7")).unwrap();
    assert_eq!(steer("with"), with, "the activations are not needed");
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

/// An SAE of `d` dimensions that is exact for activations whose mean over the dimensions is 0: each dimension of
/// `x - mean(x)` has a latent for its positive and one for its negative values.
fn centered(d: usize) -> Sae {
    let delta = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
    let c = |sign: f32| (0..d * d).map(move |at| sign * (delta(at / d, at % d) - 1.0 / d as f32));
    let rows: Vec<f32> = c(1.0).chain(c(-1.0)).collect();
    let weights = SaeWeights {
        w_enc: rows.clone(),
        b_enc: vec![0.0; 2 * d],
        nonlinearity: Nonlinearity::Standard,
        w_dec: rows,
        b_dec: vec![0.0; d],
        w_skip: None,
    };
    let config = SaeConfig {
        input_norm: InputNorm::Centered,
        hook_points: HookPoints::Autoencoder(Some(HookPoint::resid_post(1))),
        ctx_len: Some(16),
        prepend_bos: Some(true),
        ..SaeConfig::new(d, 2 * d)
    };
    Sae::new(config, weights).unwrap()
}

/// GPT-2 has layer norms, so TransformerLens centers what is written to its residual stream; a llama has none.
#[test]
fn an_sae_of_a_centered_model_is_used_on_the_model_as_it_was_published() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("sae")).unwrap();
    centered(48).save(&sandbox.path("sae")).unwrap();
    harvest(&sandbox, &tiny("gpt2"), &corpus("speeches"), "gpt2");
    let on = |acts: &str| {
        let output = sandbox.run(&["evaluate", "--sae", "sae", "--activations", acts, "--ce-tokens", "64", "--json"]);
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (found["fvu"].as_f64().unwrap(), text(&output.stderr))
    };
    let (fvu, said) = on("gpt2");
    assert!(fvu < 1e-6, "{fvu}");
    // Other contexts than those of its training are said.
    assert!(said.contains("trained on contexts that begin with a BOS token (`prepend_bos`)"), "{said}");
    assert!(said.contains("trained on contexts of 16 tokens (`context_size`), and those of the activations have 32"));
    assert!(!said.contains("has no effect"), "{said}");
    harvest(&sandbox, &tiny("llama"), &corpus("speeches"), "llama");
    assert!(
        on("llama").1.contains("`center_writing_weights` has no effect on a llama model, which has no layer norms")
    );
}

#[test]
fn an_sae_keeps_its_held_out_contexts_when_its_activations_are_extended() {
    let sandbox = Sandbox::new();
    harvest(&sandbox, &tiny("llama"), &corpus("speeches"), "acts");
    train(&sandbox, "acts", "sae");
    let evaluate = ["evaluate", "--sae", "sae", "--ce-tokens", "64"];
    let before = sandbox.json(&evaluate).remove(0);
    let more = ["harvest", "--model", &tiny("llama"), "--corpus", &corpus("speeches"), "--hook-point", POINT];
    sandbox.ok(&[&more[..], &["--out", "acts", "--ctx-len", "32", "--tokens", "6000"]].concat());
    assert_eq!(sandbox.json(&evaluate).remove(0), before);
    let named = sandbox.json(&[&evaluate[..], &["--activations", "acts"]].concat()).remove(0);
    assert_eq!((&named["tokens"], &named["held_out"]), (&before["tokens"], &true.into()));
    sandbox.ok(&["index", "--sae", "sae", "--out", "features"]);
}

#[test]
#[cfg(target_os = "linux")]
fn an_sae_that_does_not_fit_is_refused_before_anything_is_allocated() {
    let train = "ulimit -v 4000000; exec \"$0\" train --activations acts --d-sae 3000000 --batch 4096 --out huge";
    let mut command = std::process::Command::new("sh");
    let output = command.args(["-c", train, env!("CARGO_BIN_EXE_refract")]).current_dir(RUN.path("")).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("memory for 3000000 latents (--d-sae): expected at most"), "{said}");
    assert!(said.contains("GiB, which is left on this machine, found"), "{said}");
}
