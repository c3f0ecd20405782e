//! Artifacts refer to each other by relative path and hash: a project folder that is moved still works, and so do
//! folders that an earlier version wrote.

use std::fs;

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, corpus, files, tiny};

const POINT: &str = "blocks.1.hook_resid_post";

/// A project folder `name` with a model, activations, an SAE, one trained on the running model, and features.
fn project(name: &str) -> Sandbox {
    let sandbox = Sandbox::new();
    let at = |artifact: &str| format!("{name}/{artifact}");
    fs::create_dir_all(sandbox.path(&at("model"))).unwrap();
    for (file, bytes) in files(tiny("llama").as_ref()) {
        fs::write(sandbox.path(&at("model")).join(file), bytes).unwrap();
    }
    let (model, acts, sae, live, text) = (at("model"), at("acts"), at("sae"), at("live"), corpus("speeches"));
    let from_text = ["--model", &model, "--corpus", &text, "--ctx-len", "32", "--hook-point", POINT];
    sandbox.ok(&[&["harvest", "--tokens", "4096", "--out", &acts][..], &from_text].concat());
    let size = ["--d-sae", "64", "--k", "4", "--batch", "256", "--tokens", "4096"];
    sandbox.ok(&[&["train", "--activations", &acts, "--out", &sae][..], &size].concat());
    sandbox.ok(&[&["train", "--out", &live][..], &from_text, &size].concat());
    sandbox.ok(&["index", "--sae", &sae, "--out", &at("features")]);
    sandbox
}

/// Every command that follows a reference from one artifact to another.
fn everything_works(sandbox: &Sandbox, name: &str) {
    let at = |artifact: &str| format!("{name}/{artifact}");
    let (sae, live, features) = (at("sae"), at("live"), at("features"));
    for artifact in ["acts", "sae", "live", "features"] {
        let shown = sandbox.ok(&["inspect", &at(artifact), "--verify"]);
        assert!(!shown.contains("before"), "{artifact} is shown where it is now:\n{shown}");
    }
    for sae in [&sae, &live] {
        let evaluation = sandbox.json(&["evaluate", "--sae", sae, "--ce-tokens", "64"]).remove(0);
        assert!(evaluation["ce_loss_with_sae"].is_f64(), "{evaluation}");
    }
    sandbox.ok(&["steer", "--sae", &sae, "--prompt", "We", "--clamp", "1=0", "--max-new-tokens", "2"]);
    sandbox.ok(&["show", "--features", &features, "1"]);
    // The same run goes on, or is found finished.
    let before = files(&sandbox.path(&features));
    sandbox.ok(&["index", "--sae", &sae, "--out", &features]);
    assert!(files(&sandbox.path(&features)) == before);
    sandbox.ok(&["index", "--sae", &sae, "--out", &at("again")]);
    assert_eq!(fs::read(sandbox.path(&at("again/features.parquet"))).unwrap(), bytes_of(&before, "features.parquet"));
}

fn bytes_of(files: &[(String, Vec<u8>)], name: &str) -> Vec<u8> {
    files.iter().find(|(found, _)| found == name).unwrap().1.clone()
}

#[test]
fn a_project_that_is_moved_still_works() {
    let sandbox = project("before");
    let manifest = sandbox.read_json("before/sae/manifest.json");
    assert_eq!(manifest["activations"]["relative"], "../acts");
    assert_eq!(manifest["model"]["relative"], "../model");
    fs::create_dir(sandbox.path("deeper")).unwrap();
    fs::rename(sandbox.path("before"), sandbox.path("deeper/after")).unwrap();
    everything_works(&sandbox, "deeper/after");
    // Only where nothing is left do the commands say so, and name both places.
    fs::rename(sandbox.path("deeper/after/acts"), sandbox.path("hidden")).unwrap();
    let message = sandbox.error(&["evaluate", "--sae", "deeper/after/sae"]);
    for part in ["deeper/after/acts", "before/acts", "--activations"] {
        assert!(message.contains(part), "{message}");
    }
    sandbox.ok(&["evaluate", "--sae", "deeper/after/sae", "--activations", "hidden", "--ce-tokens", "64"]);
}

/// The model's folder moves away from the project, as when a colleague gets the runs alone.
#[test]
fn a_model_that_moved_is_named_and_must_be_the_same() {
    let sandbox = project("before");
    fs::rename(sandbox.path("before/model"), sandbox.path("elsewhere")).unwrap();
    let commands = [
        &["evaluate", "--sae", "before/sae", "--ce-tokens", "64"][..],
        &["index", "--sae", "before/sae", "--out", "features"],
        &["steer", "--sae", "before/sae", "--prompt", "We", "--clamp", "1=0", "--max-new-tokens", "2"],
    ];
    for command in commands {
        let message = sandbox.error(command);
        assert!(
            message.contains("the model of before/sae cannot be opened") && message.contains("--model"),
            "{message}"
        );
        let message = sandbox.error(&[command, &["--model", &tiny("llama_untied")]].concat());
        assert!(message.contains("SHA-256"), "another model: {message}");
        sandbox.ok(&[command, &["--model", "elsewhere"]].concat());
    }
}

/// Transfer to a model of the same width is asked for, and said.
#[test]
fn an_sae_is_used_on_another_model_if_that_is_asked_for() {
    let sandbox = project("before");
    let (other, text) = (tiny("llama_untied"), corpus("speeches"));
    let harvest = ["harvest", "--tokens", "4096", "--ctx-len", "32", "--hook-point", POINT, "--corpus", &text];
    sandbox.ok(&[&harvest[..], &["--model", &other, "--out", "acts"]].concat());
    let evaluate = ["evaluate", "--sae", "before/sae", "--activations", "acts", "--ce-tokens", "64"];
    assert!(sandbox.error(&evaluate).contains("--other-model"));
    let transfer = [&evaluate[..], &["--other-model", "--json"]].concat();
    let output = sandbox.run(&transfer);
    assert!(String::from_utf8_lossy(&output.stderr).contains("was trained on"), "{output:?}");
    let transferred: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(transferred["held_out"], false);
    // Another tool's SAE of the same weights is measured the same, but for the rounding of the conversion.
    sandbox.ok(&["convert", "before/sae", "--to", "dictionary-learning", "--out", "foreign"]);
    let foreign = ["evaluate", "--sae", "foreign", "--activations", "acts", "--ce-tokens", "64"];
    let (foreign, transferred) = (sandbox.json(&foreign)[0]["fvu"].as_f64(), transferred["fvu"].as_f64());
    assert!((foreign.unwrap() - transferred.unwrap()).abs() < 1e-7, "{foreign:?} {transferred:?}");
    let steer = ["steer", "--sae", "before/sae", "--prompt", "We", "--clamp", "1=0", "--max-new-tokens", "2"];
    sandbox.ok(&[&steer[..], &["--other-model", "--model", &other]].concat());
    assert!(sandbox.error(&[&steer[..], &["--other-model"]].concat()).contains("has no effect"));
}

#[test]
fn an_index_of_an_sae_that_was_trained_again_in_its_place_is_noticed() {
    let sandbox = project("before");
    let shows = |args: &[&str]| {
        let output = sandbox.run(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).contains("those of another SAE")
    };
    let show = ["show", "--features", "before/features", "1"];
    assert!(!shows(&show));
    fs::remove_dir_all(sandbox.path("before/sae")).unwrap();
    assert!(!shows(&show), "an index alone is read as it is");
    let train = ["train", "--activations", "before/acts", "--out", "before/sae", "--d-sae", "64", "--k", "8"];
    sandbox.ok(&[&train[..], &["--batch", "256", "--tokens", "4096"]].concat());
    assert!(shows(&show));
    assert!(shows(&["inspect", "before/features"]));
}

#[test]
fn a_finished_index_without_its_tables_is_not_called_finished() {
    let sandbox = project("before");
    fs::remove_file(sandbox.path("before/features/examples.parquet")).unwrap();
    let index = ["index", "--sae", "before/sae", "--out", "before/features"];
    for command in [&index[..], &["show", "--features", "before/features"]] {
        let message = sandbox.error(command);
        assert!(message.contains("examples.parquet") && message.contains("no such file"), "{message}");
    }
    fs::remove_file(sandbox.path("before/features/manifest.json")).unwrap();
    sandbox.ok(&index);
}

#[test]
fn another_model_beside_a_copy_is_not_taken_for_the_models_own() {
    let sandbox = project("before");
    fs::create_dir(sandbox.path("copy")).unwrap();
    fs::rename(sandbox.path("before/sae"), sandbox.path("copy/sae")).unwrap();
    fs::create_dir(sandbox.path("copy/model")).unwrap();
    for (file, bytes) in files(tiny("gpt2").as_ref()) {
        fs::write(sandbox.path("copy/model").join(file), bytes).unwrap();
    }
    sandbox.ok(&["evaluate", "--sae", "copy/sae", "--ce-tokens", "64"]);
}

#[test]
fn an_sae_taken_out_of_its_project_finds_the_activations_where_they_were() {
    let sandbox = project("before");
    fs::rename(sandbox.path("before/sae"), sandbox.path("sae")).unwrap();
    sandbox.ok(&["evaluate", "--sae", "sae", "--ce-tokens", "64"]);
}

#[test]
fn folders_of_the_first_version_are_read() {
    let sandbox = project("before");
    for (folder, fields) in [("sae", &["activations"][..])] {
        let file = format!("before/{folder}/manifest.json");
        let mut manifest = sandbox.read_json(&file);
        for field in fields {
            let artifact = manifest[*field].take();
            manifest[*field] = artifact["absolute"].clone();
            manifest[format!("{field}_manifest_sha256")] = artifact["sha256"].clone();
        }
        manifest["version"] = json!(1);
        sandbox.write(&file, summed(manifest));
    }
    sandbox.ok(&["evaluate", "--sae", "before/sae"]);
    // An index of an earlier version lacks what an index holds now.
    let mut features = sandbox.read_json("before/features/manifest.json");
    features["version"] = json!(2);
    sandbox.write("before/features/manifest.json", summed(features));
    let message = sandbox.error(&["show", "--features", "before/features", "1"]);
    assert!(
        message.contains("expected version 4, found version 2") && message.contains("`refract index`"),
        "{message}"
    );
    sandbox.ok(&["index", "--sae", "before/sae", "--out", "features"]);
}

/// The manifest's text, its last field being its own checksum.
fn summed(mut manifest: Value) -> String {
    let zeros = "0".repeat(64);
    manifest.as_object_mut().unwrap().shift_remove("manifest_sha256");
    manifest["manifest_sha256"] = json!(zeros);
    let text = serde_json::to_string_pretty(&manifest).unwrap() + "\n";
    let sum = harvester::sha256_bytes([&text]);
    text.replace(&zeros, &sum)
}
