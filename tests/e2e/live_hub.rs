//! Training on a running model that reads a dataset on the Hub.

#[path = "../../harvester/src/source/hub_server.rs"]
mod hub_server;

use std::sync::{Arc, Mutex};

use hub_server::{Request, reply, serve};

use crate::{
    live::args,
    sandbox::{Sandbox, root, tiny},
};

#[test]
fn a_run_on_a_dataset_of_the_hub_goes_on_at_its_commit_though_the_branch_has_moved() {
    let branch = Arc::new(Mutex::new("first"));
    let now = Arc::clone(&branch);
    let endpoint = serve(move |request: &Request| {
        let path = request.path.replace("/revision/main", &format!("/revision/{}", now.lock().unwrap()));
        let (commit, file) = if path.contains("first") { ("first", "snappy") } else { ("second", "zstd_large") };
        let bytes = std::fs::read(root().join(format!("tests/fixtures/corpora/{file}.parquet"))).unwrap();
        if path.contains("/revision/") {
            return reply("200 OK", &[], format!("{{\"sha\": \"{commit}\", \"siblings\": []}}"));
        }
        if path.contains("/tree/") {
            let size = bytes.len();
            let entry = serde_json::json!([{ "type": "file", "path": "a.parquet", "oid": commit, "size": size }]);
            return reply("200 OK", &[], entry.to_string());
        }
        let range = request.head.lines().find_map(|line| line.strip_prefix("range: bytes=")?.split_once('-')).unwrap();
        let (start, end): (usize, usize) = (range.0.parse().unwrap(), range.1.parse().unwrap());
        let given = format!("bytes {start}-{end}/{}", bytes.len());
        reply("206 Partial Content", &[("Content-Range", &given)], &bytes[start..=end])
    });
    let sandbox = Sandbox::new().with_env(&[("HF_ENDPOINT", &endpoint)]);
    let model = tiny("llama");
    let mut args = args(&model, "hf://datasets/org/name");
    let tokens = args.iter().position(|arg| *arg == "100000").unwrap();
    args[tokens] = "4096";
    sandbox.ok(&args);
    *branch.lock().unwrap() = "second";
    sandbox.ok(&args);
    let source = &sandbox.read_json("sae/held-out/manifest.json")["corpus"][0]["path"];
    assert_eq!(source, "hf://datasets/org/name@first");
}
