//! Vectors of no model: handwritten digits, and files that other tools wrote. Every command that needs a model says
//! that there is none.

use std::process::Command;

use crate::sandbox::{Sandbox, root, test_python, text};

fn digits() -> String {
    root().join("data/digits/digits-2000.parquet").display().to_string()
}

#[test]
fn an_sae_of_digits_is_explained_and_what_needs_a_model_is_refused() {
    let sandbox = Sandbox::new();
    let digits = digits();
    let train = ["train", "--vectors", &digits, "--d-sae", "64", "--k", "8", "--tokens", "4096", "--batch", "256"];
    let result = sandbox.json(&[&train[..], &["--out", "sae"]].concat()).remove(0);
    assert!(result["hook_point"].is_null() && result["results"]["held_out"]["fvu"].is_f64(), "{result}");
    let shown = sandbox.ok(&["inspect", "sae", "--verify"]);
    assert!(shown.contains("digits-2000.parquet") && shown.contains("pixels: 2,000 rows of 784 numbers"), "{shown}");
    assert!(shown.contains("every byte is as recorded"), "{shown}");
    for command in [
        &["evaluate", "--sae", "sae"][..],
        &["index", "--sae", "sae", "--out", "features"],
        &["steer", "--sae", "sae", "--prompt", "a", "--clamp", "1=0"],
    ] {
        let message = sandbox.error(command);
        assert!(message.contains("trained on the vectors in") && message.contains("no model computed"), "{message}");
    }
    let wrong = sandbox.error(&[&train[..], &["--column", "pixel", "--out", "other"]].concat());
    assert!(wrong.contains("`pixel`") && wrong.contains("pixels (List(") && wrong.contains("label (UInt8)"), "{wrong}");
    assert!(!sandbox.path("other").exists());
    let few = sandbox.error(&["train", "--vectors", &digits, "--tokens", "8192", "--out", "other"]);
    assert!(few.contains("at least a batch, 4096 rows"), "{few}");
}

#[test]
fn the_config_file_names_vectors_and_a_flag_names_others() {
    let sandbox = Sandbox::new();
    let settings =
        format!("[train]\nvectors = '{}'\ncolumn = 'pixels'\nd-sae = 64\nk = 8\ntokens = 2048\nbatch = 256", digits());
    let file = sandbox.write("refract.toml", settings);
    sandbox.ok(&["--config", &file, "train", "--out", "sae"]);
    let message = sandbox.error(&["--config", &file, "train", "--activations", "nowhere", "--out", "other"]);
    assert!(message.contains("nowhere"), "{message}");
    let both = sandbox.write("both.toml", "[train]\nvectors = 'a'\nactivations = 'b'\nout = 'c'\n");
    let refused = sandbox.error(&["--config", &both, "train"]);
    assert!(
        refused.contains("both.toml") && refused.contains("cannot be used with '--vectors <VECTORS>'"),
        "{refused}"
    );
}

#[test]
fn a_column_is_one_of_vectors_wherever_the_two_are_named() {
    let sandbox = Sandbox::new();
    for command in ["train", "sweep"] {
        let size = "d-sae = 64\nk = 8\ntokens = 1024\nbatch = 256";
        let file = sandbox.write("refract.toml", format!("[{command}]\nvectors = '{}'\n{size}", digits()));
        let run = |more: &[&'static str]| [&["--config", file.as_str(), command, "--out", command][..], more].concat();
        let wrong = sandbox.error(&run(&["--column", "label"]));
        assert!(wrong.contains("label"), "{wrong}");
        sandbox.ok(&run(&["--column", "pixels"]));
        // The file's vectors give way to the activations, and a column of theirs has nothing to be of.
        let alone = sandbox.run(&run(&["--activations", "acts", "--column", "pixels"]));
        let said = text(&alone.stderr);
        assert!(alone.status.code() == Some(2) && said.contains("'--column <COLUMN>'"), "{said}");
        let file = sandbox.write("column.toml", format!("[{command}]\nactivations = 'acts'\ncolumn = 'pixels'\n"));
        let alone = sandbox.error(&["--config", &file, command, "--out", "other"]);
        assert!(alone.contains("'--column <COLUMN>'") && alone.contains("column.toml"), "{alone}");
    }
}

#[test]
fn vectors_that_pyarrow_polars_and_duckdb_wrote_are_the_same_ones() {
    let Some(python) = test_python() else { return };
    let sandbox = Sandbox::new();
    let script = root().join("tests/e2e/write_vectors.py");
    let output = Command::new(python).arg(script).arg(sandbox.path("")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let tools = [
        "pyarrow-f32",
        "pyarrow-f64",
        "pyarrow-i8",
        "pyarrow-i64",
        "pyarrow-list",
        "polars-array",
        "polars-list",
        "duckdb-list",
    ];
    let mut weights = vec![];
    for name in tools {
        let path = format!("{name}.parquet");
        let size = ["--d-sae", "24", "--k", "2", "--tokens", "20480", "--batch", "512", "--column", "x"];
        let result = sandbox.json(&[&["train", "--vectors", &path, "--out", name][..], &size].concat()).remove(0);
        let fvu = result["results"]["held_out"]["fvu"].as_f64().unwrap();
        assert!(fvu < 0.3, "{name}: {fvu}");
        weights.push(result["results"]["weights_sha256"].clone());
    }
    // However the tools have cut them into row groups and pages.
    assert!(weights.iter().all(|hash| *hash == weights[0]), "{weights:?}");
    let half = sandbox.json(&[
        "train",
        "--vectors",
        "pyarrow-f16.parquet",
        "--d-sae",
        "24",
        "--k",
        "2",
        "--tokens",
        "20480",
        "--batch",
        "512",
        "--out",
        "f16",
    ]);
    assert_eq!(half[0]["results"]["weights_sha256"], weights[0], "whole numbers are the same in half precision");
    let message =
        sandbox.error(&["train", "--vectors", "nan.parquet", "--tokens", "20480", "--batch", "512", "--out", "nan"]);
    assert!(
        message.contains("nan.parquet") && message.contains("a NaN or an infinity at index 5 in row 1234"),
        "{message}"
    );
}
