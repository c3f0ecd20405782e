//! Datasets streamed from the Hub, with our own server on 127.0.0.1. The documents are those in the files, no more
//! bytes than needed are requested, and a bad connection costs only time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema},
};
use parquet::{arrow::ArrowWriter, basic::Compression, file::properties::WriterProperties};
use serde_json::json;
use tempfile::TempDir;

use super::harvester::open_corpus_from;
use crate::{
    Compute, Corpus, CorpusOptions, HarvestConfig, HarvestManifest, HookPoint, LanguageModel, ModelSource, Result,
    Silent, harvest,
    source::{
        HubSettings,
        hub_server::{Reply, Request, receive, reply, serve},
    },
    text::Document,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CONVERTED: &str = "89abcdef0123456789abcdef0123456789abcdef";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/corpora").join(name)
}

/// The requests that a server got: path, whether the token was sent, and the range.
type Asked = Arc<Mutex<Vec<(String, bool, Option<(usize, usize)>)>>>;

fn range(request: &Request) -> Option<(usize, usize)> {
    let range = request.head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
    let (start, end) = range.split_once('-')?;
    Some((start.parse().ok()?, end.parse().ok()?))
}

fn note(asked: &Asked, request: &Request) {
    let token = request.head.contains("authorization: bearer hf_token");
    asked.lock().unwrap().push((request.path.clone(), token, range(request)));
}

/// A dataset on the Hub: its files by path, at one commit.
struct Dataset {
    files: BTreeMap<String, Vec<u8>>,
    commit: &'static str,
}

impl Dataset {
    fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, name)| (path.to_string(), fs::read(fixture(name)).unwrap()));
        Self { files: files.collect(), commit: COMMIT }
    }

    /// The list of a folder's entries, two per page.
    fn tree(&self, path: &str) -> Reply {
        let (place, query) = path.split_once('?').unwrap();
        let folder = place.split_once(self.commit).unwrap().1.trim_start_matches('/').replace("%20", " ");
        let before = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut entries = BTreeMap::new();
        for (path, bytes) in self.files.iter().filter(|(path, _)| path.starts_with(&before)) {
            for (end, _) in path.match_indices('/').filter(|(end, _)| *end > before.len()) {
                let folder = json!({ "type": "directory", "oid": "c3d4", "size": 0, "path": path[..end] });
                entries.insert(&path[..end], folder);
            }
            let lfs = json!({ "oid": format!("{:064x}", bytes.len()), "size": bytes.len(), "pointerSize": 130 });
            let file = json!({ "type": "file", "oid": "a1b2", "size": bytes.len(), "lfs": lfs, "path": path });
            entries.insert(path, file);
        }
        if query.contains("recursive=false") {
            entries.retain(|path, _| !path[before.len()..].contains('/'));
        }
        if entries.is_empty() {
            return reply("404 Not Found", &[("X-Error-Code", "EntryNotFound")], "");
        }
        let recursive = query.split('&').next().unwrap();
        let page: usize = query.split_once("cursor=").map_or(0, |(_, page)| page.parse().unwrap());
        let link = format!("<https://hub.example{place}?{recursive}&cursor={}>; rel=\"next\"", page + 1);
        let headers = if entries.len() > 2 * (page + 1) { vec![("Link", link.as_str())] } else { vec![] };
        let entries: Vec<_> = entries.into_values().skip(2 * page).take(2).collect();
        reply("200 OK", &headers, json!(entries).to_string())
    }

    fn answer(&self, request: &Request) -> Reply {
        let path = request.path.as_str();
        let branch = if self.commit == CONVERTED { "refs%2Fconvert%2Fparquet" } else { "main" };
        if let Some(revision) = path.strip_prefix("/api/datasets/org/name/revision/") {
            return match revision == branch || revision == self.commit {
                // This list of files is cut off if there are many.
                true => reply("200 OK", &[], json!({ "sha": self.commit, "siblings": [] }).to_string()),
                false => reply("404 Not Found", &[("X-Error-Code", "RevisionNotFound")], ""),
            };
        }
        if path.starts_with(&format!("/api/datasets/org/name/tree/{}", self.commit)) {
            return self.tree(path);
        }
        match path.strip_prefix(&format!("/datasets/org/name/resolve/{}/", self.commit)) {
            Some(file) => part(request, &self.files[&file.replace("%20", " ")]),
            None => reply("404 Not Found", &[], ""),
        }
    }
}

/// The bytes of the requested range.
fn part(request: &Request, bytes: &[u8]) -> Reply {
    let (start, end) = range(request).unwrap();
    let range = format!("bytes {start}-{end}/{}", bytes.len());
    reply("206 Partial Content", &[("Content-Range", &range)], &bytes[start..=end])
}

/// A reply without its last `missing` bytes.
fn cut(good: Reply, missing: usize) -> Reply {
    Reply { bytes: good.bytes[..good.bytes.len() - missing].to_vec(), hang: false }
}

fn head_bytes(reply: &Reply) -> usize {
    reply.bytes.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4
}

fn body(reply: &Reply) -> &[u8] {
    &reply.bytes[head_bytes(reply)..]
}

fn content_range(reply: &Reply) -> String {
    let head = String::from_utf8_lossy(&reply.bytes[..head_bytes(reply)]).into_owned();
    head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).unwrap().to_string()
}

/// A reply without its body.
fn without_body(good: Reply) -> Reply {
    let missing = body(&good).len();
    cut(good, missing)
}

/// A server that stops when it has no answer, and from then on refuses every connection.
fn serve_until_none(answer: impl Fn(&Request) -> Option<Reply> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(request) = receive(&stream) else { continue };
            let Some(reply) = answer(&request) else {
                drop(listener); // before the connection ends, so that the next one is refused
                return;
            };
            // The client may have closed the connection already.
            let _ = stream.write_all(&reply.bytes);
        }
    });
    endpoint
}

/// A server and the folders of one test.
struct Hub {
    folder: TempDir,
    settings: HubSettings,
    asked: Asked,
}

impl Hub {
    fn new(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let asked = Asked::default();
        let noted = Arc::clone(&asked);
        let endpoint = serve(move |request| {
            note(&noted, request);
            answer(request)
        });
        let folder = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            endpoint: Some(endpoint),
            token: Some("hf_token".into()),
            timeout: Duration::from_secs(1),
            stall: Duration::from_secs(1),
            attempts: 3,
            backoff: Duration::from_millis(10),
            ..HubSettings::in_folder(folder.path().join("hub"))
        };
        Self { folder, settings, asked }
    }

    fn serving(dataset: Dataset) -> Self {
        Self::new(move |request| dataset.answer(request))
    }

    fn saved(&self) -> PathBuf {
        self.folder.path().join("corpus.parquet")
    }

    fn open(&self, text: &str) -> Result<Corpus> {
        Corpus::open_saved(&[text.into()], &CorpusOptions::default(), &self.saved(), &[], Some(&self.settings))
    }

    fn refuse(&self, text: &str) -> String {
        self.open(text).unwrap_err().to_string()
    }

    /// Ranges of files requested so far.
    fn ranges(&self) -> Vec<(usize, usize)> {
        self.asked.lock().unwrap().iter().filter_map(|(_, _, range)| *range).collect()
    }

    fn forget(&self) {
        self.asked.lock().unwrap().clear();
    }
}

fn documents(corpus: &Corpus) -> Vec<Document> {
    (0..corpus.n_documents()).map(|index| corpus.document(index).unwrap()).collect()
}

fn lines() -> Vec<Document> {
    documents(&Corpus::open(&[fixture("lines.jsonl")], &CorpusOptions::default()).unwrap())
}

/// The same lines from `n` files.
fn repeated(n: usize) -> Vec<Document> {
    (0..n).flat_map(|_| lines()).collect()
}

#[test]
fn a_dataset_is_its_parquet_files_at_one_commit() {
    let files = [
        ("README.md", "lines.jsonl"),
        ("data/b c.parquet", "zstd_large.parquet"),
        ("data/a.parquet", "snappy.parquet"),
        ("data/deep/a.parquet", "binary.parquet"),
        ("other/a.parquet", "gzip_dictionary.parquet"),
    ];
    let hub = Hub::serving(Dataset::of(&files));
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    assert_eq!(documents(&corpus), repeated(4));
    let source = &corpus.sources()[0];
    assert_eq!((source.name.as_str(), source.path.as_str()), ("name", &*format!("hf://datasets/org/name@{COMMIT}")));
    for (path, n) in [("data", 3), ("data/deep", 1), ("data/a.parquet", 1), ("data/b c.parquet", 1)] {
        let corpus = hub.open(&format!("hf://datasets/org/name@main/{path}")).unwrap();
        assert_eq!(documents(&corpus), repeated(n), "{path}");
    }
    assert!(!hub.settings.cache_dir.exists(), "something was written");
}

#[test]
fn a_list_of_files_comes_in_pages_of_the_folder_that_is_wanted() {
    let files = ["train/a", "train/b", "train/c", "train/sub/d", "test/e"].map(|name| format!("{name}.parquet"));
    let files = files.each_ref().map(|path| (path.as_str(), "snappy.parquet"));
    let dataset = Dataset::of(&files);
    let breaks = Mutex::new(2);
    let hub = Hub::new(move |request| {
        let good = dataset.answer(request);
        let mut breaks = breaks.lock().unwrap();
        if request.path.contains("cursor=1") && *breaks > 0 {
            *breaks -= 1;
            return cut(good, 10);
        }
        good
    });
    assert_eq!(hub.open("hf://datasets/org/name/train").unwrap().sources()[0].documents, 4 * lines().len() as u64);
    let asked = hub.asked.lock().unwrap();
    let tree = format!("/api/datasets/org/name/tree/{COMMIT}");
    let pages: Vec<_> = asked.iter().filter_map(|(path, ..)| path.strip_prefix(&tree)).collect();
    let second = "/train?recursive=true&cursor=1";
    let expected = ["/train?recursive=true", second, second, second, "/train?recursive=true&cursor=2"];
    assert_eq!(pages, expected, "a page that broke off is asked for again, and no page is left out");
}

#[test]
fn a_later_page_that_is_not_there_is_no_end_of_the_list() {
    let dataset = Dataset::of(&["a", "b", "c"].map(|name| (name, "lines.jsonl")));
    let hub = Hub::new(move |request| match request.path.contains("cursor=1") {
        true => reply("404 Not Found", &[("X-Error-Code", "EntryNotFound")], ""),
        false => dataset.answer(request),
    });
    let message = hub.refuse("hf://datasets/org/name");
    assert!(message.contains("page 2 of its list of files is missing"), "{message}");
}

#[test]
fn what_the_hub_tells_of_a_repository_is_asked_for_again_where_it_breaks_off() {
    let (dataset, breaks) = (Dataset::of(&[("a.parquet", "snappy.parquet")]), Arc::new(Mutex::new(2)));
    let left = Arc::clone(&breaks);
    let hub = Hub::new(move |request| {
        let good = dataset.answer(request);
        let mut left = left.lock().unwrap();
        if request.path.contains("/revision/") && *left > 0 {
            *left -= 1;
            return cut(good, 10);
        }
        good
    });
    assert_eq!(documents(&hub.open("hf://datasets/org/name").unwrap()), lines());
    *breaks.lock().unwrap() = usize::MAX;
    let message = hub.refuse("hf://datasets/org/name");
    assert!(message.contains("the connection broke after"), "{message}");
}

#[test]
fn a_folder_may_have_the_name_of_a_file() {
    let hub = Hub::serving(Dataset::of(&[
        ("a.parquet/part-0.parquet", "snappy.parquet"),
        ("a.parquet/part-1.parquet", "snappy.parquet"),
        ("b.parquet", "snappy.parquet"),
    ]));
    assert_eq!(documents(&hub.open("hf://datasets/org/name/a.parquet").unwrap()), repeated(2));
    assert_eq!(documents(&hub.open("hf://datasets/org/name/b.parquet").unwrap()), lines());
}

#[test]
fn no_copy_of_main_is_taken_for_another_revision() {
    let original = Dataset::of(&[("lines.jsonl", "lines.jsonl")]);
    let converted = Dataset { commit: CONVERTED, ..Dataset::of(&[("a.parquet", "snappy.parquet")]) };
    let hub = Hub::new(move |request| match request.path.contains("refs%2F") || request.path.contains(CONVERTED) {
        true => converted.answer(request),
        false => original.answer(request),
    });
    let message = hub.refuse(&format!("hf://datasets/org/name@{COMMIT}"));
    assert!(message.contains("no parquet file in it") && message.contains("@refs/convert/parquet"), "{message}");
    assert_eq!(documents(&hub.open("hf://datasets/org/name@refs/convert/parquet").unwrap()), lines());
    assert_eq!(documents(&hub.open("hf://datasets/org/name").unwrap()), lines());
}

#[test]
fn a_datasets_identity_is_that_of_its_files() {
    let sha256 = |files: &[(&str, &str)]| {
        Hub::serving(Dataset::of(files)).open("hf://datasets/org/name").unwrap().sources()[0].sha256.clone()
    };
    let one = sha256(&[("a.parquet", "snappy.parquet")]);
    assert_eq!(sha256(&[("a.parquet", "snappy.parquet"), ("README.md", "lines.jsonl")]), one);
    assert_ne!(sha256(&[("a.parquet", "binary.parquet")]), one);
    assert_ne!(sha256(&[("b.parquet", "snappy.parquet")]), one);
}

/// A Hub with one dataset at [`COMMIT`] and another at `second`, and the commit that its branch is at now.
fn moving_hub(first: Dataset) -> (Hub, Arc<Mutex<&'static str>>) {
    let branch = Arc::new(Mutex::new(COMMIT));
    let second = Dataset { commit: "second", ..Dataset::of(&[("b.parquet", "binary.parquet")]) };
    let now = Arc::clone(&branch);
    let hub = Hub::new(move |request| {
        let path = request.path.replace("/revision/main", &format!("/revision/{}", now.lock().unwrap()));
        let dataset = if path.contains("second") { &second } else { &first };
        dataset.answer(&Request { path, head: request.head.clone() })
    });
    (hub, branch)
}

#[test]
fn a_run_that_starts_again_stays_at_its_commit_though_the_branch_has_moved() {
    let (hub, branch) = moving_hub(Dataset::of(&[("a.parquet", "snappy.parquet")]));
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    corpus.save(&hub.saved()).unwrap();
    *branch.lock().unwrap() = "second";
    hub.forget();
    let again = hub.open("hf://datasets/org/name").unwrap();
    assert_eq!(again.sources(), corpus.sources());
    assert_eq!(hub.ranges(), [], "a footer was read again");
    assert_eq!(documents(&again), lines());
    let new = hub.open("hf://datasets/org/name@main").unwrap();
    assert_eq!(new.sources()[0].path, "hf://datasets/org/name@second", "another name is looked up");
}

#[test]
fn a_commit_that_is_gone_is_said_to_be_an_earlier_runs() {
    let dataset = Arc::new(Mutex::new(Dataset::of(&[("a.parquet", "snappy.parquet")])));
    let now = Arc::clone(&dataset);
    let hub = Hub::new(move |request| now.lock().unwrap().answer(request));
    hub.open("hf://datasets/org/name").unwrap().save(&hub.saved()).unwrap();
    dataset.lock().unwrap().commit = "squashed";
    let message = hub.refuse("hf://datasets/org/name");
    assert!(message.contains(COMMIT) && message.contains("the earlier run read"), "{message}");
    assert!(message.contains("another `out`") && !message.contains("spelling"), "{message}");
}

/// Harvests the dataset into a folder of the test, or continues there.
fn harvest_from(hub: &Hub, out: &str) -> Result<HarvestManifest> {
    harvest_tokens(hub, out, None)
}

/// Like [`harvest_from`], with at most `tokens` tokens.
fn harvest_tokens(hub: &Hub, out: &str, tokens: Option<u64>) -> Result<HarvestManifest> {
    let out = hub.folder.path().join(out);
    let paths = ["hf://datasets/org/name".into()];
    let corpus = open_corpus_from(&paths, &CorpusOptions::default(), &out.as_path().into(), Some(&hub.settings))?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny/llama");
    let model = LanguageModel::open(&ModelSource::Folder(path), Compute::F32, &Silent)?;
    let config = HarvestConfig {
        hook_points: vec![HookPoint::Embed],
        ctx_len: 16,
        batch: 3,
        part_tokens: 16 * 16,
        tokens,
        ..HarvestConfig::default()
    };
    harvest(&model, &corpus, &config, out, &Silent)
}

#[test]
fn a_harvest_from_which_the_hub_goes_away_goes_on_in_the_same_process_at_the_same_commit() {
    let dataset = Dataset { files: BTreeMap::from([("a.parquet".into(), wide(6, 50, 14))]), commit: COMMIT };
    let dataset = Arc::new(dataset);
    let serve_it = Arc::clone(&dataset);
    let mut hub = Hub::new(move |request| serve_it.answer(request));
    let whole = harvest_from(&hub, "whole").unwrap();
    let ranges_of_whole = hub.ranges().len();
    hub.forget();

    // Two ranges for the footer when it is opened, two when it is read, one for each of six row groups for the estimate
    // and of three for the harvest.
    let (goes, left) = (Arc::clone(&dataset), Mutex::new(13));
    hub.settings.endpoint = Some(serve_until_none(move |request| {
        let mut left = left.lock().unwrap();
        *left -= usize::from(range(request).is_some() && *left > 0);
        (*left > 0 || range(request).is_none()).then(|| goes.answer(request))
    }));
    let message = harvest_from(&hub, "out").unwrap_err().to_string();
    assert!(message.contains("refused") && message.contains("/resolve/"), "{message}");

    let moved = Dataset { commit: "second", ..Dataset::of(&[("b.parquet", "snappy.parquet")]) };
    let asked = Arc::clone(&hub.asked);
    hub.settings.endpoint = Some(serve(move |request| {
        note(&asked, request);
        match request.path.contains("/revision/main") || request.path.contains("second") {
            true => moved.answer(request),
            false => dataset.answer(request),
        }
    }));
    let manifest = harvest_from(&hub, "out").unwrap();
    assert_eq!(manifest.parts, whole.parts, "other bytes than those of a harvest that was not interrupted");
    assert_eq!(manifest.corpus, whole.corpus);
    assert!(hub.ranges().len() < ranges_of_whole, "{:?} of {ranges_of_whole}: it started over", hub.ranges());
}

#[test]
fn a_finished_harvest_is_repeated_and_extended_at_its_commit_though_the_branch_has_moved() {
    let first = Dataset { files: BTreeMap::from([("a.parquet".into(), wide(6, 50, 14))]), commit: COMMIT };
    let (hub, branch) = moving_hub(first);
    let longer = harvest_tokens(&hub, "longer", Some(512)).unwrap();
    let finished = harvest_tokens(&hub, "out", Some(384)).unwrap();
    assert!(finished.complete && finished.parts.len() == 2 && longer.parts != finished.parts);
    *branch.lock().unwrap() = "second";
    assert_eq!(harvest_tokens(&hub, "out", Some(384)).unwrap(), finished, "it is repeated");
    assert_eq!(harvest_tokens(&hub, "out", Some(512)).unwrap(), longer, "it is extended");
    let new = harvest_tokens(&hub, "new", Some(384)).unwrap();
    assert_eq!(new.corpus[0].path, "hf://datasets/org/name@second", "a new folder reads the branch's current commit");
}

#[test]
fn the_token_goes_to_the_hub_and_not_where_it_sends_us() {
    let dataset = Dataset::of(&[("a.parquet", "snappy.parquet")]);
    let bytes = dataset.files["a.parquet"].clone();
    let store = Hub::new(move |request| part(request, &bytes));
    // Another name for this machine counts as another host.
    let place = store.settings.endpoint.as_ref().unwrap().replace("127.0.0.1", "localhost") + "/store/a";
    let hub = Hub::new(move |request| match request.path.contains("resolve") {
        true => reply("302 Found", &[("Location", &place)], ""),
        false => dataset.answer(request),
    });
    assert_eq!(documents(&hub.open("hf://datasets/org/name").unwrap()), lines());
    assert!(hub.asked.lock().unwrap().iter().all(|(_, token, _)| *token));
    let asked = store.asked.lock().unwrap();
    assert!(!asked.is_empty() && asked.iter().all(|(path, token, _)| path == "/store/a" && !token), "{asked:?}");
}

/// A parquet file with a wide column, which nobody reads, before the text.
fn wide(groups: usize, rows: usize, noise: usize) -> Vec<u8> {
    let fields = ["noise", "text"].map(|name| Field::new(name, DataType::Utf8, false));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(rows))
        .set_dictionary_enabled(false)
        .set_data_page_row_count_limit(500)
        .set_write_batch_size(100)
        .set_compression(Compression::SNAPPY);
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, Arc::clone(&schema), Some(properties.build())).unwrap();
    for group in 0..groups {
        // Multiplying by an odd constant scatters the bits, so the noise does not compress.
        let number = |row: usize| (group * rows + row + 1) as u64;
        let scatter = |row: usize, i: u64| (number(row) * 1_000 + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
        let noises = (0..rows)
            .map(|row| (0..noise as u64 / 14).map(|i| format!("{:014x}", scatter(row, i))).collect::<String>());
        let texts = (0..rows).map(|row| format!("document {}", number(row)));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from_iter_values(noises)), Arc::new(StringArray::from_iter_values(texts))];
        writer.write(&RecordBatch::try_new(Arc::clone(&schema), columns).unwrap()).unwrap();
    }
    writer.close().unwrap();
    bytes
}

fn hub_of(bytes: &[u8]) -> Hub {
    Hub::serving(Dataset { files: BTreeMap::from([("a.parquet".into(), bytes.to_vec())]), commit: COMMIT })
}

#[test]
fn only_the_column_and_the_row_groups_that_are_wanted_are_fetched() {
    let bytes = wide(4, 100, 2_000);
    let hub = hub_of(&bytes);
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    let fetched = |hub: &Hub| hub.ranges().iter().map(|(start, end)| end + 1 - start).sum::<usize>();
    assert!(fetched(&hub) < 2_000, "{} bytes for a footer", fetched(&hub));
    hub.forget();
    assert_eq!(corpus.document(205).unwrap(), Document::Text("document 206".into()));
    assert_eq!(corpus.document(299).unwrap(), Document::Text("document 300".into()));
    assert!(fetched(&hub) < 4_000, "{} of {} bytes for a row group", fetched(&hub), bytes.len());
    assert_eq!(hub.ranges().len(), 3, "the footer, in two steps, and the column: {:?}", hub.ranges());
}

#[test]
fn row_groups_longer_than_a_block_are_read_page_by_page() {
    let hub = hub_of(&wide(1, 9_000, 140));
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    assert_eq!(hub.ranges().len(), 2, "the offsets of pages are requested when they are needed: {:?}", hub.ranges());
    for index in [8_999, 4_095, 4_096, 0] {
        assert_eq!(corpus.document(index).unwrap(), Document::Text(format!("document {}", index + 1)));
    }
    hub.forget();
    corpus.document(8_500).unwrap();
    // Pages of 500 rows from row 8,192 on: two pages are read, and none of the 16 before.
    assert_eq!(hub.ranges().len(), 2, "{:?}", hub.ranges());
}

#[test]
fn a_range_that_is_cut_goes_on_at_the_byte_after_the_last() {
    let bytes = wide(1, 100, 14);
    let size = bytes.len();
    let dataset = Dataset { files: BTreeMap::from([("a.parquet".into(), bytes)]), commit: COMMIT };
    // Every answer longer than 300 bytes ends 300 bytes early; each brings some bytes, so the reader never gives up.
    let hub = Hub::new(move |request| match range(request) {
        Some((start, end)) if end - start > 300 => cut(dataset.answer(request), 300),
        _ => dataset.answer(request),
    });
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    hub.forget();
    assert_eq!(corpus.document(42).unwrap(), Document::Text("document 43".into()));
    let ranges = hub.ranges();
    let broken: Vec<_> = ranges.windows(2).filter(|pair| pair[0].1 - pair[0].0 > 300).collect();
    assert!(!broken.is_empty(), "{ranges:?} of {size}");
    assert!(broken.iter().all(|pair| pair[1] == (pair[0].1 - 299, pair[0].1)), "{ranges:?}");
}

/// A server that fails at the first `times` requests for the column of a file.
fn troubled(times: usize, trouble: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> (Hub, Corpus) {
    let dataset = Dataset::of(&[("a.parquet", "snappy.parquet")]);
    let switch = Arc::new(Mutex::new(None));
    let on = Arc::clone(&switch);
    let hub = Hub::new(move |request| {
        let good = dataset.answer(request);
        let mut left = on.lock().unwrap();
        match left.as_mut().filter(|left: &&mut usize| **left > 0) {
            Some(left) => {
                *left -= 1;
                trouble(good)
            }
            None => good,
        }
    });
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    *switch.lock().unwrap() = Some(times);
    hub.forget();
    (hub, corpus)
}

#[test]
fn a_hub_in_trouble_is_asked_again_and_then_given_up() {
    type Trouble = fn(Reply) -> Reply;
    let troubles: [(Trouble, &str); 4] = [
        (|_| reply("429 Too Many Requests", &[("Retry-After", "0")], ""), "too many requests"),
        (|_| reply("503 Service Unavailable", &[], ""), "status 503"),
        (|_| Reply { bytes: vec![], hang: false }, "a.parquet"),
        (without_body, "the connection broke after 0 of"),
    ];
    for (trouble, said) in troubles {
        let (_hub, corpus) = troubled(2, trouble);
        assert_eq!(documents(&corpus), lines(), "{said}");
        let (hub, corpus) = troubled(usize::MAX, trouble);
        let message = corpus.document(0).unwrap_err().to_string();
        assert!(message.contains(said) && message.contains("/resolve/"), "{message}");
        assert_eq!(hub.ranges().len(), 3, "{said}");
    }
}

#[test]
fn a_wait_that_the_hub_asks_for_is_kept() {
    let (_hub, corpus) = troubled(1, |_| reply("429 Too Many Requests", &[("Retry-After", "1")], ""));
    let start = std::time::Instant::now();
    corpus.document(0).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn a_server_that_does_not_do_as_asked_is_not_believed() {
    let whole = |good: Reply| reply("200 OK", &[], good.bytes);
    let other = |_| reply("206 Partial Content", &[("Content-Range", "bytes 0-3/4")], "PAR1");
    let unsaid = |good: Reply| reply("206 Partial Content", &[], body(&good));
    let of_another_file = |good: Reply| {
        let longer = format!("{}0", content_range(&good));
        reply("206 Partial Content", &[("Content-Range", &longer)], body(&good))
    };
    let more = |good: Reply| {
        let body = [body(&good), b"more"].concat();
        reply("206 Partial Content", &[("Content-Range", &content_range(&good))], body)
    };
    let troubles = [whole as fn(Reply) -> Reply, other, unsaid, of_another_file, more];
    for (i, trouble) in troubles.into_iter().enumerate() {
        let (hub, corpus) = troubled(usize::MAX, trouble);
        let message = corpus.document(0).unwrap_err().to_string();
        assert!(message.contains("files are read by ranges"), "{i}: {message}");
        assert_eq!(hub.ranges().len(), 1, "asking again would not help");
    }
}

#[test]
fn a_dataset_in_other_formats_is_read_from_the_hubs_own_copy() {
    let original = Dataset::of(&[("lines.jsonl", "lines.jsonl")]);
    let converted = Dataset { commit: CONVERTED, ..Dataset::of(&[("default/train/0000.parquet", "snappy.parquet")]) };
    let hub = Hub::new(move |request| match request.path.contains("refs%2F") || request.path.contains(CONVERTED) {
        true => converted.answer(request),
        false => original.answer(request),
    });
    let corpus = hub.open("hf://datasets/org/name").unwrap();
    assert_eq!(documents(&corpus), lines());
    assert_eq!(corpus.sources()[0].path, format!("hf://datasets/org/name@{CONVERTED}"));
    corpus.save(&hub.saved()).unwrap();
    assert_eq!(documents(&hub.open("hf://datasets/org/name").unwrap()), lines(), "the copy is found again");
}

#[test]
fn what_is_not_there_is_said() {
    let hub = Hub::serving(Dataset::of(&[("data/lines.jsonl", "lines.jsonl"), ("a.parquet", "snappy.parquet")]));
    let cases = [
        ("hf://datasets/org/other", "no such dataset"),
        ("hf://datasets/org/name@v9", "no revision `v9`"),
        ("hf://datasets/org/name/nowhere", "no parquet file in `nowhere`"),
        ("hf://datasets/org/name/data", "no parquet file"),
        ("hf://datasets/org/name/b.parquet", "no parquet file"),
        ("hf://org/name", "hf://datasets/ORG/NAME, with optional @REVISION"),
    ];
    for (text, said) in cases {
        let message = hub.refuse(text);
        assert!(message.contains(said), "{text}: {message}");
    }
    let hub = Hub::serving(Dataset::of(&[("lines.jsonl", "lines.jsonl")]));
    assert!(hub.refuse("hf://datasets/org/name").contains("no parquet file"));
    let hub = Hub::new(|_| reply("200 OK", &[], "{}"));
    assert!(hub.refuse("hf://datasets/org/name").contains("not a Hub's"));
    let hub = Hub::new(|request| match request.path.contains("refs%2F") {
        true => reply("503 Service Unavailable", &[], ""),
        false => Dataset::of(&[("lines.jsonl", "lines.jsonl")]).answer(request),
    });
    assert!(hub.refuse("hf://datasets/org/name").contains("status 503"), "a failure does not count as absence");
    let hub = Hub::serving(Dataset::of(&[("a.parquet", "messages.parquet")]));
    let message = hub.refuse("hf://datasets/org/name");
    assert!(
        message.contains("a.parquet")
            && message.contains("messages (List")
            && message.contains("`chat_field` messages"),
        "{message}"
    );
}

#[test]
fn closed_datasets_ask_for_a_token_and_offline_says_so() {
    let mut hub = Hub::new(|request| match request.head.contains("authorization") {
        true => reply("403 Forbidden", &[("X-Error-Code", "GatedRepo")], ""),
        false => reply("401 Unauthorized", &[], ""),
    });
    let message = hub.refuse("hf://datasets/org/name");
    assert!(message.contains("org/name is gated") && message.contains("accept its terms"), "{message}");
    hub.settings.token = None;
    let message = hub.refuse("hf://datasets/org/name");
    assert!(message.contains("no public dataset org/name") && message.contains("HF_TOKEN"), "{message}");
    hub.settings.offline = true;
    assert!(hub.refuse("hf://datasets/org/name").contains("HF_HUB_OFFLINE"));
    hub.settings.offline = false;
    hub.settings.endpoint = Some("http://127.0.0.1:1".into());
    assert!(hub.refuse("hf://datasets/org/name").contains("refused"));
}

#[test]
fn a_damaged_file_is_named() {
    let mut bytes = fs::read(fixture("snappy.parquet")).unwrap();
    let end = bytes.len() - 8;
    bytes[end..end + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    let message = hub_of(&bytes).refuse("hf://datasets/org/name");
    assert!(message.contains("a.parquet") && message.contains("Download it again"), "{message}");
}
