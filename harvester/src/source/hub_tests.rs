//! Downloading models, from our own server on 127.0.0.1 that answers the requests of these tests like the Hub,
//! correctly or not. No test reads the environment or leaves the machine.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Error, ModelSource, Monitor, Result, Silent,
    source::{
        HubSettings, ResolvedModel,
        cache::ModelCache,
        hub_server::{Reply, Request, reply, serve},
        places::Places,
        wheel::Pip,
    },
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONTENT: &str = "twenty bytes of GGUF";
/// SHA-256 of [`CONTENT`].
const CONTENT_SHA256: &str = "7c048e26d1d5176d520f592efa5a57f7089f3233942dc6c49f387a81346673a0";

/// The content that a request asks for.
trait Range {
    /// First byte requested.
    fn start(&self) -> usize;
    fn is_about_the_file(&self) -> bool;
}

impl Range for Request {
    fn start(&self) -> usize {
        let range = self.head.lines().find_map(|line| line.strip_prefix("range: bytes="));
        range.and_then(|range| range.split('-').next()?.parse().ok()).unwrap_or(0)
    }

    fn is_about_the_file(&self) -> bool {
        self.head.contains("range: bytes=0-0")
    }
}

/// The list of files of the repository.
fn listing(files: &[&str]) -> Reply {
    let siblings: Vec<_> = files.iter().map(|file| serde_json::json!({ "rfilename": file })).collect();
    reply("200 OK", &[], serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string())
}

/// A correct answer to a request for a file.
fn content(request: &Request, text: &str, etag: &str) -> Reply {
    let total = text.len();
    if request.is_about_the_file() {
        let range = format!("bytes 0-0/{total}");
        let headers = [("ETag", etag), ("x-repo-commit", COMMIT), ("Content-Range", range.as_str())];
        return reply("206 Partial Content", &headers, &text[..1]);
    }
    let start = request.start();
    if start == 0 {
        return reply("200 OK", &[("ETag", etag)], text);
    }
    let range = format!("bytes {start}-{}/{total}", total - 1);
    reply("206 Partial Content", &[("ETag", etag), ("Content-Range", &range)], &text[start..])
}

/// Addresses and folders of one test.
struct Setup {
    root: TempDir,
    places: Places,
}

impl Setup {
    fn new(endpoint: &str) -> Self {
        let root = tempfile::tempdir().unwrap();
        let hub = HubSettings {
            endpoint: Some(endpoint.to_owned()),
            timeout: Duration::from_secs(1),
            stall: Duration::from_secs(1),
            attempts: 3,
            backoff: Duration::from_millis(20),
            ..HubSettings::in_folder(root.path().join("hub"))
        };
        let places =
            Places { cache: ModelCache::new(root.path().join("models")), hub, pip: Pip::new(&[&["no-such-pip"]]) };
        Self { root, places }
    }

    fn resolve(&self, source: &str) -> Result<ResolvedModel> {
        source.parse::<ModelSource>().unwrap().resolve_in(&self.places, &Silent)
    }

    /// The error message.
    fn refuse(&self, source: &str) -> String {
        self.resolve(source).unwrap_err().to_string()
    }

    /// Names of the files in the folder of blobs.
    fn blobs(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.path().join("hub/models--org--name/blobs")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn one_file(request: &Request) -> Reply {
    match request.path.as_str() {
        "/api/models/org/name/revision/main" => listing(&["README.md", "model.gguf"]),
        path if path == format!("/org/name/resolve/{COMMIT}/model.gguf") => content(request, CONTENT, CONTENT_SHA256),
        _ => reply("404 Not Found", &[], ""),
    }
}

#[test]
fn a_file_is_fetched_once_and_pinned_to_its_commit() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let setup = Setup::new(&serve(move |request| {
        counted.fetch_add(1, Ordering::SeqCst);
        one_file(request)
    }));
    let model = setup.resolve("org/name:model.gguf").unwrap();
    assert_eq!(fs::read_to_string(&model.path).unwrap(), CONTENT);
    assert_eq!(model.source, format!("org/name@{COMMIT}:model.gguf"));
    assert_eq!(asked.load(Ordering::SeqCst), 3, "listing, header, content");
    for again in ["org/name:model.gguf", model.source.as_str()] {
        assert_eq!(setup.resolve(again).unwrap(), model);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 3, "the cache answers");
    assert_eq!(setup.blobs(), [CONTENT_SHA256]);
}

#[test]
fn a_split_model_is_fetched_whole() {
    let parts = ["small/model-00001-of-00002.gguf", "small/model-00002-of-00002.gguf"];
    let setup = Setup::new(&serve(move |request| match request.path.strip_prefix("/api/models/org/name/revision/") {
        Some("main") => listing(&parts),
        Some("less") => listing(&parts[..1]),
        _ => content(request, CONTENT, CONTENT_SHA256),
    }));
    let error = setup.refuse(&format!("org/name@less:{}", parts[0]));
    assert!(error.contains(parts[1]), "{error}");
    let model = setup.resolve(&format!("org/name:{}", parts[0])).unwrap();
    let other = model.path.with_file_name("model-00002-of-00002.gguf");
    assert_eq!(fs::read_to_string(&other).unwrap(), CONTENT);
    // A cache that lacks a part is filled.
    fs::remove_file(&other).unwrap();
    assert_eq!(setup.resolve(&format!("org/name:{}", parts[0])).unwrap(), model);
    assert!(other.exists());
}

#[test]
fn a_folder_is_fetched_through_redirects_with_its_shards() {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let setup = Setup::new(&serve(move |request| {
        let file = request.path.rsplit('/').next().unwrap();
        match file {
            "main" => listing(&[
                "config.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "model.safetensors.index.json",
                "model-1.safetensors",
                "model-2.safetensors",
                "pytorch_model.bin",
            ]),
            "model-1.safetensors" | "model-2.safetensors" if request.is_about_the_file() => {
                let location = format!("http://{}/store/{file}-content", host(request));
                let headers =
                    [("Location", location.as_str()), ("x-linked-etag", CONTENT_SHA256), ("x-linked-size", "20")];
                reply("302 Found", &headers, "")
            }
            "model-1.safetensors" | "model-2.safetensors" => {
                reply("302 Found", &[("Location", &format!("/store/{file}-content"))], "")
            }
            "model-1.safetensors-content" | "model-2.safetensors-content" => content(request, CONTENT, "s3"),
            "model.safetensors.index.json" => content(request, index, "\"index-etag\""),
            _ => content(request, "{}", "W/\"json-etag\""),
        }
    }));
    let model = setup.resolve("org/name").unwrap();
    let mut names: Vec<_> = fs::read_dir(&model.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = [
        "config.json",
        "model-1.safetensors",
        "model-2.safetensors",
        "model.safetensors.index.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    assert_eq!(fs::read_to_string(model.path.join("model-2.safetensors")).unwrap(), CONTENT);
    let offline = Places { hub: HubSettings { offline: true, ..setup.places.hub.clone() }, ..setup.places.clone() };
    assert_eq!("org/name".parse::<ModelSource>().unwrap().resolve_in(&offline, &Silent).unwrap(), model);
}

fn host(request: &Request) -> &str {
    request.head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap()
}

#[test]
fn what_is_missing_is_said() {
    let setup = Setup::new(&serve(one_file));
    let message = setup.refuse("org/name:other.gguf");
    assert!(message.contains("no file `other.gguf`") && message.contains("model.gguf"), "{message}");
    let message = setup.refuse("org/name");
    assert!(message.contains("none was named") && message.contains("model.gguf"), "{message}");
    let message = setup.refuse("org/other");
    assert!(message.contains("no such model") && message.contains("org/other"), "{message}");
}

#[test]
fn offline_says_so() {
    let mut setup = Setup::new("http://127.0.0.1:1");
    setup.places.hub.offline = true;
    assert!(setup.refuse("org/name:model.gguf").contains("HF_HUB_OFFLINE"));
}

#[test]
fn closed_models_ask_for_a_token_and_the_token_is_sent() {
    let mut setup = Setup::new(&serve(|request| match request.head.contains("authorization: bearer hf_right") {
        true => one_file(request),
        false if request.head.contains("authorization") => reply("403 Forbidden", &[("X-Error-Code", "GatedRepo")], ""),
        false => reply("401 Unauthorized", &[], ""),
    }));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("no public model org/name") && message.contains("HF_TOKEN"), "{message}");
    setup.places.hub.token = Some("hf_wrong".to_owned());
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("gated") && message.contains("accept its terms"), "{message}");
    setup.places.hub.token = Some("hf_right".to_owned());
    setup.resolve("org/name:model.gguf").unwrap();
}

#[test]
fn a_busy_hub_is_asked_again() {
    let refusals = AtomicUsize::new(2);
    let setup = Setup::new(&serve(move |request| {
        let left = refusals.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { reply("503 Service Unavailable", &[], "") } else { one_file(request) }
    }));
    setup.resolve("org/name:model.gguf").unwrap();
    let setup = Setup::new(&serve(|_| reply("429 Too Many Requests", &[], "")));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("too many requests"), "{message}");
}

#[test]
fn a_silent_server_is_given_up() {
    let setup = Setup::new(&serve(|_| Reply { bytes: vec![], hang: true }));
    let start = Instant::now();
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("timeout"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[test]
fn a_refused_connection_fails_at_once() {
    let setup = Setup::new("http://127.0.0.1:1");
    let start = Instant::now();
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("refused") && message.contains("HF_ENDPOINT"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

/// A server that sends the first bytes of the content and then stalls if `hang`, else closes the connection.
fn breaking(request: &Request, hang: bool) -> Reply {
    if request.path.contains("/api/") || request.is_about_the_file() || request.start() > 0 {
        let good = one_file(request);
        return if request.start() > 0 { cut(good, 0, hang) } else { good };
    }
    cut(one_file(request), 15, hang)
}

fn cut(good: Reply, missing: usize, hang: bool) -> Reply {
    // The continuation loses its whole body, so that every attempt breaks.
    let keep = if missing == 0 {
        good.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4
    } else {
        good.bytes.len() - missing
    };
    Reply { bytes: good.bytes[..keep].to_vec(), hang }
}

#[test]
fn a_broken_download_is_said_and_continued_by_the_next_run() {
    for hang in [false, true] {
        let mut setup = Setup::new(&serve(move |request| breaking(request, hang)));
        let message = setup.refuse("org/name:model.gguf");
        assert!(message.contains("after 5 of 20 bytes"), "{message}");
        let starts = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&starts);
        setup.places.hub.endpoint = Some(serve(move |request| {
            if request.path.contains("resolve") && !request.is_about_the_file() {
                seen.lock().unwrap().push(request.start());
            }
            one_file(request)
        }));
        let model = setup.resolve("org/name:model.gguf").unwrap();
        assert_eq!(fs::read_to_string(&model.path).unwrap(), CONTENT);
        assert_eq!(*starts.lock().unwrap(), [5]);
    }
}

#[test]
fn a_download_outlives_connections_that_bring_nothing() {
    let starts = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&starts);
    let setup = Setup::new(&serve(move |request| {
        let good = one_file(request);
        if !request.path.contains("resolve") || request.is_about_the_file() {
            return good;
        }
        let mut seen = seen.lock().unwrap();
        seen.push(request.start());
        match seen.len() {
            1 => cut(good, 15, false),
            2 => cut(good, 0, false),
            3 => Reply { bytes: vec![], hang: false },
            4 => cut(good, 10, false),
            5 => reply("429 Too Many Requests", &[("Retry-After", "0")], ""),
            6 => cut(good, 0, false),
            _ => good,
        }
    }));
    let model = setup.resolve("org/name:model.gguf").unwrap();
    assert_eq!(fs::read_to_string(&model.path).unwrap(), CONTENT);
    assert_eq!(*starts.lock().unwrap(), [0, 5, 5, 5, 10, 10, 10]);
}

#[test]
fn a_server_that_always_begins_anew_and_never_ends_is_given_up() {
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let setup = Setup::new(&serve(move |request| {
        if !request.path.contains("resolve") || request.is_about_the_file() {
            return one_file(request);
        }
        let mut count = count.lock().unwrap();
        *count += 1;
        let whole = reply("200 OK", &[("ETag", CONTENT_SHA256)], CONTENT);
        match *count {
            1..50 => cut(whole, if *count % 2 == 1 { 10 } else { 15 }, false),
            _ => whole,
        }
    }));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("the connection broke after 5 of 20 bytes"), "{message}");
    assert_eq!(*asked.lock().unwrap(), 4, "one that got further, and three attempts that did not");
}

#[test]
fn a_continuation_from_another_byte_is_refused() {
    let setup = Setup::new(&serve(|request| match request.start() {
        5 => reply("206 Partial Content", &[("Content-Range", "bytes 0-14/20")], &CONTENT[..15]),
        _ => breaking(request, false),
    }));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("asked for the bytes from 5 on") && message.contains("bytes 0-14/20"), "{message}");
}

#[test]
fn wrong_content_is_not_kept() {
    let setup = Setup::new(&serve(|request| match request.path.contains("resolve") {
        true => content(request, "twenty bytes of junk", CONTENT_SHA256),
        false => one_file(request),
    }));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("another SHA-256"), "{message}");
    assert_eq!(setup.blobs(), [""; 0]);
}

/// Asks to stop from the start.
struct Stopped;

impl Monitor for Stopped {
    fn cancelled(&self) -> bool {
        true
    }
}

#[test]
fn a_download_can_be_stopped_and_goes_on_later() {
    let setup = Setup::new(&serve(one_file));
    let source: ModelSource = "org/name:model.gguf".parse().unwrap();
    let error = source.resolve_in(&setup.places, &Stopped).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    source.resolve_in(&setup.places, &Silent).unwrap();
}

#[test]
fn names_from_the_network_stay_in_the_cache() {
    let setup = Setup::new(&serve(|request| match request.path.contains("resolve") {
        true => content(request, CONTENT, "\"../../../../evil\""),
        false => one_file(request),
    }));
    let message = setup.refuse("org/name:model.gguf");
    assert!(message.contains("no usable etag"), "{message}");
}

#[test]
fn the_default_model_names_every_way_that_failed() {
    let setup = Setup::new("http://127.0.0.1:1");
    let cached = setup.root.path().join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    fs::create_dir_all(cached.parent().unwrap()).unwrap();
    fs::write(&cached, "damaged").unwrap();
    let error = setup.resolve("default").unwrap_err();
    let Error::ModelUnavailable { tried, .. } = &error else { panic!("{error}") };
    assert_eq!(tried.len(), 3);
    assert!(tried[0].contains("expected 98362432 bytes, found 7"), "{}", tried[0]);
    assert!(tried[1].contains("refused"), "{}", tried[1]);
    assert!(tried[2].contains("no-such-pip"), "{}", tried[2]);
    assert!(error.to_string().contains("a .gguf file as `model`"));
    assert!(!Path::new(&cached).exists(), "a damaged copy of our own is removed");
}
