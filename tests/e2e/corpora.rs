//! The corpora that a harvest reads: standard input, conversations, a document a context; and what it says of what it left out.

use std::{io::Write, process::Stdio};

use harvester::{Compute, LanguageModel, ModelSource, Role, Silent};

use crate::sandbox::{Sandbox, root, text, tiny};

fn fixture(name: &str) -> String {
    root().join("tests/fixtures/corpora").join(name).display().to_string()
}

fn harvest<'a>(model: &'a str, corpus: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["harvest", "--model", model, "--corpus", corpus, "--hook-point", "hook_embed", "--ctx-len", "32"];
    [&args[..], more].concat()
}

#[test]
fn standard_input_is_a_corpus_and_goes_on_when_it_comes_again() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let lines = std::fs::read(fixture("lines.jsonl")).unwrap();
    let run = |input: &[u8], out: &str| {
        let mut command = sandbox.command(&harvest(&model, "jsonl:-", &["--out", out]));
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), text(&output.stderr))
    };
    assert!(run(&lines, "piped").0);
    sandbox.ok(&harvest(&model, &fixture("lines.jsonl"), &["--out", "file"]));
    let part = |out: &str| std::fs::read(sandbox.path(out).join("part-00000.parquet")).unwrap();
    assert!(part("piped") == part("file"));
    assert!(run(&lines, "piped").1.contains("finished before"));
    let (success, message) =
        run(b"{\"text\": \"something else, long enough for a context of thirty-two tokens\"}", "piped");
    assert!(!success && message.contains("standard input has changed since"), "{message}");
    let (success, message) = run(b"", "empty");
    assert!(!success && message.contains("at least one document"), "{message}");
}

#[test]
#[cfg(unix)]
fn a_pipe_is_read_like_standard_input() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let lines = fixture("lines.jsonl");
    let script = "mkfifo lines.jsonl && { cat \"$0\" > lines.jsonl & } && exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, &lines, env!("CARGO_BIN_EXE_refract")]).args(harvest(
        &model,
        "lines.jsonl",
        &["--out", "piped"],
    ));
    let output = command.current_dir(sandbox.path("")).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    sandbox.ok(&harvest(&model, &lines, &["--out", "file"]));
    let part = |out: &str| std::fs::read(sandbox.path(out).join("part-00000.parquet")).unwrap();
    assert!(part("piped") == part("file"));
}

#[test]
fn a_document_a_context_and_what_was_left_out_is_said() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let texts = ["", "a", "the cat sat on the mat, and then it went", "a"];
    let corpus = sandbox.write("c.jsonl", texts.map(|text| format!("{{\"text\":\"{text}\"}}\n")).concat());
    let packing = ["--packing", "document", "--min-document-tokens", "2", "--long-documents", "truncate"];
    let args = ["harvest", "--model", &model, "--corpus", &corpus, "--hook-point", "hook_embed", "--ctx-len", "8"];
    let output = sandbox.run(&[&args[..], &packing, &["--out", "out"]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("left out of the whole corpus: 1 repeated document\n")
            && said.contains("1 empty document,")
            && said.contains("1 document shorter than --min-document-tokens"),
        "{said}"
    );
    assert!(said.contains("tokens of long documents"), "{said}");
    let manifest = sandbox.read_json("out/manifest.json");
    assert_eq!((manifest["counts"]["contexts"].as_u64(), manifest["counts"]["tokens"].as_u64()), (Some(1), Some(8)));
}

#[test]
fn malformed_lines_are_left_out_on_request_and_said() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let line = |i: usize| format!("{{\"text\":\"the cat sat on the mat, and then {i} dogs came\"}}\n");
    let lines: String = (0..9).map(|i| if i == 4 { "{\"text\": \"cut\n".into() } else { line(i) }).collect();
    let corpus = sandbox.write("c.jsonl", lines);
    let harvest = harvest(&model, &corpus, &["--out", "out"]);
    assert!(sandbox.error(&harvest).contains("--skip-malformed"));
    let output = sandbox.run(&[&harvest[..], &["--skip-malformed"]].concat());
    let said = text(&output.stderr);
    assert!(output.status.success() && said.contains("1 malformed line (documents.parquet names them)"), "{said}");
    assert!(said.contains("1 malformed line, the first at c.jsonl:5: expected a JSON object"), "{said}");
    let manifest = sandbox.read_json("out/manifest.json");
    assert_eq!(manifest["counts"]["malformed_lines"], 1);
    assert_eq!(manifest["corpus_options"]["skip_malformed"], true);
}

#[test]
fn conversations_go_through_the_models_own_template() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    for (corpus, field) in [("messages.jsonl", "messages"), ("sharegpt.parquet", "conversations")] {
        let corpus = fixture(corpus);
        sandbox.ok(&harvest(&model, &corpus, &["--no-shuffle", "--chat-field", field, "--out", field]));
    }
    let tokens = |out: &str| sandbox.read_json(&format!("{out}/manifest.json"))["counts"]["tokens"].as_u64().unwrap();
    assert!(tokens("messages") > 0);
    assert_eq!(tokens("messages"), tokens("conversations"));
}

#[test]
fn tokens_of_conversations_know_who_said_them() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let chat = serde_json::json!({ "messages": [
        { "role": "system", "content": "the cat" }, { "role": "user", "content": " sat on\n" },
        { "role": "assistant", "content": "user\n3 dogs" }, { "role": "tool", "content": "" },
        { "role": "narrator", "content": "the mat" },
    ] });
    std::fs::create_dir(sandbox.path("chats")).unwrap();
    sandbox.write("chats/a.jsonl", format!("{chat}\n"));
    sandbox.write("chats/b.txt", "the cat sat on the mat, and then 3 dogs came");
    for (field, out) in [(&["--chat-field", "messages"][..], "roles"), (&["--text-field", "messages"], "refused")] {
        let args =
            harvest(&model, "chats", &[&["--no-shuffle", "--packing", "document", "--out", out], field].concat());
        assert_eq!(sandbox.run(&args).status.success(), out == "roles");
    }
    let source = ModelSource::Folder(model.into());
    let model = LanguageModel::open(&source, Compute::F32, &Silent).unwrap();
    let dataset = harvester::ActivationDataset::open(sandbox.path("roles")).unwrap();
    let mut said: Vec<(Option<Role>, Vec<u32>)> = vec![];
    for rows in dataset.row_groups.iter().map(|group| dataset.tokens(*group).unwrap()) {
        for (role, token) in rows.role.iter().zip(&rows.token) {
            match said.last_mut() {
                Some((last, tokens)) if *last == *role => tokens.push(*token),
                _ => said.push((*role, vec![*token])),
            }
        }
    }
    let said: Vec<_> = said.iter().map(|(role, tokens)| (*role, model.tokenizer().decode(tokens))).collect();
    let of = |role: Option<Role>| {
        said.iter().filter(|(found, _)| *found == role).map(|(_, text)| text.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of(Some(Role::System)), ["the cat"], "{said:?}");
    assert_eq!(of(Some(Role::User)), [" sat on\n"], "{said:?}");
    assert_eq!(of(Some(Role::Assistant)), ["user\n3 dogs"], "{said:?}");
    assert_eq!((of(Some(Role::Tool)).len(), of(Some(Role::Other))), (0, vec!["the mat"]), "{said:?}");
    assert!(of(None).concat().starts_with("the cat sat"), "{said:?}");
    assert_eq!(of(Some(Role::Template)).first(), Some(&"<|im_start|>system\n"), "{said:?}");
}

/// What transformers' templates do with a turn whose content is null or absent: one that knows tool calls writes the
/// call; one that writes the word `None`, or fails, is no way to read it.
#[test]
fn a_turn_that_calls_a_tool_and_says_nothing_is_read_if_the_template_knows_it() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("model")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{}/{file}", tiny("llama")), sandbox.path("model").join(file)).unwrap();
    }
    let call = serde_json::json!([{ "type": "function", "function": { "name": "dogs", "arguments": {} } }]);
    let mut turn = serde_json::json!({ "role": "assistant", "content": null, "tool_calls": call });
    let user = serde_json::json!({ "role": "user", "content": "the cat sat on the mat" });
    let with_null = serde_json::json!({ "messages": [user, turn] }).to_string();
    turn.as_object_mut().unwrap().remove("content");
    let absent = serde_json::json!({ "messages": [user, turn] }).to_string();
    let other = serde_json::json!({ "messages": [user] }).to_string();
    let each = |said: &str| format!("{{% for m in messages %}}{{{{ m.role }}}} {said}{{{{ '\\n' }}}}{{% endfor %}}");
    let knows = "{% if m.content %}{{ m.content }}{% endif %}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}";
    let asks = "{% if m.content is defined %}{{ m.content }}{% else %}{{ m.tool_calls[0].function.name }}{% endif %}";
    for (at, (chat, template, expected)) in [
        (&with_null, each(knows), Some("user the cat sat on the mat\nassistant dogs\n")),
        (&absent, each(knows), Some("user the cat sat on the mat\nassistant dogs\n")),
        (&absent, each(asks), Some("user the cat sat on the mat\nassistant dogs\n")),
        (&with_null, each(asks), None),
        (&with_null, each("{{ m.content }}"), None),
        (&with_null, each("{{ '<' + m.content + '>' }}"), None),
    ]
    .into_iter()
    .enumerate()
    {
        sandbox.write("model/tokenizer_config.json", serde_json::json!({ "chat_template": template }).to_string());
        let corpus = sandbox.write("c.jsonl", format!("{chat}\n{other}\n"));
        let out = format!("out-{at}");
        let flags = [
            "--no-shuffle",
            "--packing",
            "document",
            "--separator",
            "none",
            "--bos",
            "none",
            "--chat-field",
            "messages",
            "--out",
            &out,
        ];
        let output = sandbox.run(&harvest("model", &corpus, &flags));
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        let path = sandbox.path("model");
        let model = LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent).unwrap();
        let dataset = harvester::ActivationDataset::open(sandbox.path(&out)).unwrap();
        let rows: Vec<_> = dataset.row_groups.iter().map(|group| dataset.tokens(*group).unwrap()).collect();
        let of_first = rows.iter().flat_map(|rows| rows.document.iter().zip(&rows.token).filter(|(d, _)| **d == 0));
        let tokens: Vec<u32> = of_first.map(|(_, token)| *token).collect();
        let written = model.tokenizer().decode(&tokens);
        assert_eq!(written, expected.unwrap_or_default(), "{template}\n{said}");
        assert_eq!(said.contains("1 conversation that the chat template refuses"), expected.is_none(), "{said}");
    }
}

/// As in transformers, a control token that a message spells becomes that token. It is said once.
#[test]
fn a_control_token_inside_a_message_is_warned_of() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    for (said, is_warned) in [("one <|im_end|> two", true), ("one im_end two", false)] {
        let line = serde_json::json!({ "messages": [{ "role": "user", "content": format!("the cat sat, {said} dogs came") }] });
        let corpus = sandbox.write("c.jsonl", format!("{line}\n{}\n", line.to_string().replace("cat", "dog")));
        let output =
            sandbox.run(&harvest(&model, &corpus, &["--chat-field", "messages", "--out", &is_warned.to_string()]));
        let message = text(&output.stderr);
        assert!(output.status.success(), "{message}");
        assert_eq!(message.matches("spells the control token <|im_end|>").count(), usize::from(is_warned), "{message}");
    }
}

#[test]
fn conversations_that_the_template_refuses_are_counted_and_end_no_harvest_unless_there_are_no_others() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.path("model")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{}/{file}", tiny("llama")), sandbox.path("model").join(file)).unwrap();
    }
    let template = "{% for message in messages %}{% if message.role == 'system' %}\
                    {{ raise_exception('no system here') }}{% endif %}{{ message.content }}{% endfor %}";
    sandbox.write("model/tokenizer_config.json", serde_json::json!({ "chat_template": template }).to_string());
    let good = std::fs::read_to_string(fixture("messages.jsonl")).unwrap();
    let bad = |i: u32| format!("{{\"messages\": [{{\"role\": \"system\", \"content\": \"be brief {i}\"}}]}}\n");
    let call =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}, {\"role\": \"assistant\", \"content\": null}]}\n";
    let mixed = sandbox.write("mixed.jsonl", format!("{}{good}{call}{}", bad(1), bad(2)));
    let good = sandbox.write("good.jsonl", good);
    let bad = sandbox.write("bad.jsonl", bad(1) + &bad(2));
    let run = |corpus: &str, out: &str| {
        sandbox.run(&harvest("model", corpus, &["--no-shuffle", "--chat-field", "messages", "--out", out]))
    };
    let (mixed, good) = (run(&mixed, "mixed"), run(&good, "good"));
    let said = text(&mixed.stderr);
    assert!(mixed.status.success() && good.status.success(), "{said}{}", text(&good.stderr));
    assert!(said.contains("3 conversations that the chat template refuses"), "{said}");
    let counts = |out: &str| sandbox.read_json(&format!("{out}/manifest.json"))["counts"].clone();
    assert_eq!(counts("mixed")["left_out"]["refused_documents"], 3);
    assert_eq!(counts("mixed")["tokens"], counts("good")["tokens"]);
    let message = sandbox.error(&harvest("model", &bad, &["--chat-field", "messages", "--out", "bad"]));
    assert!(message.contains("2 conversations that the chat template refuses"), "{message}");
}

/// With a budget, or a limit on documents, the line about the result says which documents are there whole.
#[test]
fn the_result_says_which_documents_are_there_in_part() {
    let (sandbox, model) = (Sandbox::new(), tiny("llama"));
    let line = |i: usize| format!("{{\"text\":\"{i} {}\"}}\n", "the cat sat on the mat ".repeat(9));
    let corpus = sandbox.write("c.jsonl", (0..9).map(line).collect::<String>());
    for (at, (flags, expected)) in [
        (&["--tokens", "96"][..], " (the last in part), "),
        (&["--tokens", "96", "--document-tokens", "20"], " (long ones cut, the last in part), "),
        (&["--packing", "document", "--document-tokens", "20"], " from 9 documents (long ones cut), "),
        (&["--packing", "document"], " from 9 documents, "),
        (&["--packing", "document", "--tokens", "32"], " from 1 document (the last in part), "),
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("out-{at}");
        let said = sandbox.ok(&harvest(&model, &corpus, &[flags, &["--no-shuffle", "--out", &out]].concat()));
        assert!(said.contains(expected), "{flags:?}: {said}");
    }
}
