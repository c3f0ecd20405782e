//! The pipeline on a bucket of a real S3 server: the corpus is read from it and the activations are written to it and
//! read back.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::sandbox::{Sandbox, root, test_python, tiny};

/// A server with an empty bucket, which ends when this is dropped.
struct S3 {
    server: Child,
    url: String,
}

impl S3 {
    fn start() -> Option<Self> {
        let mut command = Command::new(test_python()?);
        let command = command.arg(root().join("harvester/tests/s3_server.py"));
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "the S3 server did not start");
        Some(Self { server, url: url.trim().to_string() })
    }

    /// A folder in which the binary finds this server, and keeps its cache.
    fn sandbox(&self) -> Sandbox {
        let sandbox = Sandbox::new();
        let cache = sandbox.path("cache").display().to_string();
        sandbox.with_env(&[
            ("AWS_ENDPOINT_URL", &self.url),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("REFRACT_CACHE", &cache),
        ])
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }
}

/// 80 documents of different lengths.
fn corpus(sandbox: &Sandbox) -> String {
    let sentence = |i: usize| "the cat sat on the mat, and then 12 dogs came. ".repeat(i % 7 + 3) + &i.to_string();
    let lines: String = (0..80).map(|i| format!("{{\"text\": \"{}\"}}\n", sentence(i))).collect();
    sandbox.write("corpus.jsonl", lines)
}

#[test]
fn a_bucket_is_a_folder_like_any_other() {
    let Some(s3) = S3::start() else { return };
    let sandbox = s3.sandbox();
    let (corpus, model) = (corpus(&sandbox), tiny("llama"));
    let harvest = |out: &str| {
        let args = [
            "harvest",
            "--model",
            &model,
            "--corpus",
            &corpus,
            "--hook-point",
            "blocks.1.hook_resid_post",
            "--ctx-len",
        ];
        sandbox.ok(&[&args[..], &["32", "--part-tokens", "2048", "--out", out]].concat())
    };
    harvest("here");
    harvest("s3://bucket/runs/activations");
    assert!(sandbox.ok(&["inspect", "s3://bucket/runs/activations", "--verify"]).contains("every byte is as recorded"));

    // What was trained on either is the same, so what was read from either was.
    for (activations, sae) in [("here", "sae-here"), ("s3://bucket/runs/activations", "sae-there")] {
        let args =
            ["train", "--activations", activations, "--k", "3", "--d-sae", "64", "--tokens", "8192", "--batch", "512"];
        sandbox.ok(&[&args[..], &["--out", sae]].concat());
    }
    let weights = |sae: &str| std::fs::read(sandbox.path(sae).join("sae_weights.safetensors")).unwrap();
    assert!(weights("sae-here") == weights("sae-there"));
    assert!(
        !sandbox.path("cache/staging").exists() || sandbox.path("cache/staging").read_dir().unwrap().next().is_none()
    );

    // A corpus may lie there too: text is copied to the cache, tables are read by range.
    let upload = "import boto3, sys; \
                  boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id='test', \
                  aws_secret_access_key='test', region_name='us-east-1')\
                  .upload_file(sys.argv[2], 'bucket', sys.argv[3])";
    let table = root().join("tests/fixtures/corpora/snappy.parquet").display().to_string();
    for (from, to) in [(sandbox.path(&corpus).display().to_string(), "corpus/a.jsonl"), (table, "corpus/b.parquet")] {
        let status = Command::new(test_python().unwrap()).args(["-c", upload, &s3.url, &from, to]).status().unwrap();
        assert!(status.success());
    }
    let model = tiny("llama");
    let args = ["harvest", "--model", &model, "--corpus", "s3://bucket/corpus", "--hook-point", "hook_embed"];
    sandbox.ok(&[&args[..], &["--ctx-len", "32", "--out", "from-there"]].concat());
    let manifest = sandbox.read_json("from-there/manifest.json");
    let documents = |source: usize| manifest["corpus"][source]["documents"].as_u64().unwrap();
    assert_eq!((documents(0), documents(1)), (80, 40));

    let message = sandbox.error(&["inspect", "s3://nowhere/runs"]);
    assert!(message.contains("s3://nowhere/runs"), "{message}");
}
