//! `refract sweep`, and runs that begin from an SAE, on handwritten digits.

use crate::sandbox::{Sandbox, files, root};

fn digits() -> String {
    root().join("data/digits/digits-2000.parquet").display().to_string()
}

#[test]
fn a_grid_of_saes_is_trained_in_one_command_and_compared() {
    let sandbox = Sandbox::new();
    let digits = digits();
    let size = ["--vectors", &digits, "--d-sae", "64", "--tokens", "4096", "--batch", "256", "--out"];
    let grid = [&["sweep"][..], &size, &["grid", "--k", "4,8", "--arch", "topk,batch-topk"]].concat();
    let result = sandbox.json(&grid).remove(0);
    let rows = result["runs"].as_array().unwrap();
    let mut names: Vec<_> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["batch-topk-k4-d64", "batch-topk-k8-d64", "topk-k4-d64", "topk-k8-d64"]);
    assert!(rows.iter().all(|row| row["state"] == "finished" && row["hook_point"] == "pixels"), "{rows:?}");
    assert_eq!(sandbox.read_json("grid/sweep.json")["runs"], result["runs"]);
    let page = std::fs::read_to_string(sandbox.path("grid/pareto.html")).unwrap();
    assert!(names.iter().all(|name| page.contains(name)));

    sandbox.ok(&[&["train"][..], &size, &["single/topk", "--k", "8", "--arch", "topk"]].concat());
    assert_eq!(files(&sandbox.path("single/topk")), files(&sandbox.path("grid/topk-k8-d64")));
    let shown = sandbox.ok(&grid);
    assert!(shown.contains("topk-k4-d64") && shown.contains("FVU") && shown.contains(" *"), "{shown}");
}

#[test]
fn the_config_file_lists_runs_and_any_option_of_train() {
    let sandbox = Sandbox::new();
    let settings = format!(
        "[sweep]\nvectors = '{}'\nd-sae = 64\ntokens = 2048\nbatch = 256\nk = 8\nheld-out-fraction = 0.1\n\
         [[sweep.run]]\narch = 'jumprelu'\nbandwidth = [0.25, 0.5]\n[[sweep.run]]\narch = 'matryoshka'\n\
         prefixes = [16, 32]\n",
        digits()
    );
    let file = sandbox.write("refract.toml", &settings);
    let result = sandbox.json(&["--config", &file, "sweep", "--out", "runs"]).remove(0);
    let mut names: Vec<_> = result["runs"].as_array().unwrap().iter().map(|row| row["name"].to_string()).collect();
    names.sort_unstable();
    assert_eq!(names.len(), 3);
    assert!(names[0].contains("jumprelu-k8-d64-bandwidth-0.25"), "{names:?}");
    assert!(names[2].contains("matryoshka-k8-d64"), "{names:?}");
    let wrong = sandbox.write("wrong.toml", settings.replace("bandwidth", "band"));
    let message = sandbox.error(&["--config", &wrong, "sweep", "--out", "other"]);
    assert!(message.contains("[[sweep.run]] of wrong.toml") && message.contains("'--bandwidth'"), "{message}");
    let both = sandbox.error(&["--config", &file, "sweep", "--out", "other", "--arch", "topk"]);
    assert!(both.contains("--arch is set there, and --arch was given, which is for all runs"), "{both}");
    let refused = |text: &str, flags: &[&str]| {
        let file = sandbox.write("refused.toml", text);
        sandbox.error(&[&["--config", &file, "sweep", "--out", "other"], flags].concat())
    };
    let listed = "[[sweep.run]]\nexpansion = 2\n";
    let excluded = refused(listed, &["--d-sae", "64"]);
    assert!(excluded.contains("--expansion is set there, and --d-sae was given"), "{excluded}");
    assert!(refused(listed, &["--lr", "0.1"]).contains("sweep needs --activations"), "another flag is no conflict");
    for (text, said) in [
        ("[sweep]\nk = []", "--k: expected one value or more, found an empty list"),
        ("[[sweep.run]]\nout = 'a'", "--out is the same for all runs"),
        ("[sweep]\nrun = 3", "expected [[sweep.run]] to be tables"),
    ] {
        let message = refused(text, &[]);
        assert!(message.contains(said), "{text}: {message}");
    }
    assert!(sandbox.error(&["sweep", "--out", "other"]).contains("sweep needs --activations"));
    assert!(sandbox.error(&["--config", &file, "sweep"]).contains("sweep needs --out"));
    assert!(!sandbox.path("other").exists());
}

#[test]
fn a_run_begins_from_an_sae_of_any_format_and_says_what_it_kept() {
    let sandbox = Sandbox::new();
    let digits = digits();
    let train =
        ["train", "--vectors", &digits, "--d-sae", "64", "--k", "8", "--tokens", "4096", "--batch", "256", "--out"];
    sandbox.ok(&[&train[..], &["first", "--arch", "topk"]].concat());
    sandbox.ok(&["convert", "first", "--to", "sparsify", "--hook-point", "hook_embed", "--out", "foreign"]);
    let output = sandbox.run(&[&train[..], &["second", "--init-from", "foreign"]].concat());
    let said = crate::sandbox::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("keeps W_enc, b_enc, W_dec, b_dec of 64 latents; Adam's moments start at zero"), "{said}");
    let manifest = sandbox.read_json("second/manifest.json");
    assert_eq!(manifest["init_from"].as_array().unwrap().len(), 2, "{manifest}");
    let narrow = sandbox
        .error(&[&train[..3], &["--d-sae", "32", "--k", "8", "--init-from", "foreign", "--out", "third"]].concat());
    assert!(narrow.contains("--init-from: expected an SAE of d_in 784, d_sae 32 (see --d-sae)"), "{narrow}");
    let gated = sandbox.error(&[&train[..], &["third", "--arch", "gated", "--init-from", "foreign"]].concat());
    assert!(gated.contains("expected one of gated, to continue as gated, found topk"), "{gated}");
    assert!(!sandbox.path("third").exists());
}

/// A learning rate at which nothing is learned.
const TOO_FAST: &str = "1";

#[test]
fn a_sweep_is_explained_and_one_that_only_diverges_fails() {
    let sandbox = Sandbox::new();
    let digits = digits();
    let sweep = ["sweep", "--vectors", &digits, "--d-sae", "64", "--k", "8", "--tokens", "4096", "--batch", "256"];
    let mixed = format!("0.003,{TOO_FAST}");
    sandbox.ok(&[&sweep[..], &["--lr", &mixed, "--out", "mixed"]].concat());
    let said = sandbox.ok(&["inspect", "mixed", "--verify"]);
    for part in ["complete", "2: 1 finished, 1 diverged", "pareto.html", "lr-0.003", "diverged: training diverged at"] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert!(said.contains("1 finished run: every byte is as recorded"), "{said}");
    let table = sandbox.read_json("mixed/sweep.json");
    assert_eq!(sandbox.json(&["inspect", "mixed"]).remove(0), table);
    let finished = table["runs"][0]["name"].as_str().unwrap();
    std::fs::write(sandbox.path("mixed").join(finished).join("sae_weights.safetensors"), "changed").unwrap();
    assert!(sandbox.error(&["inspect", "mixed", "--verify"]).contains("SHA-256"));
    sandbox.write("mixed/sweep.json", table.to_string().replace("\"finished\"", "\"unfinished\""));
    assert!(sandbox.ok(&["inspect", "mixed"]).contains("unfinished, 1 to come"));

    let output = sandbox.run(&[&sweep[..], &["--lr", TOO_FAST, "--out", "bad", "--json"]].concat());
    let (table, said) = (crate::sandbox::text(&output.stdout), crate::sandbox::text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        table.contains("\"diverged\"") && said.contains("no run finished. The first: training diverged at"),
        "{table}\n{said}"
    );
    assert!(said.contains("a smaller --lr (0.01)"), "{said}");
    for unfinished in ["bad", "bad/batch-topk-k8-d64"] {
        sandbox.ok(&["inspect", unfinished]);
        let message = sandbox.error(&["inspect", unfinished, "--verify"]);
        assert!(message.contains("found no finished run. Repeat the command"), "{message}");
    }
}
