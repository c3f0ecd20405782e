//! The vocabulary of the end-to-end tests: a folder, and the built binary run in it.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

/// The repository.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A bundled corpus, by name.
pub(crate) fn corpus(name: &str) -> String {
    root().join(format!("data/corpora/{name}.jsonl")).display().to_string()
}

/// A tiny random checkpoint, by name.
pub(crate) fn tiny(name: &str) -> String {
    root().join("tests/fixtures/tiny").join(name).display().to_string()
}

/// A folder that goes away, and the binary run in it.
pub(crate) struct Sandbox {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), env: vec![] }
    }

    /// The same with more environment variables.
    pub(crate) fn with_env(mut self, variables: &[(&str, &str)]) -> Self {
        self.env.extend(variables.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).unwrap();
        name.to_string()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_refract"));
        command.args(args).current_dir(self.folder.path()).env_remove("RUST_LOG").stdin(Stdio::null());
        command.envs(self.env.iter().cloned());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs to success; returns standard output.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?} failed:\n{}", text(&output.stderr));
        text(&output.stdout)
    }

    /// Runs to success with `--json`; returns each line.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let out = self.ok(&[args, &["--json"]].concat());
        out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Runs to a failure that is an error message, not a panic; returns standard error.
    pub(crate) fn error(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let message = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{args:?} did not fail with an error:\n{message}");
        assert!(message.contains("error:") && !message.contains("panicked"), "{args:?}:\n{message}");
        message
    }

    pub(crate) fn start(&self, args: &[&str]) -> Child {
        self.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Runs until there is a checkpoint in the folder `sae` that was not there before, and kills it then.
    pub(crate) fn kill_at_new_checkpoint(&self, args: &[&str]) {
        let newest = || {
            let names = std::fs::read_dir(self.path("sae/checkpoints")).into_iter().flatten().filter_map(Result::ok);
            let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
            names.filter(|name| !name.ends_with(".tmp")).max()
        };
        let before = newest();
        let mut child = self.start(args);
        while newest() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(self.read_json("sae/manifest.json")["complete"], false);
    }

    /// A JSON file.
    pub(crate) fn read_json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Every file under a folder with its bytes, but for folders called `checkpoints`.
pub(crate) fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_file() {
            found.push((name, std::fs::read(&path).unwrap()));
        } else if name != "checkpoints" {
            found.extend(files(&path).into_iter().map(|(inner, bytes)| (format!("{name}/{inner}"), bytes)));
        }
    }
    found.sort();
    found
}

/// The Python with pyarrow and polars that `.ci/run` makes. Without it such tests are skipped, but never in CI.
pub(crate) fn test_python() -> Option<String> {
    let python = std::env::var("REFRACT_TEST_PYTHON").ok();
    if python.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI must set REFRACT_TEST_PYTHON: see .ci/run");
        eprintln!("skipped: set REFRACT_TEST_PYTHON to a Python that has pyarrow, polars and safetensors");
    }
    python
}
