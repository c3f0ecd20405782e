//! SAEs of other tools on the command line: converted, explained, and used with activations of their model.

use std::{fs, sync::LazyLock};

use serde_json::Value;

use crate::sandbox::{Sandbox, corpus, root, text, tiny};

const POINT: &str = "blocks.1.hook_resid_post";

/// A small SAE of a tiny model, of each kind, and activations.
static RUN: LazyLock<Sandbox> = LazyLock::new(|| {
    let (sandbox, model, speeches) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let harvest = ["harvest", "--model", &model, "--corpus", &speeches, "--hook-point", POINT, "--out", "acts"];
    sandbox.ok(&[&harvest[..], &["--ctx-len", "32", "--tokens", "4096"]].concat());
    for arch in ["topk", "batch-topk"] {
        let train = ["train", "--activations", "acts", "--arch", arch, "--out", arch, "--d-sae", "64", "--k", "4"];
        sandbox.ok(&[&train[..], &["--batch", "256", "--tokens", "4096"]].concat());
    }
    sandbox
});

fn fixture(name: &str) -> String {
    root().join("trainer/tests/fixtures/formats").join(name).display().to_string()
}

/// Evaluates an SAE over all of the activations.
fn evaluation(sae: &str, more: &[&str]) -> Value {
    let args = ["evaluate", "--sae", sae, "--activations", "acts", "--ce-tokens", "128"];
    RUN.json(&[&args[..], more].concat()).remove(0)
}

/// The same but for rounding. Formats that keep a bias folded round it once more, which moves every number by 1e-7 of
/// it; 1e-4 lets one latent of one of the 3,968 tokens fall on the other side of its threshold for it (l0 by 6e-5), as
/// may happen on another processor.
fn assert_same(found: &Value, expected: &Value) {
    for key in ["l0", "fvu", "ce_loss_with_sae", "kl"] {
        let [a, b] = [found, expected].map(|value| value[key].as_f64().unwrap());
        assert!((a - b).abs() <= 1e-4 * b.abs(), "{key}: {a}, not {b}");
    }
}

#[test]
fn an_sae_is_evaluated_alike_in_every_format_that_holds_it() {
    for (arch, formats) in [
        ("topk", &["sparsify", "dictionary-learning", "llamascopium"][..]),
        ("batch-topk", &["dictionary-learning", "gemma-scope", "gemma-scope-2", "llamascopium"]),
    ] {
        let convert = |to: &str| {
            let out = format!("converted-{arch}/{to}/layers.1");
            let said = RUN.json(&["convert", arch, "--to", to, "--out", &out]).remove(0);
            assert_eq!((&said["from"], &said["to"], &said["d_sae"]), (&"saelens".into(), &to.into(), &64.into()));
            out
        };
        let expected = evaluation(&convert("saelens"), &[]);
        for to in formats {
            let out = convert(to);
            let explained = RUN.json(&["inspect", &out]).remove(0);
            assert_eq!((&explained["format"], &explained["d_in"]), (&(*to).into(), &48.into()));
            // Gemma Scope's file does not say where it belongs.
            let says = explained["hook_point"] == POINT;
            assert_eq!(says, *to != "gemma-scope", "{explained}");
            let more: &[&str] = if says { &[] } else { &["--hook-point", POINT] };
            assert_same(&evaluation(&out, more), &expected);
        }
    }
    let message =
        RUN.error(&["evaluate", "--sae", "converted-batch-topk/gemma-scope/layers.1", "--activations", "acts"]);
    assert!(message.contains("--hook-point"), "{message}");
}

#[test]
fn an_sae_of_another_tool_is_indexed_and_steered_with_activations_of_its_model() {
    RUN.ok(&["convert", "topk", "--to", "sparsify", "--out", "foreign/layers.1"]);
    let sae = ["--sae", "foreign/layers.1", "--activations", "acts"];
    let index = RUN.json(&[&["index", "--out", "features", "--examples", "3"][..], &sae].concat()).remove(0);
    assert_eq!(index["d_sae"], 64);
    // A second time the folder is known as finished; of another SAE it is refused.
    RUN.ok(&[&["index", "--out", "features", "--examples", "3"][..], &sae].concat());
    let other = RUN.error(&["index", "--sae", "topk", "--out", "features", "--examples", "3"]);
    assert!(other.contains("sae:"), "{other}");
    let other = RUN.error(&["explain", "--sae", "topk", "--features", "features", "--text", "fellow citizens"]);
    assert!(other.contains("--features: expected an index of the SAE topk"), "{other}");
    let steer = ["steer", "--prompt", "fellow citizens", "--clamp", "3=2", "--max-new-tokens", "3"];
    let foreign = RUN.json(&[&steer[..], &sae].concat()).remove(0);
    let ours = RUN.json(&[&steer[..], &["--sae", "topk"]].concat()).remove(0);
    assert_eq!(foreign["with"], ours["with"]);

    let message = RUN.error(&["evaluate", "--sae", "foreign/layers.1"]);
    assert!(message.contains("--activations"), "{message}");
    let message = RUN.error(&["evaluate", "--sae", "topk", "--hook-point", "blocks.0.hook_resid_post"]);
    assert!(message.contains("--hook-point: expected blocks.1.hook_resid_post"), "{message}");
}

#[test]
fn what_a_format_has_no_place_for_is_refused_and_nothing_is_left() {
    let message = RUN.error(&["convert", "topk", "--to", "gemma-scope", "--out", "refused"]);
    assert!(message.contains("expected jumprelu or standard, found topk; the format saelens"), "{message}");
    assert!(!RUN.path("refused").exists());
    let message = RUN.error(&["convert", "topk", "--to", "llama-scope", "--out", "refused"]);
    assert!(message.contains("the format llamascopium"), "{message}");
    let help = RUN.ok(&["convert", "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("gemma-scope-2, openai, llamascopium") && !help.contains("llama-scope"), "{help}");
    let message = RUN.error(&["convert", "topk", "--to", "sparsify", "--out", "acts"]);
    assert!(message.contains("empty folder"), "{message}");
    let message = RUN.error(&["convert", "acts", "--to", "sparsify", "--out", "refused"]);
    assert!(message.contains("params.npz (gemma-scope)") && message.contains("manifest.json"), "{message}");
}

#[test]
fn a_transcoder_is_measured_only_where_it_belongs() {
    let (model, text, place) = (tiny("llama"), corpus("speeches"), "blocks.1.ln2.hook_normalized");
    let harvest = ["harvest", "--model", &model, "--corpus", &text, "--hook-point", place, "--out", "mlp"];
    RUN.ok(&[&harvest[..], &["--ctx-len", "32", "--tokens", "2048"]].concat());
    // sparsify's folders name the place.
    let transcoder = RUN.path("transcoders/layers.1.mlp");
    fs::create_dir_all(&transcoder).unwrap();
    for file in ["cfg.json", "sae.safetensors"] {
        fs::copy(fixture(&format!("sparsify-transcoder/layers.3.mlp/{file}")), transcoder.join(file)).unwrap();
    }
    let used = ["--sae", "transcoders/layers.1.mlp", "--activations", "mlp"];
    let message = RUN.error(&[&["evaluate"][..], &used].concat());
    assert!(message.contains(&format!("the width of {place} in mlp, [48], found 10")), "{message}");
    let message = RUN.error(&[&["steer", "--prompt", "a", "--clamp", "1=0"][..], &used].concat());
    assert!(message.contains("a transcoder from"), "{message}");
    let message = RUN.error(&[&["evaluate", "--hook-point", POINT][..], &used].concat());
    assert!(message.contains(&format!("--hook-point: expected {place}, which the SAE names itself")), "{message}");
}

#[test]
fn what_an_sae_says_itself_is_not_overwritten() {
    let convert = ["convert", "topk", "--to", "saelens", "--out", "not-overwritten"];
    let message = RUN.error(&[&convert[..], &["--hook-point", "hook_embed"]].concat());
    assert!(message.contains(&format!("--hook-point: expected {POINT}, which topk names itself")), "{message}");
    assert!(!RUN.path("not-overwritten").exists());
    RUN.ok(&[&convert[..], &["--hook-point", POINT]].concat());
}

#[test]
fn a_model_is_named_as_other_tools_know_it_and_a_given_name_wins() {
    let named = |out: &str, more: &[&str]| {
        RUN.ok(&[&["convert", "topk", "--to", "saelens", "--out", out][..], more].concat());
        let cfg = fs::read(RUN.path(out).join("cfg.json")).unwrap();
        serde_json::from_slice::<serde_json::Value>(&cfg).unwrap()["metadata"]["model_name"].clone()
    };
    // The folder has no name on the Hub; its path means nothing elsewhere.
    assert_eq!(named("named", &[]), "llama");
    assert_eq!(named("renamed", &["--model-name", "org/tiny-llama"]), "org/tiny-llama");
}

#[test]
fn what_a_format_does_not_say_of_the_origin_is_said_to_be_lost() {
    let convert = |to: &str, out: &str| {
        let output = RUN.run(&["convert", "topk", "--to", to, "--out", out]);
        assert!(output.status.success());
        text(&output.stderr)
    };
    let said = convert("sparsify", "lost/foo");
    assert!(said.contains("not stored, because sparsify has no field for it: hook point, model name,"), "{said}");
    assert!(said.contains("context length") && said.contains("dataset") && said.lines().count() == 1, "{said}");
    assert!(!convert("sparsify", "lost/layers.1").contains("hook point"));
    assert_eq!(convert("saelens", "lost/saelens"), "");
}

#[test]
fn an_unfinished_run_is_no_sae_yet() {
    let (sandbox, acts) = (Sandbox::new(), RUN.path("acts").display().to_string());
    let train = ["train", "--activations", &acts, "--out", "sae", "--checkpoint-every", "2", "--batch", "256"];
    sandbox.kill_at_new_checkpoint(&[&train[..], &["--d-sae", "64", "--k", "4", "--tokens", "1000000"]].concat());
    let message = sandbox.error(&["convert", "sae", "--to", "sparsify", "--out", "converted"]);
    assert!(
        message.contains("an unfinished one. To go on where it stopped: ") && message.contains(" train "),
        "{message}"
    );
}

#[test]
fn inspect_explains_an_sae_of_another_tool() {
    let said = RUN.ok(&["inspect", &fixture("sparsify-skip-transcoder/layers.3.mlp")]);
    for part in [
        "format sparsify",
        "blocks.3.ln2.hook_normalized",
        "blocks.3.hook_mlp_out",
        "topk, k 4",
        "bypasses the latents",
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    let file = fixture("openai-topk/resid_post_mlp_v5_32k/autoencoders/3.pt");
    let said = RUN.json(&["inspect", &file]).remove(0);
    assert_eq!((&said["format"], &said["hook_point"]), (&"openai".into(), &"blocks.3.hook_resid_post".into()));
    fs::write(RUN.path("broken.pt"), b"no zip file").unwrap();
    let message = RUN.error(&["inspect", "broken.pt"]);
    assert!(message.contains("broken.pt") && message.contains("torch.save"), "{message}");
}
