//! The whole pipeline, with the built binary and the real default model, on few tokens.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
    sync::LazyLock,
};

use crate::sandbox::{Sandbox, corpus, files, root, test_python, text};
use serde_json::Value;

const POINT: &str = "blocks.14.hook_resid_post";
const HARVEST: [&str; 14] = [
    "harvest",
    "--hook-point",
    POINT,
    "--tokens",
    "12288",
    "--ctx-len",
    "128",
    "--document-tokens",
    "512",
    "--keep-field",
    "kind",
    "--out",
    "acts",
    "--corpus",
];
const TRAIN: [&str; 13] = [
    "train",
    "--activations",
    "acts",
    "--out",
    "sae",
    "--d-sae",
    "768",
    "--k",
    "16",
    "--tokens",
    "122880",
    "--batch",
    "1024",
];

/// Run once; every test looks at it.
static RUN: LazyLock<Sandbox> = LazyLock::new(|| {
    let sandbox = Sandbox::new();
    let (code, speeches) = (corpus("code"), corpus("speeches"));
    sandbox.ok(&[&HARVEST[..], &[&code, &speeches]].concat());
    sandbox.ok(&TRAIN);
    let size = sandbox.run(&["index", "--sae", "sae", "--out", "features", "--latents"]);
    assert!(text(&size.stderr).contains("latents.parquet: 12,288 tokens x "), "{}", text(&size.stderr));
    sandbox
});

fn number(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("no number `{key}` in {value}"))
}

#[test]
fn the_manifest_of_the_activations_says_what_they_are() {
    let manifest = RUN.read_json("acts/manifest.json");
    assert_eq!(manifest["complete"], true);
    assert_eq!(manifest["layers_run"], 15);
    assert_eq!(manifest["counts"]["tokens"], 12_288);
    assert_eq!(manifest["model"]["sha256"], "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53");
    assert_eq!(manifest["config"]["ctx_len"], 128);
    // Sinks have norms over 20,000 where others have about 150: the threshold must part them.
    let sink_norm = number(&manifest["hook_points"][0], "sink_norm");
    assert!((500.0..5_000.0).contains(&sink_norm), "{sink_norm}");
}

#[test]
fn an_sae_explains_held_out_text_and_keeps_the_models_behavior() {
    let evaluation = RUN.json(&["evaluate", "--sae", "sae", "--ce-tokens", "512"]).remove(0);
    // 12,000 distinct tokens are few; a broken sign, scale or bias gives an FVU over 1 and a score under 0.
    assert!(number(&evaluation, "fvu") < 0.6, "{evaluation}");
    assert!(number(&evaluation, "ce_loss_score") > 0.7, "{evaluation}");
    assert!((8.0..32.0).contains(&number(&evaluation, "l0")), "{evaluation}");
    assert!(number(&evaluation, "ce_loss_with_ablation") > number(&evaluation, "ce_loss_with_sae"));
    assert!(number(&evaluation, "ce_loss_with_sae") > number(&evaluation, "ce_loss_without_sae"));
}

#[test]
fn the_index_knows_what_tells_code_from_speeches() {
    let args = ["find", "--features", "features", "--positive", "code", "--negative", "speeches"];
    let found = RUN.json(&args).remove(0);
    let documents = found["documents"].as_array().unwrap();
    assert!(documents.iter().all(|n| n.as_u64() > Some(1)) && number(&found, "n_tested") > 100.0, "{found}");
    let found = &found["latents"];
    assert!(number(&found[0], "auc") > 0.8, "{}", found[0]);
    assert!(found[0]["median"][0].as_f64() > found[0]["median"][1].as_f64(), "{}", found[0]);
    assert_eq!(number(&found[0], "cliffs_delta"), 2.0 * number(&found[0], "auc") - 1.0);
    // Texts in quotes are read by the model; a text tells nothing from itself.
    let texts = ["find", "--features", "features", "--positive", "let x = 3; // a number", "--negative"];
    let of_texts = RUN.json(&[&texts[..], &["Fellow citizens, I thank you."]].concat()).remove(0);
    assert_eq!(of_texts["documents"], serde_json::json!([1, 1]));
    assert!(of_texts["latents"][0]["p"].is_null() && number(&of_texts["latents"][0], "auc") == 1.0, "{of_texts}");
    let same = RUN.error(&["find", "--features", "features", "--positive", "code", "--negative", "code"]);
    assert!(same.contains("cannot be told apart from itself"), "{same}");
    // A file, against a source of the index.
    let first: Vec<String> =
        std::fs::read_to_string(corpus("fiction")).unwrap().lines().take(4).map(|line| format!("{line}\n")).collect();
    let file = RUN.write("four.jsonl", first.concat());
    let of_file = RUN.json(&["find", "--features", "features", "--positive", &file, "--negative", "code"]).remove(0);
    assert!(number(&of_file["latents"][0], "auc") > 0.8 && of_file["documents"][0] == 4, "{of_file}");
    // What was found is also found by its words.
    let word = "the";
    let hits = RUN.json(&["search", "--features", "features", word, "--max-density", "1"]).remove(0);
    assert!(hits.as_array().unwrap().iter().all(|hit| hit.to_string().to_lowercase().contains(word)), "{hits}");
    assert!(RUN.error(&["search", "--features", "features", " "]).contains("a word or a sign to look for"));
    let latent = found[0]["latent"].to_string();
    let shown = RUN.json(&["show", "--features", "features", &latent]).remove(0);
    let examples = shown["examples"].as_array().unwrap();
    assert!(!examples.is_empty());
    for pair in examples.windows(2) {
        assert!(number(&pair[0], "activation") >= number(&pair[1], "activation"));
    }
    let peak = examples[0]["peak"].as_u64().unwrap() as usize;
    assert_eq!(examples[0]["activations"][peak], examples[0]["activation"]);
    let unknown = RUN.error(&["find", "--features", "features", "--positive", "poems", "--negative", "code"]);
    assert!(unknown.contains("no source and no file of the name `poems`") && unknown.contains("speeches"), "{unknown}");
    assert!(!unknown.contains("did you mean"), "{unknown}");
    let group = |name| RUN.error(&["find", "--features", "features", "--positive", name, "--negative", "code"]);
    let (misspelled, absent) = (group("speches"), group("data/my poems.jsonl"));
    assert!(misspelled.contains("did you mean `speeches`?"), "{misspelled}");
    assert!(absent.contains("no file of the name `data/my poems.jsonl`"), "{absent}");
}

#[test]
fn a_driven_latent_changes_what_the_model_writes_and_an_idle_edit_does_not() {
    let found = RUN.json(&["find", "--features", "features", "--positive", "code", "--negative", "speeches"]).remove(0);
    let found = &found["latents"];
    let latent = found[0]["latent"].to_string();
    let steer = |edit: &str, value: &str| {
        let edited = format!("{latent}={value}");
        let args =
            ["steer", "--sae", "sae", "--prompt", "The weather today is", "--max-new-tokens", "8", edit, &edited];
        RUN.json(&args).remove(0)
    };
    let driven = steer("--clamp", "400");
    assert_ne!(driven["with"], driven["without"]);
    assert!(number(&driven["shift"], "kl_next") > 0.01, "{driven}");
    assert!(number(&driven["shift"], "kl_written") > 0.01, "{driven}");
    assert_eq!(driven["shift"]["latents"][0]["latent"], driven["interventions"][0]["latent"]);
    let idle = steer("--scale", "1");
    assert_eq!(idle["with"], idle["without"]);
    assert_eq!(number(&idle["shift"], "kl_next"), 0.0);
}

#[test]
fn steer_tells_what_an_edit_moved_and_by_how_much_at_which_strength() {
    let steer = |more: &[&str]| {
        let args = ["steer", "--sae", "sae", "--features", "features", "--max-new-tokens", "6", "--clamp", "3=1max"];
        RUN.json(&[&args[..], more].concat()).remove(0)
    };
    let told = steer(&["--prompt", "The weather today is"]);
    let written = told["steered"]["written"].as_array().unwrap();
    assert!(!written.is_empty() && written.iter().all(|token| number(token, "kl") >= 0.0), "{told}");
    assert_eq!(told["counts"][0]["changed"], told["counts"][0]["in_scope"]);
    assert!(number(&told["fluency"][1], "perplexity") >= 1.0 && told["suggestions"][0].is_string(), "{told}");
    // Several prompts, with the effect by source; strengths far too large break the text.
    RUN.write(
        "prompts.jsonl",
        "{\"text\": \"The sea\", \"source\": \"prose\"}\n{\"prompt\": \"def f(x):\", \"source\": \"code\"}\n",
    );
    let swept = steer(&["--prompt", "prompts.jsonl", "--sweep", "0,1,80"]);
    let points = swept["points"].as_array().unwrap();
    let sources: Vec<&Value> = points.iter().map(|point| &point["source"]).take(4).collect();
    assert_eq!(sources, [&Value::Null, &Value::from("code"), &Value::from("prose"), &Value::Null]);
    let kl = |at: usize| number(&points[3 * at], "kl");
    assert!(points.len() == 9 && kl(0) < kl(1) && kl(1) < kl(2), "{swept}");
    assert!(number(&points[6], "over_steered") > 0.0, "{swept}");
    let args = ["steer", "--sae", "sae", "--features", "features", "--max-new-tokens", "6", "--clamp", "3=1max"];
    let table = RUN.ok(&[&args[..], &["--prompt", "prompts.jsonl", "--sweep", "0.5", "2"]].concat());
    assert!(table.contains("broken") && table.contains("perplexity of the text under the plain model"), "{table}");
    let message = RUN.error(&["steer", "--sae", "sae", "--prompt", "Hi", "--edit", "suppress 3", "--sweep", "2"]);
    assert!(message.contains("--sweep: expected an edit with a strength to multiply, found suppress 3"), "{message}");
}

#[test]
fn steer_keeps_the_model_for_a_conversation() {
    let mut command =
        RUN.command(&["steer", "--sae", "sae", "--interactive", "--max-new-tokens", "3", "--clamp", "3=2"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"The sea\n/clamp 9999=1\n/edit\n/scale 4=2\nA ship\n").unwrap();
    let ended = child.wait_with_output().unwrap();
    let (said, refused) = (text(&ended.stdout), text(&ended.stderr));
    assert!(ended.status.success() && refused.contains("below 768, found 9999"), "{refused}");
    assert!(said.contains("3 fires by itself") && said.contains("4 fires by itself"), "{said}");
    assert!(said.matches("│").count() >= 4, "{said}");
}

#[test]
fn a_direction_of_two_sets_of_texts_steers() {
    RUN.write("glad.txt", "I am so glad today\nWhat a wonderful day\nThis is lovely\nI am happy with it\n");
    let sad = ["I am so sad today", "What a terrible day", "This is awful", "I am unhappy with it"];
    let args =
        ["direction", "--hook-point", POINT, "--positive", "glad.txt", "--out", "glad.safetensors", "--negative"];
    let made = RUN.json(&[&args[..], &sad, &["--export", "glad.gguf"]].concat()).remove(0);
    assert_eq!(made["provenance"]["method"], "mean");
    assert_eq!(made["provenance"]["positive_texts"], "4");
    assert!(RUN.error(&[&args[..], &sad].concat()).contains("a new file"));
    let steer = ["steer", "--sae", "sae", "--prompt", "I feel", "--max-new-tokens", "6", "--add", "glad.safetensors=8"];
    let steered = RUN.json(&steer).remove(0);
    assert!(number(&steered["shift"], "kl_next") > 0.01, "{steered}");
    assert_eq!(steered["interventions"][0]["direction"], "glad.safetensors");
    let exported = ["steer", "--sae", "sae", "--prompt", "I feel", "--max-new-tokens", "6", "--add", "glad.gguf=8"];
    assert_eq!(RUN.json(&exported).remove(0)["with"], steered["with"], "the control vector is the same direction");
    let pca = ["direction", "--method", "pca", "--tokens", "last", "--hook-point", POINT, "--out", "pca.safetensors"];
    let said = RUN.ok(&[&pca[..], &["--positive", "glad.txt", "--negative"], &sad].concat());
    assert!(said.contains("AUC") && RUN.path("pca.safetensors").exists(), "{said}");
    let message = RUN.error(&[&pca[..], &["--positive", "glad.txt", "--negative", "one"]].concat());
    assert!(message.contains("--negative: expected 4 texts"), "{message}");
}

#[test]
fn a_guard_watches_a_corpus_and_ends_a_text() {
    let (code, speeches) = (corpus("code"), corpus("speeches"));
    let find =
        ["find", "--features", "features", "--positive", "code", "--negative", "speeches", "--fit", "probe.json"];
    let found = RUN.json(&find).remove(0);
    assert_eq!(found["probe"]["latents"].as_array().unwrap().len(), 8);
    assert!(found["probe"]["auc"].is_null(), "too few speeches to keep some apart: {}", found["probe"]);
    let rules = |then: &str| {
        format!(
            "[[score]]\nname = \"code\"\nof = {{ probe = \"probe.json\" }}\nsmooth = {{ mean = 16 }}\nabove = -1000\n\
             [[rule]]\nname = \"any\"\nall = [\"code\"]\nthen = {then}\n"
        )
    };
    RUN.write("log.toml", rules("\"log\""));
    RUN.write("stop.toml", rules("{ stop = \" No more.\" }"));
    RUN.write("wrong.toml", rules("\"shout\""));
    let monitor = ["monitor", "--sae", "sae", "--tokens", "20k", "--guard"];
    let groups = ["--positive", &code, "--negative", &speeches];
    let report = RUN.json(&[&monitor[..], &["log.toml"], &groups].concat()).remove(0);
    assert!(number(&report["scores"][0], "auroc") > 0.8, "{report}");
    let rule = &report["rules"][0]["detected"];
    assert_eq!(rule["true_positives"]["n"], rule["true_positives"]["of"], "every text is above the threshold");
    let said = RUN.ok(&[&monitor[..], &["log.toml", "--corpus", &speeches]].concat());
    assert!(said.contains("log: any (code ") && said.contains("a rule held in "), "{said}");
    let steer = ["steer", "--sae", "sae", "--prompt", "Fellow citizens", "--max-new-tokens", "6", "--guard"];
    let stopped = RUN.json(&[&steer[..], &["stop.toml"]].concat()).remove(0);
    assert_eq!((&stopped["with"], &stopped["stopped"]), (&" No more.".into(), &"any".into()), "{stopped}");
    assert!(!stopped["without"].as_str().unwrap().is_empty());
    assert!(RUN.ok(&[&steer[..], &["stop.toml"]].concat()).contains("No more."));
    let message = RUN.error(&[&steer[..], &["wrong.toml"]].concat());
    assert!(message.contains("wrong.toml") && message.contains("shout"), "{message}");
    assert!(RUN.error(&[&steer[..], &["absent.toml"]].concat()).contains("absent.toml"));
}

#[test]
fn a_latent_that_the_sae_lacks_is_refused() {
    let message = RUN.error(&["steer", "--sae", "sae", "--prompt", "Hi", "--clamp", "768=0"]);
    assert!(message.contains("768"), "{message}");
    assert!(RUN.error(&["show", "--features", "features", "768"]).contains("768"));
}

#[test]
fn inspect_explains_every_artifact() {
    assert!(RUN.ok(&["inspect", "acts", "--verify"]).contains(POINT));
    let sae = RUN.ok(&["inspect", "sae"]);
    assert!(sae.contains("768") && sae.contains("sae/metrics.parquet") && sae.contains("sae/curves.html"), "{sae}");
    assert!(RUN.ok(&["inspect", "features"]).contains("speeches"));
    assert!(RUN.error(&["inspect", "absent"]).contains("absent"));
}

#[test]
fn finished_stages_are_reused() {
    let (code, speeches) = (corpus("code"), corpus("speeches"));
    for (folder, args) in [
        ("acts", [&HARVEST[..], &[&code, &speeches]].concat()),
        ("sae", TRAIN.to_vec()),
        ("features", vec!["index", "--sae", "sae", "--out", "features", "--latents"]),
    ] {
        let before = files(&RUN.path(folder));
        RUN.ok(&args);
        assert!(files(&RUN.path(folder)) == before, "{folder} changed");
    }
}

#[test]
fn python_reads_the_artifacts_with_no_code_of_ours() {
    let Some(python) = test_python() else { return };
    LazyLock::force(&RUN);
    let script = root().join("tests/e2e/read_artifacts.py");
    let output = Command::new(python).arg(script).arg(RUN.path("")).output().unwrap();
    assert!(output.status.success(), "{}", crate::sandbox::text(&output.stderr));
}

#[test]
fn duckdb_and_polars_answer_the_queries_of_the_documentation() {
    let Some(python) = test_python() else { return };
    LazyLock::force(&RUN);
    let [script, document] = ["tests/e2e/run_queries.py", "data/README.md"].map(|path| root().join(path));
    let output = Command::new(python).args([script, document]).current_dir(RUN.path("")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn labels_can_be_measured_again_from_the_tables() {
    let Some(python) = test_python() else { return };
    LazyLock::force(&RUN);
    let script = root().join("tests/e2e/measure_labels.py");
    let output = Command::new(python).arg(script).arg(RUN.path("features")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_text_is_encoded_in_the_terminal_as_json_and_into_a_folder() {
    let encode = ["encode", "--sae", "sae", "--text", "fn main() {}", "Fellow citizens, I thank you."];
    let documents = RUN.json(&encode);
    assert_eq!(documents.len(), 2);
    let lists = ["tokens", "texts", "positions", "ordinary", "latents", "activations"];
    let lens = lists.map(|list| documents[1][list].as_array().unwrap().len());
    assert!(lens.iter().all(|len| *len == lens[0]), "{}", documents[1]);
    assert_eq!(documents[1]["ordinary"][0], false);
    assert!(documents[1]["latents"][0].as_array().unwrap().is_empty());
    let listed = RUN.ok(&[&encode[..], &["--features", "features", "--max-density", "1"]].concat());
    assert!(listed.contains("- (position 0: the SAE is not trained on it)"), "{listed}");
    let strongest = |row: usize| {
        let (latents, values) = (&documents[1]["latents"][row], documents[1]["activations"][row].as_array().unwrap());
        let most =
            (0..values.len()).max_by(|a, b| values[*a].as_f64().unwrap().total_cmp(&values[*b].as_f64().unwrap()));
        latents[most.unwrap()].to_string()
    };
    let line = listed.lines().rev().find(|line| line.contains("\" thank\"")).unwrap();
    let at = documents[1]["texts"].as_array().unwrap().iter().position(|text| text == " thank").unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some(strongest(at).as_str()), "{line}");

    let file = RUN.write("two.jsonl", "{\"text\": \"fn main() {}\"}\n{\"text\": \"Fellow citizens, I thank you.\"}\n");
    let of_corpus = RUN.json(&["encode", "--sae", "sae", "--corpus", &file]);
    for (text, document) in documents.iter().zip(&of_corpus) {
        assert!(lists.iter().all(|list| text[list] == document[list]), "{text}\n{document}");
    }
    assert_eq!((&of_corpus[1]["file"], &of_corpus[1]["line"]), (&"two.jsonl".into(), &2.into()));
    let into = ["encode", "--sae", "sae", "--corpus", &file, "--out", "encoded"];
    let counts = RUN.json(&into).remove(0);
    let rows: usize =
        documents.iter().flat_map(|it| it["latents"].as_array().unwrap()).map(|it| it.as_array().unwrap().len()).sum();
    assert_eq!((&counts["documents"], &counts["latents"]), (&2.into(), &rows.into()), "{counts}");
    let names: Vec<_> = files(&RUN.path("encoded")).into_iter().map(|file| file.0).collect();
    assert_eq!(names, ["documents.parquet", "latents.parquet"]);
    let message = RUN.error(&into);
    assert!(message.contains("encoded") && message.contains("--out"), "{message}");
    assert!(RUN.error(&["encode", "--sae", "sae"]).contains("--corpus"));
}

#[test]
fn latents_are_searched_by_a_text_and_shown_in_the_width_of_the_terminal() {
    fn search<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["search", "--features", "features"], more].concat()
    }
    let hits = RUN.json(&search(&["--text", "Fellow citizens, I thank you.", "--top", "3"])).remove(0);
    assert_eq!(hits.as_array().unwrap().len(), 3);
    assert!(hits[0]["strongest"]["texts"].to_string().contains("thank"), "{hits}");
    let listed = RUN.ok(&search(&["--text", "Fellow citizens, I thank you.", "--top", "3"]));
    assert!(listed.contains(&format!("latent {}  ", hits[0]["latent"])) && listed.contains("is as strong"), "{listed}");
    assert!(RUN.error(&search(&[])).contains("search needs words to look for, or a --text"));
    let usage = |args: &[&str]| text(&RUN.run(args).stderr);
    assert!(usage(&search(&["whale", "--text", "whale"])).contains("cannot be used with"));
    for list in ["search", "show"] {
        let words: &[&str] = if list == "search" { &["the"] } else { &[] };
        let args = [&[list, "--features", "features", "--top", "0"], words].concat();
        assert!(usage(&args).contains("expected 1 or more"), "{}", usage(&args));
    }
    let latent = hits[0]["latent"].to_string();
    assert_eq!(RUN.json(&["show", "--features", "features", &latent, &latent]).len(), 1);
    let shown = RUN.ok(&["show", "--features", "features", &latent]);
    let explained = RUN.ok(&["explain", "--sae", "sae", "--features", "features", "--text", "Fellow citizens, I"]);
    let pages = [listed, shown, RUN.ok(&["show", "--features", "features"]), RUN.ok(&search(&["the"])), explained];
    for line in pages.iter().flat_map(|page| page.lines()) {
        assert!(line.chars().count() <= 80 && line == line.trim_end(), "{line:?}");
    }
    let encoded = RUN.ok(&["encode", "--sae", "sae", "--text", "Hi there"]);
    assert!(encoded.contains("document 0\n"), "{encoded}");
}

#[test]
fn a_killed_training_run_goes_on_to_the_same_weights() {
    LazyLock::force(&RUN);
    let acts = RUN.path("acts").display().to_string();
    let args: Vec<&str> = ["train", "--activations", &acts, "--out", "sae", "--checkpoint-every", "10"]
        .into_iter()
        .chain(TRAIN[5..].iter().copied())
        .collect();
    let (whole, killed) = (Sandbox::new(), Sandbox::new());
    whole.ok(&args);
    (0..3).for_each(|_| killed.kill_at_new_checkpoint(&args));
    killed.ok(&args);
    let weights = |sandbox: &Sandbox| fs::read(sandbox.path("sae/sae_weights.safetensors")).unwrap();
    assert!(weights(&whole) == weights(&killed), "the resumed weights differ");
}
