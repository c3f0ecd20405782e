//! Flags that cannot work, alone or together, and what `inspect` takes: the message names the flag, not what is behind
//! it.

use crate::sandbox::{Sandbox, corpus, root, text, tiny};

/// A small harvest into `out`, with more flags.
fn harvest<'a>(model: &'a str, corpus: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["harvest", "--model", model, "--corpus", corpus, "--hook-point", "hook_embed", "--out", "out"];
    [&args[..], more].concat()
}

/// Standard error of a command that clap refuses.
fn refused(sandbox: &Sandbox, args: &[&str]) -> String {
    let output = sandbox.run(args);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

#[test]
fn a_value_that_cannot_work_is_named_by_its_flag() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let error = |more: &[&str]| sandbox.error(&harvest(&model, &text, more));
    let large = error(&["--ctx-len", "32", "--tokens", "18446744073709551615"]);
    assert!(large.contains("--tokens: expected at most 9223372036854775807"), "{large}");
    let longer_than_the_model = error(&[]);
    assert!(longer_than_the_model.contains("--ctx-len: expected 2 to 64 tokens"), "{longer_than_the_model}");
    assert!(longer_than_the_model.contains("found 256, the default"), "{longer_than_the_model}");
    let uneven = error(&["--ctx-len", "60"]);
    assert!(uneven.contains("--part-tokens: expected a multiple of --ctx-len, 60, such as 65520"), "{uneven}");
    let wraps = ["--max-document-mib", "17592186044416"];
    let wraps = refused(&sandbox, &harvest(&model, &text, &wraps));
    assert!(wraps.contains("--max-document-mib") && wraps.contains("expected 1 to 17592186044415 MiB"), "{wraps}");
    let train = ["train", "--activations", "out", "--out", "sae", "--buffer-mib", "17592186044416"];
    let wraps = refused(&sandbox, &train);
    assert!(wraps.contains("--buffer-mib") && wraps.contains("expected 1 to 17592186044415 MiB"), "{wraps}");
    assert!(!sandbox.path("out").exists());
}

#[test]
fn flags_that_have_no_effect_together_are_refused() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let both = refused(&sandbox, &harvest(&model, &text, &["--no-shuffle", "--seed", "3"]));
    assert!(both.contains("--no-shuffle") && both.contains("--seed"), "{both}");
    let alone = refused(&sandbox, &["train", "--activations", "out", "--out", "sae", "--ctx-len", "32"]);
    assert!(alone.contains("--ctx-len"), "{alone}");
    let alone = refused(&sandbox, &["train", "--out", "sae", "--model", "default"]);
    assert!(alone.contains("--corpus"), "{alone}");
    let both = refused(&sandbox, &["show", "--features", "features", "7", "--top", "3"]);
    assert!(both.contains("--top"), "{both}");
    let alone = sandbox.error(&harvest(&model, &text, &["--ctx-len", "32", "--long-documents", "truncate"]));
    assert!(alone.contains("--packing document"), "{alone}");
    let steer = ["steer", "--sae", "sae", "--prompt", "a", "--clamp", "1=0"];
    let likeliest = sandbox.error(&[&steer[..], &["--seed", "1"]].concat());
    assert!(likeliest.contains("--temperature above 0"), "{likeliest}");
}

#[test]
fn a_flag_wins_over_a_setting_of_the_file_that_excludes_it() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let file = "[harvest]\nchat-field = \"messages\"\nno-shuffle = true\n[train]\nd-sae = 64\nk = 4\nbatch = 256\n";
    sandbox.write("run.toml", file);
    let more = ["--config", "run.toml", "--text-field", "text", "--seed", "3", "--ctx-len", "32", "--tokens", "4096"];
    let said = sandbox.ok(&harvest(&model, &text, &more));
    assert!(said.contains("0 kFLOP per token"), "the embedding computes nothing, and that is said: {said}");
    assert_eq!(sandbox.read_json("out/manifest.json")["config"]["seed"], 3);
    let train = ["train", "--config", "run.toml", "--activations", "out", "--out", "sae", "--tokens", "1k"];
    sandbox.ok(&[&train[..], &["--expansion", "2"]].concat());
    assert_eq!(sandbox.read_json("sae/manifest.json")["d_sae"], 96, "twice the width of 48");
}

#[test]
fn inspect_takes_models_and_says_what_else_it_would_take() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let gguf = root().join("tests/fixtures/gguf/llama.gguf").display().to_string();
    for path in [&gguf, &model] {
        assert!(sandbox.ok(&["inspect", path]).contains("family         llama"));
        let said = sandbox.error(&["inspect", path, "--verify"]);
        assert!(said.contains("--verify has no effect on a model: only folders that refract wrote record"), "{said}");
    }
    let on_hub = sandbox.error(&["inspect", "org/name"]);
    assert!(on_hub.contains("no such file or folder") && on_hub.contains("on the Hub"), "{on_hub}");
    sandbox.ok(&harvest(&model, &text, &["--ctx-len", "32", "--tokens", "2048"]));
    std::fs::create_dir(sandbox.path("runs")).unwrap();
    std::fs::rename(sandbox.path("out"), sandbox.path("runs/activations")).unwrap();
    assert!(sandbox.ok(&["inspect", "runs"]).contains("2,048 in 64 contexts"));
    std::fs::create_dir(sandbox.path("runs/sae")).unwrap();
    sandbox.write("runs/sae/manifest.json", "{\"format\": \"refract.sae\"}");
    let several = sandbox.error(&["inspect", "runs"]);
    assert!(several.contains("runs/activations (refract.activations), runs/sae (refract.sae)"), "{several}");
    std::fs::remove_dir_all(sandbox.path("runs/activations")).unwrap();
    let one = sandbox.error(&["inspect", "runs"]);
    assert!(one.contains("1 folder that refract wrote. Name one: runs/sae (refract.sae)"), "{one}");
}

#[test]
fn inspect_passes_over_manifests_of_others_in_a_models_folder() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    std::fs::create_dir_all(sandbox.path("model/assets")).unwrap();
    for entry in std::fs::read_dir(model).unwrap().map(Result::unwrap) {
        std::fs::copy(entry.path(), sandbox.path("model").join(entry.file_name())).unwrap();
    }
    sandbox.write("model/assets/manifest.json", "{\"format\": \"of another\"}");
    assert!(sandbox.ok(&["inspect", "model"]).contains("family         llama"));
}

/// If the default model is in no cache and nothing can be fetched, the error lists every way that was tried.
#[test]
fn inspect_looks_for_the_default_model_as_harvest_does() {
    let sandbox = Sandbox::new();
    let cache = sandbox.path("cache").display().to_string();
    let nowhere = [("HF_HUB_OFFLINE", "1"), ("REFRACT_CACHE", &cache), ("HF_HOME", &cache), ("PATH", "/nowhere")];
    let message = sandbox.with_env(&nowhere).error(&["inspect", "default"]);
    assert!(message.contains("could not get model default (SmolLM2"), "{message}");
}
