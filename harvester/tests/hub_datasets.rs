//! Datasets on the Hub, streamed from a server of our own on 127.0.0.1 that speaks as much of its API as is asked of it, well
//! or badly. No test reads the environment or leaves the machine.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use harvester::{Corpus, CorpusOptions, Document, Result, model_source::HubSettings};
use parquet::arrow::ArrowWriter;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TABLE: &str = "data/train-00000.parquet";
/// The address of [`TABLE`]'s content on what stands for another host.
const CDN: &str = "/cdn/blob";

const TEXTS: [&str; 3] = ["one", "two", "three"];

/// A table of three short texts, each beside a megabyte that nobody wants.
fn table() -> Vec<u8> {
    let noise = |seed: usize| (0..1_000_000).map(|i| ((i * 2_654_435_761 + seed) >> 7) as u8).collect::<Vec<u8>>();
    let images: Vec<_> = (0..TEXTS.len()).map(noise).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("image", Arc::new(BinaryArray::from_iter_values(&images))),
        ("text", Arc::new(StringArray::from_iter_values(TEXTS))),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = vec![];
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// One request: its path, its lines in lower case, and how many came before it.
struct Request {
    path: String,
    head: String,
    number: usize,
}

impl Request {
    /// First and last byte asked for.
    fn range(&self) -> Option<(usize, usize)> {
        let range = self.head.lines().find_map(|line| line.strip_prefix("range: bytes="))?;
        let (first, last) = range.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

fn reply(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn listing(files: &[(&str, usize)]) -> Vec<u8> {
    let sibling = |(name, size): &(&str, usize)| {
        let lfs = serde_json::json!({ "sha256": "ab".repeat(32), "size": size, "pointerSize": 130 });
        serde_json::json!({ "rfilename": name, "size": size, "blobId": "cd", "lfs": lfs })
    };
    let siblings: Vec<_> = files.iter().map(sibling).collect();
    reply(
        "200 OK",
        &[],
        serde_json::json!({ "id": "org/name", "sha": COMMIT, "siblings": siblings }).to_string().as_bytes(),
    )
}

/// A Hub that answers as it should.
fn good(request: &Request) -> Vec<u8> {
    let table = table();
    if request.path.starts_with("/api/datasets/org/name") {
        return listing(&[("README.md", 10), (TABLE, table.len()), ("other/part.parquet", table.len())]);
    }
    if request.path == format!("/datasets/org/name/resolve/{COMMIT}/{TABLE}") {
        return reply("302 Found", &[("Location", CDN)], b"");
    }
    match request.range() {
        Some((first, last)) if request.path == CDN => reply("206 Partial Content", &[], &table[first..=last]),
        _ => reply("404 Not Found", &[], b""),
    }
}

/// Paths and ranges, in the order in which they were asked for.
type Asked = Vec<(String, Option<(usize, usize)>)>;

/// A server and what was asked of it.
struct Hub {
    settings: HubSettings,
    asked: Arc<Mutex<Asked>>,
    _folder: tempfile::TempDir,
}

/// Serves until the test ends.
fn serve(answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Hub {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let asked: Arc<Mutex<Asked>> = Arc::default();
    let log = Arc::clone(&asked);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(&stream).lines().map_while(std::result::Result::ok);
            let head: Vec<_> = lines.take_while(|line| !line.is_empty()).collect();
            let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)) else { continue };
            let (path, number) = (path.to_string(), log.lock().unwrap().len());
            let request = Request { path: path.clone(), head: head.join("\n").to_lowercase(), number };
            log.lock().unwrap().push((path, request.range()));
            let _ = stream.write_all(&answer(&request)); // the client may have had enough already
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let settings = HubSettings {
        endpoint: Some(endpoint),
        timeout: Duration::from_secs(2),
        stall: Duration::from_secs(2),
        ..HubSettings::in_folder(folder.path())
    };
    Hub { settings, asked, _folder: folder }
}

impl Hub {
    fn open(&self, address: &str) -> Result<Corpus> {
        Corpus::open_with_hub(&[address.into()], &CorpusOptions::default(), &self.settings)
    }

    fn refuse(&self, address: &str) -> String {
        self.open(address).unwrap_err().to_string()
    }
}

fn documents(corpus: &Corpus) -> Vec<Document> {
    (0..corpus.n_documents()).map(|index| corpus.document(index).unwrap()).collect()
}

fn expected() -> Vec<Document> {
    TEXTS.map(|text| Document::Text(text.into())).into()
}

#[test]
fn a_dataset_is_streamed_by_range_at_one_commit() {
    let hub = serve(good);
    let corpus = hub.open("hf://datasets/org/name@v1/data").unwrap();
    let source = &corpus.sources()[0];
    assert_eq!((source.name.as_str(), source.documents), ("name", 3));
    assert_eq!(source.path, format!("hf://datasets/org/name@{COMMIT}/data"));
    assert_eq!(documents(&corpus), expected());
    let asked = hub.asked.lock().unwrap();
    assert_eq!(asked[0].0, "/api/datasets/org/name/revision/v1?blobs=true");
    assert!(asked[1..].iter().all(|(path, range)| range.is_some() && !path.contains("other")), "{asked:?}");
    let bytes: usize =
        asked.iter().filter(|(path, _)| path == CDN).filter_map(|(_, range)| *range).map(|(a, b)| b + 1 - a).sum();
    assert!(bytes < table().len() / 4, "{bytes} bytes of {}", table().len());
}

#[test]
fn a_dataset_in_another_format_is_read_from_the_hubs_parquet_copy() {
    let hub = serve(|request| match request.path.as_str() {
        "/api/datasets/org/name/revision/main?blobs=true" => listing(&[("data.csv", 5)]),
        path if path.contains("refs%2Fconvert%2Fparquet") || path.contains("refs/convert/parquet") => {
            listing(&[(TABLE, table().len())])
        }
        _ => good(request),
    });
    assert_eq!(documents(&hub.open("hf://datasets/org/name").unwrap()), expected());
    let nothing = serve(|_| listing(&[("data.csv", 5)]));
    let message = nothing.refuse("hf://datasets/org/name");
    assert!(message.contains("no parquet file") && message.contains("hf://datasets/org/name"), "{message}");
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let hub = serve(|request| {
        let whole = good(request);
        let body = request.range().filter(|(first, last)| request.path == CDN && last - first > 100);
        // Half of what was asked for, every time.
        if body.is_some() {
            whole[..whole.len() - body.map_or(0, |(first, last)| (last - first) / 2)].to_vec()
        } else {
            whole
        }
    });
    assert_eq!(documents(&hub.open("hf://datasets/org/name/data").unwrap()), expected());
    let asked = hub.asked.lock().unwrap();
    let ranges: Vec<_> = asked.iter().filter(|(path, _)| path == CDN).filter_map(|(_, range)| *range).collect();
    let goes_on = |pair: &[(usize, usize)]| pair[1].0 > pair[0].0 && pair[1].1 == pair[0].1;
    assert!(ranges.windows(2).any(goes_on), "{ranges:?}");
}

#[test]
fn an_overloaded_hub_is_asked_again_and_a_broken_one_given_up() {
    for status in ["429 Too Many Requests", "503 Service Unavailable"] {
        let hub = serve(move |request| match request.number % 3 {
            0 => reply(status, &[("Retry-After", "0")], b""),
            _ => good(request),
        });
        assert_eq!(documents(&hub.open("hf://datasets/org/name/data").unwrap()), expected(), "{status}");
    }
    let hub = serve(|request| if request.path == CDN { vec![] } else { good(request) });
    let message = hub.refuse("hf://datasets/org/name/data");
    assert!(message.contains(TABLE), "{message}");
    assert!(hub.asked.lock().unwrap().len() < 20);
}

#[test]
fn what_the_hub_refuses_is_said() {
    let cases = [
        ("404 Not Found", vec![], "no such dataset"),
        ("404 Not Found", vec![("X-Error-Code", "RevisionNotFound")], "no revision `main`"),
        ("403 Forbidden", vec![("X-Error-Code", "GatedRepo")], "accept its terms"),
        ("401 Unauthorized", vec![], "no public dataset org/name"),
        ("200 OK", vec![], "not a Hub's"),
    ];
    for (status, headers, expected) in cases {
        let hub = serve(move |_| reply(status, &headers, b"{}"));
        let message = hub.refuse("hf://datasets/org/name");
        assert!(message.contains(expected), "{status}: {message}");
    }
    let ignoring = serve(|request| if request.path == CDN { reply("200 OK", &[], &table()) } else { good(request) });
    let message = ignoring.refuse("hf://datasets/org/name/data");
    assert!(message.contains("ignores ranges"), "{message}");
    let mut offline = serve(good);
    offline.settings.offline = true;
    assert!(offline.refuse("hf://datasets/org/name").contains("HF_HUB_OFFLINE"));
    assert!(offline.refuse("hf://models/org/name").contains("hf://datasets/ORG/NAME"));
}
