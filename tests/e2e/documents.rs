//! The table of documents: every document number leads back to the file and line it came from, with the fields kept
//! beside it, however often the harvest was interrupted and in however many parts it was made.

use std::{collections::HashMap, process::Command};

use serde_json::{Value, json};

use crate::sandbox::{Sandbox, files, test_python, tiny};

/// Prints a parquet file as JSON lines.
const TO_JSON: &str = "import sys, json, pyarrow.parquet as pq
for file in sys.argv[1:]:
    for row in pq.read_table(file).to_pylist(): print(json.dumps(row))";

/// The rows of a file, or of several with a space between their names.
fn rows(sandbox: &Sandbox, python: &str, names: &str) -> Vec<Value> {
    let paths = names.split(' ').map(|name| sandbox.path(name));
    let output = Command::new(python).args(["-c", TO_JSON]).args(paths).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Forty labelled lines, two of them repeated, a blank one, an empty text, a short one and a malformed one.
fn labelled(sandbox: &Sandbox) -> (String, HashMap<u64, (String, Value)>) {
    let (mut lines, mut labels) = (String::new(), HashMap::new());
    for i in 1..=40_u64 {
        let text = match i {
            5 => String::new(),
            9 | 12 => "the cat sat on the mat, and then 3 dogs came".into(),
            7 => "a".into(),
            _ => format!("the cat sat on the mat, and then {i} dogs came. {}", "and sat. ".repeat(i as usize % 4)),
        };
        let label = if i % 3 == 0 { json!("news") } else { json!(i) };
        match i {
            4 => lines.push('\n'),
            11 => lines.push_str("{\"text\": \"cut\n"),
            _ => lines.push_str(&format!("{}\n", json!({ "text": text, "id": format!("id {i}"), "label": label }))),
        }
        labels.insert(i, (text, label));
    }
    (sandbox.write("labelled.jsonl", lines), labels)
}

fn harvest<'a>(model: &'a str, corpus: &'a [&'a str], more: &[&'a str]) -> Vec<&'a str> {
    let args = ["harvest", "--model", model, "--hook-point", "hook_embed", "--ctx-len", "16", "--batch", "2"];
    [&args[..], &["--part-tokens", "64", "--min-document-tokens", "3", "--skip-malformed", "--corpus"], corpus, more]
        .concat()
}

#[test]
fn labels_are_joined_by_line_and_none_is_anothers() {
    let Some(python) = test_python() else { return };
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let (corpus, labels) = labelled(&sandbox);
    sandbox.ok(&harvest(&model, &[&corpus], &["--keep-field", "id,label", "--out", "acts"]));
    let documents = rows(&sandbox, &python, "acts/documents.parquet");
    let mut reasons: HashMap<String, Vec<u64>> = HashMap::new();
    for row in &documents {
        let line = row["line"].as_u64().unwrap();
        let (text, label) = &labels[&line];
        assert_eq!((row["source"].as_str(), row["file"].as_str()), (Some("labelled"), Some("labelled.jsonl")));
        assert!(row["row"].is_null());
        if row["document"].is_number() || row["left_out"] == "repeated" {
            assert_eq!(row["id"], format!("id {line}"));
            assert_eq!(row["label"], label.as_str().map_or(label.to_string(), str::to_owned));
        }
        if row["document"].is_number() {
            assert_eq!(row["sha256"].as_str().unwrap(), harvester::sha256_bytes([text]));
        }
        let bytes = std::fs::read(sandbox.path(&corpus)).unwrap();
        let (first, n) = (row["first_byte"].as_u64().unwrap() as usize, row["bytes"].as_u64().unwrap() as usize);
        let before = bytes[..first].iter().filter(|byte| **byte == b'\n').count() as u64;
        assert_eq!((before + 1, bytes[first + n - 1]), (line, b'\n'));
        reasons.entry(row["left_out"].as_str().unwrap_or("").into()).or_default().push(line);
    }
    assert_eq!((&reasons["repeated"], &reasons["malformed"]), (&vec![12], &vec![11]));
    assert_eq!((&reasons["empty"], &reasons["short"]), (&vec![5], &vec![7]));
    // Every line but the blank one is there once, and every row of the parts belongs to a line that is not left out.
    assert_eq!(documents.len(), 39);
    let known: HashMap<_, _> = documents.iter().map(|row| (row["document"].as_u64(), &row["left_out"])).collect();
    for part in sandbox.read_json("acts/manifest.json")["parts"].as_array().unwrap() {
        for row in rows(&sandbox, &python, &format!("acts/{}", part["file"].as_str().unwrap())) {
            assert!(known[&row["document"].as_u64()].is_null(), "{row}");
        }
    }
    let listed = &sandbox.read_json("acts/manifest.json")["documents"];
    assert_eq!((&listed["rows"], &listed["file"]), (&json!(39), &json!("documents.parquet")));
}

#[test]
fn documents_of_every_kind_of_file_lead_back_to_it() {
    let Some(python) = test_python() else { return };
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    std::fs::create_dir_all(sandbox.path("texts/deep")).unwrap();
    sandbox.write("texts/one.txt", "the cat sat on the mat, and then one dog came");
    sandbox.write("texts/two.md", "the cat sat on the mat, and then two dogs came");
    sandbox.write("texts/deep/three.txt", "the cat sat on the mat, and then three dogs came");
    let table = crate::sandbox::root().join("tests/fixtures/corpora/snappy.parquet").display().to_string();
    sandbox.ok(&harvest(&model, &["texts", &table], &["--keep-field", "id", "--out", "acts"]));
    let mut seen = vec![];
    for row in rows(&sandbox, &python, "acts/documents.parquet") {
        let file = row["file"].as_str().unwrap().to_owned();
        if file == "snappy.parquet" {
            let (row, document) = (row["row"].as_u64().unwrap(), row["document"].as_u64().unwrap());
            assert_eq!(row + 3, document, "rows are numbered through the file's row groups");
        } else {
            assert!(row["row"].is_null() && row["line"].is_null() && row["first_byte"] == 0 && row["id"].is_null());
            seen.push((row["source"].as_str().unwrap().to_owned(), file));
        }
    }
    seen.sort();
    let expected = [("deep", "three.txt"), ("one", "one.txt"), ("two", "two.md")];
    assert_eq!(seen, expected.map(|(source, file)| (source.to_owned(), file.to_owned())));
    let message = sandbox.error(&harvest(&model, &["texts"], &["--keep-field", "label", "--out", "none"]));
    assert!(message.contains("--keep-field label") && message.contains("none, or only null and NaN, in"), "{message}");
}

/// Lines of "odd" and "even" documents in turns, beside a table whose rows have numbers.
#[test]
fn the_values_of_a_field_are_the_sources_everywhere() {
    let Some(python) = test_python() else { return };
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let of = |i: usize| if i % 2 == 1 { "odd" } else { "even" };
    let text =
        |i: usize| if i % 2 == 1 { "the cat sat on the mat. " } else { "3 dogs came, and then " }.repeat(i % 5 + 1);
    let line = |i: usize| format!("{}\n", json!({ "text": format!("{} {i}", text(i)), "id": of(i) }));
    // The last line repeats the first one's text, as of a source that has no other document.
    let repeated = format!("{}\n", json!({ "text": format!("{} 1", text(1)), "id": "copies" }));
    let lines = sandbox.write("lines.jsonl", (1..=60).map(line).chain([repeated]).collect::<String>());
    let table = crate::sandbox::root().join("tests/fixtures/corpora/snappy.parquet").display().to_string();
    sandbox.ok(&harvest(&model, &[&lines, &table], &["--source-field", "id", "--keep-field", "id", "--out", "acts"]));
    let documents = rows(&sandbox, &python, "acts/documents.parquet");
    assert!(documents.iter().all(|row| row["source"] == row["id"]), "a value is the source");
    let left_out: Vec<_> = documents.iter().filter(|row| row["document"].is_null()).collect();
    assert_eq!((left_out.len(), &left_out[0]["source"]), (1, &json!("copies")), "also of a line that was left out");
    let manifest = sandbox.read_json("acts/manifest.json");
    let names: Vec<_> = manifest["sources"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap()).collect();
    assert_eq!((names.len(), &names[..3]), (42, &["odd", "even", "0"][..]));
    // Tokens by source, from the rows of the parts and from the manifest.
    let of_document: HashMap<_, _> = documents.iter().map(|row| (row["document"].as_u64(), &row["source"])).collect();
    let (mut expected, mut counted) = (HashMap::<&str, u64>::new(), HashMap::new());
    let mut parts = vec![];
    for part in manifest["parts"].as_array().unwrap() {
        parts.push(format!("acts/{}", part["file"].as_str().unwrap()));
        for counts in part["sources"].as_array().unwrap() {
            let name = names[counts["source"].as_u64().unwrap() as usize];
            *counted.entry(name).or_insert(0) += counts["tokens"].as_u64().unwrap();
        }
    }
    for row in &rows(&sandbox, &python, &parts.join(" ")) {
        *expected.entry(of_document[&row["document"].as_u64()].as_str().unwrap()).or_default() += 1;
    }
    assert_eq!(counted, expected);
    assert!(sandbox.ok(&["inspect", "acts"]).contains("odd ("));
    let train = ["train", "--activations", "acts", "--out", "sae", "--batch", "128", "--tokens", "8192", "--k", "4"];
    sandbox.ok(&[&train[..], &["--d-sae", "64"]].concat());
    sandbox.ok(&["index", "--sae", "sae", "--out", "features"]);
    let found = sandbox.json(&["find", "--features", "features", "--positive", "odd", "--negative", "even"]).remove(0);
    let found = &found["latents"];
    assert!(found[0]["auc"].as_f64().unwrap() > 0.7, "{}", found[0]);
    for row in rows(&sandbox, &python, "features/documents.parquet") {
        let of_harvest = documents.iter().find(|of| of["document"] == row["document"]).unwrap();
        assert!(["source", "file", "line", "row", "id"].iter().all(|name| row[*name] == of_harvest[*name]), "{row}");
    }
    // The place of an example, also where the activations are no longer.
    std::fs::remove_dir_all(sandbox.path("acts")).unwrap();
    let latent = found[0]["latent"].to_string();
    let shown = sandbox.json(&["show", "--features", "features", &latent]).remove(0);
    let example = &shown["examples"][0];
    let of_example = shown["documents"].as_array().unwrap().iter().find(|of| of["document"] == example["document"]);
    let (file, line) = (&of_example.unwrap()["file"], &of_example.unwrap()["line"]);
    let of_harvest = documents.iter().find(|of| of["document"] == example["document"]).unwrap();
    assert_eq!((file, line), (&of_harvest["file"], &of_harvest["line"]));
    assert_eq!(of_example.unwrap()["fields"]["id"], of_harvest["id"]);
    let printed = sandbox.ok(&["show", "--features", "features", &latent]);
    let place =
        line.as_u64().map_or_else(|| format!("row {}", of_harvest["row"]), |line| format!("lines.jsonl:{line}"));
    assert!(printed.contains(&format!("{place}  ")), "{printed}");
    let tagged = sandbox.write("tagged.jsonl", "{\"text\": \"the cat sat\", \"tags\": [\"a\"]}\n");
    let message = sandbox.error(&harvest(&model, &[&tagged], &["--source-field", "tags", "--out", "none"]));
    assert!(message.contains("--source-field") && message.contains("--keep-field tags"), "{message}");
}

#[test]
fn the_table_is_the_same_after_kills_an_extension_and_a_loss_and_is_verified() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let (corpus, _) = labelled(&sandbox);
    let run = |tokens: &str, out: &str| {
        let more = ["--keep-field", "id,label", "--tokens", tokens, "--out", out];
        sandbox.command(&harvest(&model, &[&corpus], &more))
    };
    let ok = |tokens: &str, out: &str| assert!(run(tokens, out).status().unwrap().success());
    ok("320", "whole");
    ok("96", "grown");
    ok("320", "grown");
    let mut grown = files(&sandbox.path("grown"));
    grown.retain(|(name, _)| !name.starts_with("earlier/"));
    assert!(grown == files(&sandbox.path("whole")), "extended");
    let earlier = std::fs::read_dir(sandbox.path("grown/earlier")).unwrap().next().unwrap().unwrap().path();
    let earlier = earlier.display().to_string();
    assert!(sandbox.ok(&["inspect", &earlier, "--verify"]).contains("every byte is as recorded"));
    // Killed as soon as a part is there; the log is whole, torn, or gone.
    for lost in 0..3 {
        let out = format!("killed{lost}");
        let mut child = run("320", &out).spawn().unwrap();
        let part = sandbox.path(&out).join("part-00000.parquet");
        while !part.exists() && child.try_wait().unwrap().is_none() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let log = sandbox.path(&out).join(".resume/documents.log");
        match (lost, std::fs::read(&log)) {
            (1, Ok(bytes)) => std::fs::write(&log, &bytes[..bytes.len() / 2]).unwrap(),
            (2, Ok(_)) => std::fs::remove_file(&log).unwrap(),
            _ => {}
        }
        ok("320", &out);
        assert!(files(&sandbox.path(&out)) == files(&sandbox.path("whole")), "killed, loss {lost}");
    }
    assert!(sandbox.ok(&["inspect", "whole", "--verify"]).contains("every byte is as recorded"));
    let path = sandbox.path("whole/documents.parquet");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert!(sandbox.error(&["inspect", "whole", "--verify"]).contains("documents.parquet"));
}

#[test]
fn parts_have_the_documents_of_the_whole() {
    let Some(python) = test_python() else { return };
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let (corpus, _) = labelled(&sandbox);
    let keep = ["--keep-field", "label"];
    sandbox.ok(&harvest(&model, &[&corpus], &[&keep[..], &["--out", "whole"]].concat()));
    for (part, out) in [("0/3", "parts/0"), ("1/3", "parts/1"), ("2/3", "parts/2")] {
        sandbox.ok(&harvest(&model, &[&corpus], &[&keep[..], &["--part", part, "--out", out]].concat()));
    }
    sandbox.ok(&["merge", "parts", "--out", "merged"]);
    let sorted = |name: &str| {
        let mut rows = rows(&sandbox, &python, name);
        // A part ends with a tail of its own.
        rows.iter_mut().filter(|row| row["left_out"] == "tail").for_each(|row| row["left_out"] = Value::Null);
        rows.sort_by_key(|row| row["line"].as_u64());
        rows
    };
    assert_eq!(sorted("merged/documents.parquet"), sorted("whole/documents.parquet"));
    assert!(sandbox.ok(&["inspect", "merged", "--verify"]).contains("every byte is as recorded"));
    assert!(sandbox.ok(&["inspect", "parts", "--verify"]).contains("every byte is as recorded"));
}
