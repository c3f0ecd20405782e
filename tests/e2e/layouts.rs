//! Every dtype and layout of activations, opened by the tools that users have: pyarrow, polars and DuckDB.

use std::process::Command;

use crate::sandbox::{Sandbox, corpus, root, test_python, text, tiny};

#[test]
fn every_dtype_and_layout_opens_in_pyarrow_polars_and_duckdb() {
    let Some(python) = test_python() else { return };
    let sandbox = Sandbox::new();
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    for dtype in ["f32", "f16", "int8"] {
        for layout in ["list", "binary"] {
            let out = format!("{dtype}-{layout}");
            sandbox.ok(&[
                "harvest",
                "--model",
                &model,
                "--corpus",
                &corpus,
                "--hook-point",
                "blocks.1.hook_resid_post",
                "hook_embed",
                "--ctx-len",
                "32",
                "--part-tokens",
                "2048",
                "--tokens",
                "5000",
                "--dtype",
                dtype,
                "--layout",
                layout,
                "--out",
                &out,
            ]);
        }
    }
    let script = root().join("tests/e2e/read_layouts.py");
    let output = Command::new(python).arg(script).arg(sandbox.path("")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn an_sae_is_trained_and_indexed_on_every_storage() {
    let sandbox = Sandbox::new();
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let mut fvu = vec![];
    for (dtype, layout) in [("f32", "list"), ("int8", "list"), ("int8", "binary")] {
        let name = |what: &str| format!("{what}-{dtype}-{layout}");
        let (acts, sae, features) = (name("acts"), name("sae"), name("features"));
        sandbox.ok(&[
            "harvest",
            "--model",
            &model,
            "--corpus",
            &corpus,
            "--hook-point",
            "blocks.1.hook_resid_post",
            "--ctx-len",
            "32",
            "--tokens",
            "16384",
            "--dtype",
            dtype,
            "--layout",
            layout,
            "--out",
            &acts,
        ]);
        sandbox.ok(&[
            "train",
            "--activations",
            &acts,
            "--d-sae",
            "128",
            "--k",
            "8",
            "--tokens",
            "65536",
            "--batch",
            "512",
            "--out",
            &sae,
        ]);
        sandbox.ok(&["index", "--sae", &sae, "--out", &features]);
        let manifest = sandbox.read_json(&format!("{sae}/manifest.json"));
        fvu.push(manifest["results"]["held_out"]["fvu"].as_f64().unwrap());
    }
    // int8's own error is a thousandth of the variance or so; training from it is another path to nearly the same
    // place.
    assert!(fvu[0] < 1.0 && (fvu[1] / fvu[0] - 1.0).abs() < 0.05, "{fvu:?}");
    assert_eq!(fvu[1], fvu[2], "layouts hold the same numbers");
}
