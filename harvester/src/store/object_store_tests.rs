//! [`Location`] against a real S3 server over HTTP: whole writes, multipart uploads, ranges, lists, and the messages
//! when the bucket or the server does not exist.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    error::Error as _,
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use crate::Location;

/// The server; it stops when this is dropped.
struct S3 {
    server: Child,
    url: String,
}

impl S3 {
    /// `None` if there is no Python with the server; in CI that is a failure.
    fn start() -> Option<Self> {
        let Ok(python) = std::env::var("REFRACT_TEST_PYTHON") else {
            assert!(std::env::var_os("CI").is_none(), "CI must set REFRACT_TEST_PYTHON: see .ci/run");
            eprintln!("skipped: set REFRACT_TEST_PYTHON to a Python that has moto[server]");
            return None;
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3_server.py");
        let mut command = Command::new(python);
        let mut server = command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "the S3 server did not start");
        Some(Self { server, url: url.trim().to_string() })
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

fn chain(error: &crate::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// One test in its own process: the store's settings are environment variables.
#[test]
fn a_folder_in_a_bucket() {
    let Some(s3) = S3::start() else { return };
    let settings = [
        ("AWS_ENDPOINT_URL", s3.url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ];
    // SAFETY: no other thread of this process runs yet that could read the environment.
    settings.iter().for_each(|(name, value)| unsafe { std::env::set_var(name, value) });
    let folder: Location = "s3://bucket/runs/activations".parse().unwrap();
    assert!(!folder.is_folder().unwrap());

    // More than one part of an upload, and more than one window of a stream; all windows differ.
    let large: Vec<u8> = (0..9_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let local = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(local.path(), &large).unwrap();
    let part = folder.join("part-00000.parquet");
    part.upload(local.path()).unwrap();
    assert_eq!(part.bytes().unwrap(), Some(large.len() as u64));
    assert_eq!(part.read_range(20_000_000, 16).unwrap(), large[20_000_000..20_000_016]);
    let mut streamed = vec![];
    part.reader().unwrap().read_to_end(&mut streamed).unwrap();
    assert!(streamed == large);

    folder.join("manifest.json").write(b"{}").unwrap();
    folder.join("deeper/file").write(b"").unwrap();
    let entries = folder.list().unwrap();
    let names: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.is_folder)).collect();
    assert_eq!(names, [("deeper", true), ("manifest.json", false), ("part-00000.parquet", false)]);
    assert_eq!(folder.join("manifest.json").read().unwrap(), &b"{}"[..]);
    assert!(folder.is_folder().unwrap());
    folder.join("manifest.json").remove().unwrap();

    let missing = chain(&folder.join("manifest.json").read().unwrap_err());
    assert!(missing.contains("cannot read s3://bucket/runs/activations/manifest.json"), "{missing}");
    let no_bucket = "s3://elsewhere/a".parse::<Location>().unwrap();
    let message = chain(&no_bucket.write(b"x").unwrap_err());
    assert!(message.contains("s3://elsewhere/a") && message.contains("NoSuchBucket"), "{message}");
}
