//! The messages that a user reads when something is wrong: which file, what was expected and found, what to do. Never a panic,
//! and nothing written before is touched.

use std::{fs, time::Duration};

use crate::sandbox::{Sandbox, corpus, files, text, tiny};

const POINT: &str = "blocks.1.hook_resid_post";

/// Harvests a tiny model; small enough to be run by the dozen.
fn harvest<'a>(model: &'a str, corpus: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed =
        ["harvest", "--model", model, "--corpus", corpus, "--out", out, "--ctx-len", "32", "--part-tokens", "1024"];
    let point = if more.contains(&"--hook-point") { &[][..] } else { &["--hook-point", POINT] };
    [&fixed[..], point, more].concat()
}

fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` is missing in:\n{message}");
    }
}

#[test]
fn models_that_are_not_there_or_not_whole() {
    let (sandbox, text) = (Sandbox::new(), corpus("speeches"));
    let message = sandbox.error(&harvest("absent.gguf", &text, "out", &[]));
    assert_says(&message, &["absent.gguf"]);
    sandbox.write("cut.gguf", b"GGUF\x03\0\0\0\x05\0\0\0\0\0\0\0");
    assert_says(&sandbox.error(&harvest("cut.gguf", &text, "out", &[])), &["cut.gguf", "GGUF"]);
    sandbox.write("prose.gguf", "It is a truth universally acknowledged");
    assert_says(&sandbox.error(&harvest("prose.gguf", &text, "out", &[])), &["prose.gguf", "GGUF"]);
    fs::create_dir(sandbox.path("strange")).unwrap();
    sandbox.write("strange/config.json", r#"{"model_type": "mamba"}"#);
    assert_says(&sandbox.error(&harvest("./strange", &text, "out", &[])), &["config.json", "mamba", "llama"]);
    assert!(!sandbox.path("out").exists());
}

#[test]
fn hook_points_that_the_model_lacks() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let past = sandbox.error(&harvest(&model, &text, "out", &["--hook-point", "blocks.3.hook_resid_post"]));
    assert_says(&past, &["blocks.3.hook_resid_post", "0 to 2"]);
    let output = sandbox.run(&harvest(&model, &text, "out", &["--hook-point", "layer_3"]));
    assert_says(&crate::sandbox::text(&output.stderr), &["layer_3", "hook_resid_post"]);
}

#[test]
fn corpora_without_usable_text() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    assert_says(&sandbox.error(&harvest(&model, "absent.txt", "out", &[])), &["absent.txt"]);
    sandbox.write("empty.txt", "");
    assert_says(&sandbox.error(&harvest(&model, "empty.txt", "out", &[])), &["empty"]);
    sandbox.write("latin1.txt", b"caf\xe9 ".repeat(200));
    assert_says(&sandbox.error(&harvest(&model, "latin1.txt", "out", &[])), &["latin1.txt", "UTF-8"]);
    sandbox.write("rows.jsonl", "{\"text\": \"one\"}\n{\"body\": \"two\"}\n");
    assert_says(&sandbox.error(&harvest(&model, "rows.jsonl", "out", &[])), &["rows.jsonl", "2", "text"]);
    assert_says(&sandbox.error(&harvest(&model, "rows.jsonl", "out", &[])), &["--skip-malformed"]);
    sandbox.write("short.txt", "too short");
    assert_says(&sandbox.error(&harvest(&model, "short.txt", "out", &[])), &["context"]);
}

#[test]
fn a_folder_of_another_run_is_refused_and_left_alone() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    sandbox.ok(&harvest(&model, &text, "out", &["--tokens", "2048"]));
    let before = files(&sandbox.path("out"));
    let message = sandbox.error(&harvest(&model, &text, "out", &["--tokens", "2048", "--dtype", "f32"]));
    assert_says(&message, &["out", "dtype", "f16", "f32"]);
    assert_eq!(files(&sandbox.path("out")), before);
    fs::create_dir(sandbox.path("mine")).unwrap();
    sandbox.write("mine/thesis.txt", "irreplaceable");
    assert_says(&sandbox.error(&harvest(&model, &text, "mine", &["--tokens", "2048"])), &["mine"]);
    assert_eq!(fs::read_to_string(sandbox.path("mine/thesis.txt")).unwrap(), "irreplaceable");
}

#[test]
fn damaged_shards_are_noticed() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    sandbox.ok(&harvest(&model, &text, "out", &["--tokens", "4096"]));
    sandbox.ok(&["inspect", "out", "--verify"]);
    let part = sandbox.path("out/part-00001.parquet");
    let whole = fs::read(&part).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 3] ^= 1;
    fs::write(&part, flipped).unwrap();
    assert_says(&sandbox.error(&["inspect", "out", "--verify"]), &["part-00001.parquet"]);
    fs::write(&part, &whole).unwrap();
    let train = ["train", "--activations", "out", "--out", "sae", "--d-sae", "64", "--k", "4"];
    let manifest = fs::read_to_string(sandbox.path("out/manifest.json")).unwrap();
    sandbox.write("out/manifest.json", manifest.replacen("\"seed\": 0", "\"seed\": 1", 1));
    assert_says(&sandbox.error(&train), &["out/manifest.json", "SHA-256", "Restore it"]);
    sandbox.write("out/manifest.json", manifest);
    fs::write(&part, &whole[..whole.len() / 2]).unwrap();
    assert_says(&sandbox.error(&train), &["part-00001.parquet"]);
    fs::remove_file(&part).unwrap();
    assert_says(&sandbox.error(&train), &["part-00001.parquet"]);
}

#[test]
fn training_settings_that_cannot_work() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    sandbox.ok(&harvest(&model, &text, "out", &["--tokens", "4096"]));
    let train = |more: &[&'static str]| [&["train", "--activations", "out", "--out", "sae"][..], more].concat();
    assert_says(&sandbox.error(&train(&["--d-sae", "16", "--k", "17"])), &["k", "16", "17"]);
    assert_says(
        &sandbox.error(&train(&["--d-sae", "64", "--hook-point", "blocks.0.hook_resid_post"])),
        &["blocks.0", POINT],
    );
    assert_says(&sandbox.error(&train(&["--d-sae", "64", "--batch", "1000000"])), &["batch"]);
    assert_says(&sandbox.error(&["train", "--activations", "absent", "--out", "sae"]), &["absent"]);
    assert_says(&sandbox.error(&["train", "--out", "sae"]), &["--activations"]);
    let wrong_flag = |more: &[&'static str]| {
        let output = sandbox.run(&train(more));
        assert_eq!(output.status.code(), Some(2), "{more:?}");
        crate::sandbox::text(&output.stderr)
    };
    for number in ["nan", "inf", "much"] {
        assert_says(&wrong_flag(&["--lr", number]), &["--lr", number, "expected a finite number"]);
    }
    let pattern = wrong_flag(&["--hook-point", "blocks.*.hook_resid_post"]);
    assert_says(&pattern, &["a pattern of several", "one hook point"]);
    let file = sandbox.error(&["train", "--activations", "out/part-00000.parquet", "--out", "sae"]);
    assert_says(&file, &["part-00000.parquet", "--vectors"]);
    let vectors = sandbox.error(&["train", "--vectors", "out", "--arch", "transcoder", "--out", "sae"]);
    assert_says(&vectors, &["--arch transcoder", "--activations"]);
}

#[test]
fn a_config_file_with_wrong_names_and_values() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    for (settings, said) in [
        ("[harvest]\nctx-length = 4\n", "[harvest] of run.toml"),
        ("[harvest]\nctx-length = 4\n", "a similar argument exists: '--ctx-len'"),
        ("[harvest]\nskip-malfromed = false\n", "a similar argument exists: '--skip-malformed'"),
        ("[harvest]\nctx-len = 'long'\n", "'--ctx-len <CTX_LEN>'"),
        ("[harvest]\nseed = 1\nno-shuffle = true\n", "cannot be used with"),
        ("[harvest]\nseed = [[1]]\n", "expected a value or a list of values"),
        ("[harvest]\nseed = false\n", "expected a value or a list of values, found false"),
        ("[harvest]\nkeep-field = []\n", "found an empty list"),
        ("[harvest]\nno-shuffle = 'yes'\n", "no-shuffle: expected true or false"),
        ("ctx-len = 4\n", "expected the tables [harvest]"),
        ("[harvets]\n", "found `harvets`"),
        ("[show]\ntop = 3\n", "found `show`: the settings of this command are flags only"),
        ("[harvest]\njson = true\n", "json is a flag only"),
        ("[harvest]\nctx-len = 2024-07-26\n", "'2024-07-26' for '--ctx-len <CTX_LEN>'"),
        ("[harvest]\nkeep-field = [[2024-07-26]]\n", "found [\"2024-07-26\"]"),
        ("harvest = 2024-07-26\n", "expected [harvest] to be a table, found \"2024-07-26\""),
    ] {
        sandbox.write("run.toml", settings);
        assert_says(&sandbox.error(&harvest_with_file(&model, &text)), &[said]);
    }
    assert!(!sandbox.path("out").exists());
}

/// A harvest that leaves --ctx-len, --seed and --keep-field to the file `run.toml`.
fn harvest_with_file<'a>(model: &'a str, corpus: &'a str) -> Vec<&'a str> {
    let args = ["harvest", "--model", model, "--corpus", corpus, "--hook-point", POINT, "--out", "out"];
    [&args[..], &["--config", "run.toml"]].concat()
}

/// A limit on file sizes stands in for a full disk: the write fails in the middle of a part.
#[test]
fn a_disk_that_fills_up_loses_nothing_and_the_run_goes_on_after() {
    let (sandbox, model, text_file) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let args = harvest(&model, &text_file, "out", &["--tokens", "8192", "--hook-point", "hook_embed", POINT]);
    let limited = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_refract")])
        .args(&args)
        .current_dir(sandbox.path(""))
        .output()
        .unwrap();
    let message = text(&limited.stderr);
    assert!(!limited.status.success() && message.contains("part-00000.journal"), "{message}");
    assert_says(&message, &["make room and repeat the command"]);
    assert!(!message.contains("panicked"), "{message}");
    sandbox.ok(&args);
    let fresh = Sandbox::new();
    fresh.ok(&args);
    assert_eq!(files(&sandbox.path("out")), files(&fresh.path("out")));
}

#[cfg(unix)]
#[test]
fn an_out_that_is_no_folder_is_refused_before_the_estimate() {
    let (sandbox, model, text) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    sandbox.write("file", "mine");
    std::os::unix::fs::symlink("absent", sandbox.path("link")).unwrap();
    fs::create_dir(sandbox.path("full")).unwrap();
    sandbox.write("full/thesis.txt", "irreplaceable");
    let live =
        ["train", "--model", &model, "--corpus", &text, "--hook-point", POINT, "--d-sae", "64", "--ctx-len", "32"];
    for (out, said) in [("file", "found a file"), ("link", "a link to absent"), ("full", "thesis.txt")] {
        for args in [harvest(&model, &text, out, &["--tokens", "2048"]), [&live[..], &["--out", out]].concat()] {
            let message = sandbox.error(&args);
            assert_says(&message, &[out, said, "another --out"]);
            assert!(!message.contains("tokens through"), "{message}");
        }
    }
}

#[test]
fn inspect_of_a_text_is_not_taken_for_a_damaged_model() {
    let sandbox = Sandbox::new();
    sandbox.write("a.txt", "It is a truth universally acknowledged");
    let message = sandbox.error(&["inspect", "a.txt"]);
    assert_says(&message, &["a.txt", "neither a folder that refract wrote nor a model"]);
    let said = sandbox.ok(&["inspect", &tiny("llama")]);
    assert_says(&said, &["blocks.*.SITE", "hook_resid_post", "layer 0 to 2"]);
}

#[test]
fn json_logs_keep_standard_error_json() {
    let (sandbox, model, text_file) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let json = ["--tokens", "2000", "--log-format", "json"];
    let good = sandbox.run(&harvest(&model, &text_file, "out", &json));
    let bad = sandbox.run(&harvest("absent.gguf", &text_file, "other", &json));
    assert!(good.status.success() && !bad.status.success());
    for (output, said) in [(good, "tokens through"), (bad, "absent.gguf")] {
        let message = text(&output.stderr);
        assert_says(&message, &[said]);
        message.lines().for_each(|line| {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
            assert!(parsed.is_ok(), "{line}");
        });
    }
}

/// A program that reads standard output gets the error there.
#[test]
fn an_error_is_json_too() {
    let sandbox = Sandbox::new();
    for (args, status, said) in [
        (&["show", "--features", "absent", "--json"][..], 1, "absent"),
        (&["show", "--featuers", "absent", "--json"], 2, "a similar argument exists: '--features'"),
    ] {
        let output = sandbox.run(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}");
        let error: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_says(error["error"].as_str().unwrap(), &[said]);
        assert!(error["because"].is_array(), "{error}");
        assert_says(&text(&output.stderr), &["error:", "absent"].map(|part| if status == 1 { part } else { "error:" }));
    }
}

/// 2 for a command line or settings that cannot be used, whoever finds out; 1 for what is not as it should be.
#[test]
fn the_exit_status_tells_usage_from_failure() {
    let (sandbox, model, speeches) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    sandbox.write("bad.toml", "[train]\nk = []\n");
    sandbox.write("empty.toml", "");
    sandbox.ok(&harvest(&model, &speeches, "acts", &["--tokens", "4096"]));
    let density = |value: &'static str| ["search", "--features", "absent", "whale", "--max-density", value];
    let usage: [(&[&str], &str); 13] = [
        (&["harvest"], "--corpus"),
        (&["train", "--activations", "acts", "--d-sae", "64"], "--out"),
        (&["encode"], "--text or --corpus"),
        (&["search", "--features", "absent", "--top", "0"], "expected 1 or more"),
        (&density("-1"), "a share above 0 and at most 1"),
        (&density("0"), "a share above 0 and at most 1"),
        (&density("1.5"), "a share above 0 and at most 1"),
        (&["train", "--activations", "acts", "--out", "sae", "--lr", "much"], "a finite number"),
        (&["train", "--config", "bad.toml"], "found an empty list"),
        (&["show", "--features", "absent", "--config", "empty.toml"], "takes no settings"),
        (&["steer", "--sae", "absent", "--prompt", "a"], "--clamp"),
        (&["steer", "--sae", "absent", "--prompt", "a", "--clamp", "1=2", "--seed", "3"], "--seed has no effect"),
        (&["compare", "sae", "sae", "--top", "0"], "expected 1 or more"),
    ];
    let failures: [(&[&str], &str); 4] = [
        (&["show", "--features", "absent"], "absent"),
        (&["train", "--activations", "absent", "--out", "sae"], "absent"),
        (&["train", "--activations", "acts", "--out", "sae", "--config", "absent.toml"], "absent.toml"),
        (&["inspect", "absent"], "absent"),
    ];
    for (cases, status) in [(&usage[..], 2), (&failures[..], 1)] {
        for (args, said) in cases {
            let output = sandbox.run(args);
            let message = text(&output.stderr);
            assert_eq!(output.status.code(), Some(status), "{args:?}: {message}");
            assert_says(&message, &["error:", said]);
        }
    }
}

/// The message says what `--sae` names, and calls it an SAE of another tool only if it is one.
#[test]
fn what_is_no_sae_is_named() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let evaluate = |sae: &str| sandbox.error(&["evaluate", "--sae", sae]);
    assert_says(&evaluate("nope"), &["nope", "found no such file or folder"]);
    assert_says(&evaluate(&model), &["expected an SAE, found a model"]);
    fs::create_dir(sandbox.path("sweep")).unwrap();
    sandbox.write("sweep/sweep.json", "{}");
    assert_says(&evaluate("sweep"), &["expected an SAE, found a sweep, which holds one folder per SAE"]);
}

fn signal(child: &std::process::Child, name: &str) {
    let killed = std::process::Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn ctrl_c_in_a_harvest_loses_nothing() {
    a_signal_in_a_harvest_loses_nothing("-INT");
}

#[test]
fn a_termination_in_a_harvest_loses_nothing() {
    a_signal_in_a_harvest_loses_nothing("-TERM");
}

/// `timeout` and job schedulers signal a program and then its group: that is one request, and the work is still saved.
#[test]
fn signals_at_the_same_time_are_one_request() {
    stopped_harvest(&["-TERM", "-TERM"]);
    stopped_harvest(&["-INT", "-HUP", "-TERM"]);
}

fn a_signal_in_a_harvest_loses_nothing(name: &str) {
    let sandbox = stopped_harvest(&[name]);
    let (model, text_file) = (tiny("llama"), corpus("speeches"));
    let args = long_harvest(&model, &text_file);
    sandbox.ok(&args);
    let fresh = Sandbox::new();
    fresh.ok(&args);
    assert!(files(&sandbox.path("out")) == files(&fresh.path("out")), "the resumed folder differs");
}

fn long_harvest<'a>(model: &'a str, corpus: &'a str) -> Vec<&'a str> {
    harvest(model, corpus, "out", &["--tokens", "400000"])
}

/// A harvest that is stopped by signals after its third part.
fn stopped_harvest(signals: &[&str]) -> Sandbox {
    let (sandbox, model, text_file) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let mut child = sandbox.start(&long_harvest(&model, &text_file));
    while !sandbox.path("out/part-00002.parquet").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(2));
    }
    signals.iter().for_each(|name| signal(&child, name));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    // The progress so far stays on the screen.
    assert_says(&text(&output.stderr), &["stopped on request", "out", "harvest: ", " of 400,000 tokens", "to go on: "]);
    sandbox
}

#[test]
fn short_help_fits_a_screen_and_marks_what_is_required() {
    let sandbox = Sandbox::new();
    for command in ["harvest", "train", "sweep"] {
        let (short, whole) = (sandbox.ok(&[command, "-h"]), sandbox.ok(&[command, "--help"]));
        let words = short.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(short.lines().count() < 50 && words.contains("[required, here or in --config]"), "{short}");
        assert!(whole.lines().count() > 2 * short.lines().count(), "{command}");
    }
}

#[test]
fn a_harvest_that_has_just_begun_is_explained_with_a_command_that_can_be_pasted() {
    let (sandbox, model, text_file) = (Sandbox::new(), tiny("llama"), corpus("speeches"));
    let args = ["--model", &model, "--corpus", &text_file, "--out", "it's out", "--ctx-len", "32", "--tokens", "40k"];
    let mut child = sandbox.start(&[&["harvest", "--hook-point", POINT][..], &args].concat());
    let journal = sandbox.path("it's out/.resume/part-00000.journal");
    while fs::metadata(&journal).map_or(0, |file| file.len()) < 10_000 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let explained = sandbox.ok(&["inspect", "it's out"]);
    assert_says(&explained, &["unfinished: ", " tokens in its journal", "no part yet", POINT]);
    assert!(!explained.contains("unfinished: 0 tokens"), "{explained}");
    let (_, command) = explained.split_once("To go on where it stopped: ").unwrap();
    let mut shell = std::process::Command::new("sh");
    let command = command.lines().next().unwrap();
    assert!(shell.arg("-c").arg(command).current_dir(sandbox.path("")).status().unwrap().success(), "{command}");
    let finished = sandbox.ok(&["inspect", "it's out"]);
    assert!(finished.contains("complete") && !finished.contains("To go on"), "{finished}");
    assert!(!sandbox.path("it's out/.resume").exists());
}
