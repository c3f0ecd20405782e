//! Training on a running model: the SAE folder serves every later command, and a killed run goes on to the same
//! weights.

use std::process::{Command, Stdio};

use crate::sandbox::{Sandbox, corpus, files, tiny};

pub(crate) fn args<'a>(model: &'a str, corpus: &'a str) -> Vec<&'a str> {
    let what = ["train", "--model", model, "--corpus", corpus, "--hook-point", "blocks.1.hook_resid_post"];
    let size = ["--ctx-len", "32", "--k", "4", "--d-sae", "128", "--tokens", "100000", "--batch", "512"];
    [&what[..], &size, &["--checkpoint-every", "10", "--buffer-mib", "1", "--out", "sae"]].concat()
}

#[test]
fn a_run_killed_anywhere_goes_on_to_the_same_weights() {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let (whole, killed) = (Sandbox::new(), Sandbox::new());
    whole.ok(&args(&model, &corpus));
    (0..3).for_each(|_| killed.kill_at_new_checkpoint(&args(&model, &corpus)));
    killed.ok(&args(&model, &corpus));
    assert!(files(&whole.path("sae")) == files(&killed.path("sae")));
}

/// A limit on file sizes stands in for a full disk: checkpoints fit, the shuffle buffer of a stopped run does not.
#[cfg(unix)]
#[test]
fn a_disk_too_full_for_the_shuffle_buffer_loses_nothing() {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let (whole, stopped) = (Sandbox::new(), Sandbox::new());
    // A buffer that is larger than every other file.
    let mut args = args(&model, &corpus);
    args.iter_mut().filter(|arg| **arg == "1").for_each(|mib| *mib = "4");
    whole.ok(&args);
    let mut command = Command::new("bash");
    command.args(["-c", "trap '' XFSZ; ulimit -f 1000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_refract")]);
    command.args(&args).current_dir(stopped.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let checkpoints = stopped.path("sae/checkpoints");
    while std::fs::read_dir(&checkpoints).map_or(0, Iterator::count) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = crate::sandbox::text(&output.stderr);
    assert!(!output.status.success() && !said.contains("panicked"), "{said}");
    assert!(said.contains("the shuffle buffer is not kept and will be filled again: "), "{said}");
    assert!(
        said.contains("checkpoints/shuffle-buffer: ") && said.contains("too large"),
        "the file and the cause: {said}"
    );
    assert!(!checkpoints.join("shuffle-buffer").exists(), "the torn file takes no room");
    let inspected = stopped.ok(&["inspect", "sae"]);
    assert!(inspected.contains("unfinished") && inspected.contains("next"), "{inspected}");
    stopped.ok(&args);
    assert!(files(&whole.path("sae")) == files(&stopped.path("sae")));
}

#[test]
fn the_weights_are_read_once_for_what_is_held_out_and_for_what_is_trained_on() {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let sandbox = Sandbox::new().with_env(&[("RUST_LOG", "harvester::language_model=debug")]);
    let said = String::from_utf8(sandbox.run(&args(&model, &corpus)).stderr).unwrap();
    assert_eq!(said.matches("weights read").count(), 1, "{said}");
}

#[test]
fn a_run_without_a_checkpoint_says_that_it_begins_again() {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let sandbox = Sandbox::new();
    let mut child = sandbox.start(&args(&model, &corpus));
    while !sandbox.path("sae/manifest.json").exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // Should it have been quicker than that.
    let _ = std::fs::remove_dir_all(sandbox.path("sae/checkpoints"));
    let output = sandbox.run(&args(&model, &corpus));
    let said = crate::sandbox::text(&output.stderr);
    assert!(said.contains("no checkpoint yet: beginning again") && !said.contains("going on"), "{said}");
}

#[test]
fn later_commands_find_what_was_held_out() {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let sandbox = Sandbox::new();
    sandbox.ok(&args(&model, &corpus));
    let evaluation = &sandbox.json(&["evaluate", "--sae", "sae", "--ce-tokens", "512"])[0];
    assert!(evaluation["fvu"].as_f64().unwrap() < 1.0, "{evaluation}");
    sandbox.ok(&["index", "--sae", "sae", "--out", "features"]);
    // A project that moves keeps working: nothing in it is named by an absolute path.
    std::fs::rename(sandbox.path("sae"), sandbox.path("moved")).unwrap();
    sandbox.ok(&["evaluate", "--sae", "moved", "--ce-tokens", "512"]);
}

#[test]
fn what_is_missing_is_named() {
    let sandbox = Sandbox::new();
    let message = sandbox.error(&["train", "--out", "sae"]);
    assert!(message.contains("--activations") && message.contains("--corpus"), "{message}");
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let message = sandbox.error(&["train", "--model", &model, "--corpus", &corpus, "--out", "sae"]);
    assert!(message.contains("--hook-point"), "{message}");
}
