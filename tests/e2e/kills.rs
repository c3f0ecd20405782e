//! A harvest that is killed, again and again, at any moment, and one whose disk fills up. Each time the same command is
//! repeated, and in the end the folder has the bytes of a run that nothing happened to.

use std::{fs, path::Path, process::Command, time::Duration};

use serde_json::Value;

use crate::sandbox::{Sandbox, corpus, files, text, tiny};

/// Kills at least; the run is long enough for many more.
const KILLS: u32 = 25;

/// Small batches and small parts: many places to be killed at.
fn harvest(out: &str) -> Vec<String> {
    let (model, corpus) = (tiny("llama"), corpus("speeches"));
    let args = [
        "harvest",
        "--model",
        &model,
        "--corpus",
        &corpus,
        "--hook-point",
        "blocks.0.hook_resid_post",
        "blocks.1.hook_resid_post",
        "--ctx-len",
        "32",
        "--batch",
        "4",
        "--part-tokens",
        "1024",
        "--tokens",
        "60000",
        "--out",
        out,
    ];
    args.map(String::from).to_vec()
}

fn borrowed(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Tokens of the finished parts.
fn finished_tokens(sandbox: &Sandbox, out: &str) -> u64 {
    let bytes = fs::read(sandbox.path(&format!("{out}/manifest.json"))).unwrap_or_default();
    let manifest: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    manifest["counts"]["tokens"].as_u64().unwrap_or(0)
}

/// Bytes of the journal, if there is one.
fn journal_bytes(out: &Path) -> u64 {
    let entries = fs::read_dir(out.join(".resume")).into_iter().flatten().filter_map(Result::ok);
    let journals = entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "journal"));
    journals.map(|entry| entry.metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[test]
fn a_harvest_killed_at_random_moments_ends_in_the_same_bytes() {
    let sandbox = Sandbox::new();
    sandbox.ok(&borrowed(&harvest("whole")));
    let args = harvest("killed");
    let (mut random, mut kills, mut in_a_part) = (0x2545_f491_4f6c_dd1d_u64, 0, 0);
    loop {
        let before = finished_tokens(&sandbox, "killed");
        let mut child = sandbox.start(&borrowed(&args));
        // Until it has begun to work, and then for a random time: xorshift.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let extra = Duration::from_micros(random % 20_000);
        let start = journal_bytes(&sandbox.path("killed"));
        while finished_tokens(&sandbox, "killed") == before && journal_bytes(&sandbox.path("killed")) == start {
            if child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(extra);
        child.kill().unwrap(); // SIGKILL
        let status = child.wait_with_output().unwrap();
        if status.status.success() {
            break;
        }
        assert_eq!(status.status.code(), None, "it failed by itself:\n{}", text(&status.stderr));
        kills += 1;
        in_a_part += u32::from(journal_bytes(&sandbox.path("killed")) > 0);
        assert!(finished_tokens(&sandbox, "killed") >= before, "what was finished stays");
    }
    assert!(kills >= KILLS, "only {kills} kills: the run is too short for this test");
    assert!(in_a_part >= KILLS / 2, "only {in_a_part} of {kills} kills left a journal");
    compare(&sandbox, "killed");
}

/// The folder has the files of the uninterrupted run, and nothing else.
fn compare(sandbox: &Sandbox, out: &str) {
    let (whole, other) = (files(&sandbox.path("whole")), files(&sandbox.path(out)));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&whole), names(&other));
    for ((name, whole), (_, other)) in whole.iter().zip(&other) {
        assert!(whole == other, "{name} of {out} differs");
    }
    sandbox.ok(&["inspect", out, "--verify"]);
}

/// A limit on the size of a file makes a write fail in its middle, as a full disk does: the system writes what fits,
/// then refuses. Journals, parts and manifests have different sizes, so that different limits hit different files.
#[test]
#[cfg(unix)]
fn a_harvest_whose_disk_is_full_goes_on_when_there_is_room() {
    let sandbox = Sandbox::new();
    sandbox.ok(&borrowed(&harvest("whole")));
    let args = harvest("full");
    let mut refused = std::collections::BTreeSet::new();
    for blocks in (1..=300).step_by(13) {
        let limited = format!("ulimit -f {blocks}; trap '' XFSZ; exec \"$0\" \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_refract")]).args(&args).current_dir(sandbox.path(""));
        let output = command.output().unwrap();
        if output.status.success() {
            break;
        }
        let message = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains("error:") && message.contains("full"), "{message}");
        let extensions = ["manifest.json", "journal", "parquet"];
        refused.extend(extensions.into_iter().filter(|extension| message.contains(extension)));
        // The parts that were there are whole.
        if finished_tokens(&sandbox, "full") > 0 {
            sandbox.ok(&["inspect", "full", "--verify"]);
        }
    }
    assert!(refused.len() >= 2, "only {refused:?} were refused: the limits are the wrong ones");
    sandbox.ok(&borrowed(&args));
    compare(&sandbox, "full");
}

#[test]
fn two_processes_do_not_write_to_one_folder() {
    let sandbox = Sandbox::new();
    let args = harvest("out");
    let mut first = sandbox.start(&borrowed(&args));
    while journal_bytes(&sandbox.path("out")) == 0 {
        assert!(first.try_wait().unwrap().is_none(), "it ended before the second began");
        std::thread::sleep(Duration::from_micros(200));
    }
    let message = sandbox.error(&borrowed(&args));
    assert!(message.contains("another process"), "{message}");
    assert!(first.wait().unwrap().success());
}

#[test]
fn parts_are_harvested_merged_and_inspected() {
    let sandbox = Sandbox::new();
    for part in ["0/2", "1/2"] {
        let out = format!("parts/{}", &part[..1]);
        let args = [harvest(&out), vec!["--part".into(), part.into(), "--tokens".into(), "2048".into()]].concat();
        let args: Vec<_> = args.into_iter().filter(|arg| arg != "60000").collect();
        let place = args.iter().position(|arg| arg == "--tokens").unwrap();
        sandbox.ok(&borrowed(&[&args[..place], &args[place + 1..]].concat()));
    }
    let merged = sandbox.json(&["merge", "parts/0", "parts/1", "--out", "merged"]).remove(0);
    assert_eq!(merged["counts"]["tokens"], 4096);
    assert!(sandbox.ok(&["inspect", "merged", "--verify"]).contains("2 parts of the corpus"));
    assert!(sandbox.ok(&["inspect", "parts", "--verify"]).contains("4,096"));
    let of_folder = sandbox.json(&["merge", "parts", "--out", "parts/merged"]).remove(0);
    assert_eq!(of_folder["counts"], merged["counts"]);
    fs::remove_dir_all(sandbox.path("parts/merged")).unwrap();
    assert!(sandbox.error(&["merge", "parts/0", "--out", "other"]).contains("part 1/2"));
    for activations in ["merged", "parts"] {
        let out = format!("sae-{activations}");
        sandbox.ok(&[
            "train",
            "--activations",
            activations,
            "--hook-point",
            "blocks.1.hook_resid_post",
            "--d-sae",
            "64",
            "--k",
            "4",
            "--tokens",
            "8192",
            "--batch",
            "256",
            "--out",
            &out,
        ]);
    }
    let weights = |folder: &str| fs::read(sandbox.path(&format!("{folder}/sae_weights.safetensors"))).unwrap();
    assert!(weights("sae-merged") == weights("sae-parts"), "the folder of parts is the merged dataset");
}
