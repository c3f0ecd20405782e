//! [`HubDataset`]: the parquet files of a dataset on the Hub, read remotely: each range is requested over HTTP when it
//! is needed, and nothing is kept on disk. All reads are from one commit, even if the branch moves meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;

use super::{
    HubSettings, RepoKind,
    request::{Client, escaped},
};
use crate::{
    Error, Result, Silent,
    source::names::{is_file, is_name},
};

/// Start of the address of a dataset.
const SCHEME: &str = "hf://datasets/";

/// Branch used if none is named.
const DEFAULT_REVISION: &str = "main";

/// Branch on which the Hub keeps a parquet copy of datasets in other formats.
const CONVERTED: &str = "refs/convert/parquet";

/// A dataset, or a file or folder of it, at one commit.
#[derive(Debug)]
pub(crate) struct HubDataset {
    /// `hf://datasets/ORG/NAME@COMMIT/PATH`: finds the same bytes again.
    pub(crate) pinned: String,
    /// Name of the dataset, without its organization.
    pub(crate) name: String,
    /// Its parquet files, sorted by path.
    pub(crate) files: Vec<HubFile>,
}

/// A parquet file on the Hub.
#[derive(Debug, Clone)]
pub(crate) struct HubFile {
    client: Arc<Client>,
    url: String,
    /// Path in the repository, with `/`.
    pub(crate) path: String,
    /// Size of the file.
    pub(crate) bytes: u64,
    /// SHA-256 of the content; for a small file, `git:` and its git object id.
    pub(crate) hash: String,
}

/// `ORG/NAME`, a revision, and a path in the repository.
struct Address {
    repo: String,
    revision: String,
    path: String,
}

/// The Hub's answer about a file or folder.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: EntryKind,
    path: String,
    oid: String,
    size: Option<u64>,
    /// For a large file.
    lfs: Option<Lfs>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum EntryKind {
    File,
    Directory,
    /// A submodule.
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Lfs {
    /// SHA-256 of the content.
    oid: String,
    size: u64,
}

impl HubDataset {
    /// True if `text` is an address of this kind.
    pub(crate) fn is_named(text: &str) -> bool {
        text.starts_with("hf://")
    }

    /// The commit in an address made by [`Self::pinned`].
    pub(crate) fn commit_of(pinned: &str) -> Option<String> {
        Address::parse(pinned).ok().map(|address| address.revision)
    }

    /// The parquet files of the dataset at `hf://datasets/ORG/NAME[@REVISION][/FILE-OR-FOLDER]`. If `main` has none,
    /// those of the Hub's own parquet copy, which exists for `main` only. `pinned` is the commit that an earlier run
    /// found: it is read again, because a branch may have moved since.
    ///
    /// # Errors
    /// If the address is malformed, the Hub refuses or cannot be reached, or there is no parquet file.
    pub(crate) fn open(text: &str, pinned: Option<&str>, settings: &HubSettings) -> Result<Self> {
        let address = Address::parse(text)?;
        if settings.offline {
            let hint = "Unset HF_HUB_OFFLINE, or harvest from files on this machine";
            return Err(Error::download(text, "HF_HUB_OFFLINE is set", hint));
        }
        let revision = pinned.unwrap_or(&address.revision);
        let client = Client::new(settings, RepoKind::Dataset, &address.repo, revision)?;
        let found = Self::at(&address, &client)?.ok_or_else(|| match pinned.filter(|it| *it != address.revision) {
            Some(commit) => {
                let reason = format!("the earlier run read commit {commit}, which no longer exists");
                let hint = format!("Choose another `out` to read the current state of `{}`", address.revision);
                Error::download(text, reason, hint)
            }
            None => client.no_revision(),
        })?;
        if !found.files.is_empty() {
            return Ok(found);
        }
        let place = if address.path.is_empty() { "it".into() } else { format!("`{}`", address.path) };
        if revision != DEFAULT_REVISION {
            let hint = format!("Check the path; the Hub's parquet copy of {DEFAULT_REVISION} is @{CONVERTED}");
            return Err(Error::download(text, format!("there is no parquet file in {place}"), hint));
        }
        let client = Client::new(settings, RepoKind::Dataset, &address.repo, CONVERTED)?;
        let converted = Self::at(&address, &client)?.filter(|converted| !converted.files.is_empty());
        converted.ok_or_else(|| {
            let reason = format!("there is no parquet file in {place}, nor a parquet copy on the branch {CONVERTED}");
            Error::download(text, reason, "Check the path, or download the dataset's files and name them")
        })
    }

    /// The dataset at the revision that `client` asks about; `None` if there is no such revision.
    fn at(address: &Address, client: &Client) -> Result<Option<Self>> {
        let Some(sha) = client.commit(&Silent)? else { return Ok(None) };
        let client = Arc::new(client.at_commit(&sha));
        let entries = entries_at(&client, &address.path)?.into_iter();
        let wanted = entries.filter(|entry| entry.kind == EntryKind::File && is_parquet(&entry.path));
        let mut files = wanted.map(|entry| HubFile::of(&client, entry)).collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let slash = if address.path.is_empty() { "" } else { "/" };
        let pinned = format!("{SCHEME}{}@{}{slash}{}", address.repo, sha, address.path);
        let name = address.repo.rsplit('/').next().unwrap_or_default().to_string();
        Ok(Some(Self { pinned, name, files }))
    }
}

/// The file at a path, or the files below the folder there; empty if the path does not exist.
fn entries_at(client: &Client, path: &str) -> Result<Vec<Entry>> {
    // The Hub lists folders only, and a folder may have a file's name: Spark writes `train.parquet/part-00000.parquet`.
    if is_parquet(path) {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let itself = client.tree::<Entry>(parent, false, &Silent)?.into_iter().find(|entry| entry.path == path);
        if itself.as_ref().is_none_or(|entry| entry.kind != EntryKind::Directory) {
            return Ok(itself.into_iter().collect());
        }
    }
    client.tree(path, true, &Silent)
}

fn is_parquet(path: &str) -> bool {
    path.ends_with(".parquet")
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            let expected = format!("{SCHEME}ORG/NAME, with optional @REVISION and /FILE-OR-FOLDER");
            Error::invalid("corpus", expected, text.to_string())
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(malformed)?.trim_end_matches('/');
        let (org, rest) = rest.split_once('/').ok_or_else(malformed)?;
        let (name, path) = rest.split_at(rest.find(['@', '/']).unwrap_or(rest.len()));
        let (revision, path) = match path.strip_prefix('@') {
            None => (DEFAULT_REVISION, path),
            Some(rest) => {
                // Only the Hub's own references have slashes: `refs/convert/parquet`, `refs/pr/1`.
                let slashes = if rest.starts_with("refs/") { 2 } else { 0 };
                rest.split_at(rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at))
            }
        };
        let (path, revision) = (path.trim_start_matches('/'), revision.replace("%2F", "/"));
        // hf-hub escapes only the slashes of a revision.
        let is_plain = revision.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte));
        let good = is_name(org) && is_name(name) && is_file(&revision) && (path.is_empty() || is_file(path));
        if !(good && is_plain) {
            return Err(malformed());
        }
        Ok(Self { repo: format!("{org}/{name}"), revision, path: path.into() })
    }
}

impl HubFile {
    fn of(client: &Arc<Client>, entry: Entry) -> Result<Self> {
        let url = client.url(&escaped(&entry.path));
        let Some(bytes) = entry.lfs.as_ref().map(|lfs| lfs.size).or(entry.size) else {
            return Err(Error::download(&url, "the Hub's list of files does not give its size", "Check HF_ENDPOINT"));
        };
        let hash = entry.lfs.map_or_else(|| format!("git:{}", entry.oid), |lfs| lfs.oid);
        Ok(Self { client: Arc::clone(client), url, path: entry.path, bytes, hash })
    }

    /// The address of the file at its commit.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Reads `len` bytes from byte `start` on. A connection that breaks is continued where it broke.
    ///
    /// # Errors
    /// If the Hub refuses, or repeated connections bring no new bytes.
    pub(crate) fn read_range(&self, start: u64, len: u64) -> Result<Bytes> {
        self.client.range(&self.url, start..start + len, self.bytes, &Silent)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_revision_and_a_path() {
        let parse = |text: &str| Address::parse(text).map(|a| (a.repo, a.revision, a.path));
        let found = |repo: &str, revision: &str, path: &str| (repo.to_string(), revision.to_string(), path.to_string());
        assert_eq!(parse("hf://datasets/org/name").unwrap(), found("org/name", "main", ""));
        assert_eq!(parse("hf://datasets/org/name@v1/data/train/").unwrap(), found("org/name", "v1", "data/train"));
        let pull_request = parse("hf://datasets/org/name@refs/pr/1/data").unwrap();
        assert_eq!(pull_request, found("org/name", "refs/pr/1", "data"));
        let escaped = parse("hf://datasets/org/name@refs%2Fconvert%2Fparquet/default").unwrap();
        assert_eq!(escaped, found("org/name", "refs/convert/parquet", "default"));
        let malformed = [
            "hf://org/name",
            "hf://datasets/name",
            "hf://datasets/org/",
            "hf://datasets/org/name@",
            "hf://datasets/org/name@a#b",
            "hf://datasets/org/name@main?x",
            "hf://datasets/org/name@a b",
            "hf://datasets/org/name@a%23b",
            "hf://datasets/../name",
            "hf://datasets/org/name?x",
            "hf://datasets/org/name/../../api",
            "hf://datasets/org/name/a//b",
        ];
        for text in malformed {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("hf://datasets/ORG/NAME") && message.contains(text), "{message}");
        }
    }
}
