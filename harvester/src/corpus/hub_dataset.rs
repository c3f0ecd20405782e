//! [`HubDataset`]: the parquet files of a dataset on the Hugging Face Hub. Files are listed here and read by ranges
//! (`table.rs`), a column of a row group at a time; nothing is written to disk.
//!
//! ```text
//! hf://datasets/ORG/NAME[@REVISION][/FILE-OR-FOLDER]   REVISION: a commit, branch or tag, also `refs/convert/parquet`
//! ```
//!
//! The revision is pinned to its commit first, so that all files are of one state, and a run that starts again finds it.

use std::sync::Arc;

use bytes::Bytes;
use hf_hub::RepoType;
use serde::Deserialize;

use crate::{
    Error, Result, Silent,
    model_source::{Client, HubSettings, escaped},
};

const SCHEME: &str = "hf://";
const FORM: &str = "hf://datasets/ORG/NAME[@REVISION][/FILE-OR-FOLDER]";

/// The branch on which the Hub keeps a copy in parquet of datasets that have other files.
const CONVERTED: &str = "refs/convert/parquet";

/// A dataset at one commit.
#[derive(Debug)]
pub(super) struct HubDataset {
    name: DatasetName,
    commit: String,
    client: Arc<Client>,
}

/// What the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DatasetName {
    repo: String,
    revision: Option<String>,
    /// A file or folder of it; all of it where empty.
    path: String,
}

/// A file of a dataset, which is read by ranges.
#[derive(Debug, Clone)]
pub(super) struct HubFile {
    /// Its path in the dataset.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// The SHA-256 of its content, or for a small file that Git holds itself, `git:` and Git's hash.
    pub(super) sha256: String,
    url: String,
    client: Arc<Client>,
}

/// An entry of the Hub's list of files.
#[derive(Debug, Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    oid: String,
    size: u64,
    lfs: Option<Lfs>,
}

/// A large file's content, by its SHA-256.
#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
}

impl HubDataset {
    /// Whether a path names something on the Hub.
    pub(super) fn is_one(text: &str) -> bool {
        text.starts_with(SCHEME)
    }

    /// Finds the commit of the dataset that `text` names, unless an earlier run has: `pinned`.
    pub(super) fn open(text: &str, pinned: Option<&str>, hub: &HubSettings) -> Result<Self> {
        let name = DatasetName::parse(text)
            .ok_or_else(|| Error::invalid("a dataset on the Hub", FORM.to_string(), format!("`{text}`")))?;
        if hub.offline {
            let hint = "Unset HF_HUB_OFFLINE: datasets are streamed, and not kept";
            return Err(Error::download(text, "HF_HUB_OFFLINE is set", hint));
        }
        let revision = pinned.or(name.revision.as_deref()).unwrap_or("main");
        let client = Client::new(hub, RepoType::Dataset, &name.repo, revision)?;
        let commit = match pinned {
            Some(commit) => commit.to_owned(),
            None => client.info(&Silent)?.sha,
        };
        let dataset = Self { name, client: Arc::new(client.at_commit(&commit)), commit };
        if pinned.is_some() || dataset.name.revision.is_some() || !dataset.name.path.is_empty() {
            return Ok(dataset);
        }
        if dataset.parquet_files()?.is_empty() { dataset.converted(hub) } else { Ok(dataset) }
    }

    /// The Hub's own copy in parquet, for a dataset without such files.
    fn converted(self, hub: &HubSettings) -> Result<Self> {
        let client = Client::new(hub, RepoType::Dataset, &self.name.repo, CONVERTED)?;
        let commit = client.info_if_there(&Silent)?.ok_or_else(|| self.nothing())?.sha;
        let name = DatasetName { revision: Some(CONVERTED.into()), ..self.name };
        Ok(Self { name, client: Arc::new(client.at_commit(&commit)), commit })
    }

    /// The commit.
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The last part of its name.
    pub(super) fn short_name(&self) -> &str {
        self.name.repo.rsplit('/').next().unwrap_or_default()
    }

    /// `hf://datasets/ORG/NAME@COMMIT/PATH`.
    pub(super) fn pinned(&self) -> String {
        let slash = if self.name.path.is_empty() { "" } else { "/" };
        format!("{SCHEME}datasets/{}@{}{slash}{}", self.name.repo, self.commit, self.name.path)
    }

    /// Its parquet files, or those in the folder named, or the one named, by path.
    ///
    /// # Errors
    /// When there is none, or the Hub cannot be asked.
    pub(super) fn files(&self) -> Result<Vec<HubFile>> {
        let files = self.parquet_files()?;
        if files.is_empty() { Err(self.nothing()) } else { Ok(files) }
    }

    fn parquet_files(&self) -> Result<Vec<HubFile>> {
        let path = self.name.path.as_str();
        // The list is of folders: a file's is that of its folder.
        let folder = if is_parquet(path) { path.rsplit_once('/').map_or("", |(folder, _)| folder) } else { path };
        let entries: Vec<TreeEntry> = self.client.tree(folder, &Silent)?;
        let wanted = |entry: &TreeEntry| {
            entry.kind == "file" && is_parquet(&entry.path) && (!is_parquet(path) || entry.path == path)
        };
        let mut files: Vec<_> = entries.into_iter().filter(wanted).map(|entry| self.file(entry)).collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    fn file(&self, entry: TreeEntry) -> HubFile {
        HubFile {
            url: self.client.url(&escaped(&entry.path)),
            path: entry.path,
            bytes: entry.size,
            sha256: entry.lfs.map_or_else(|| format!("git:{}", entry.oid), |lfs| lfs.oid),
            client: Arc::clone(&self.client),
        }
    }

    fn nothing(&self) -> Error {
        let hint = "Name another folder or revision of it, or download its files and name those";
        Error::download(self.pinned(), "it has no parquet file there", hint)
    }
}

impl DatasetName {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix(SCHEME)?.strip_prefix("datasets/")?;
        let (org, rest) = rest.split_once('/')?;
        let name_end = rest.find(['@', '/']).unwrap_or(rest.len());
        let (name, rest) = rest.split_at(name_end);
        let (revision, path) = match rest.strip_prefix('@') {
            None => (None, rest),
            Some(rest) => {
                // Only the Hub's own references have slashes: `refs/convert/parquet`, `refs/pr/1`.
                let slashes = if rest.starts_with("refs/") { 2 } else { 0 };
                let end = rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at);
                (Some(rest[..end].replace("%2F", "/")), &rest[end..])
            }
        };
        let path = path.trim_matches('/');
        let plain = |part: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
        };
        let revision_is_good = revision.as_ref().is_none_or(|revision| revision.split('/').all(plain));
        let path_is_good = path.is_empty() || path.split('/').all(|part| !["", ".", ".."].contains(&part));
        let good = plain(org) && plain(name) && revision_is_good && path_is_good;
        good.then(|| Self { repo: format!("{org}/{name}"), revision, path: path.to_owned() })
    }
}

fn is_parquet(path: &str) -> bool {
    path.ends_with(".parquet")
}

impl HubFile {
    /// `length` bytes from byte `start` on.
    pub(super) fn read_range(&self, start: u64, length: u64) -> Result<Bytes> {
        // A length from a damaged footer, which nothing should be allocated for.
        let end = start.checked_add(length).filter(|end| *end <= self.bytes).ok_or_else(|| {
            let found = format!("a footer that names {length} bytes from byte {start} on");
            Error::malformed(&self.url, format!("a parquet file of {} bytes", self.bytes), found, "The file is damaged")
        })?;
        self.client.range(&self.url, start..end, self.bytes, &Silent)
    }

    /// As errors name it.
    pub(super) fn name(&self) -> &str {
        &self.url
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_read() {
        let cases = [
            ("hf://datasets/org/name", "org/name", None, ""),
            ("hf://datasets/org/na.me-2@v1.0", "org/na.me-2", Some("v1.0"), ""),
            ("hf://datasets/org/name/data/train", "org/name", None, "data/train"),
            ("hf://datasets/org/name@main/a b.parquet", "org/name", Some("main"), "a b.parquet"),
            ("hf://datasets/org/name@refs/convert/parquet/x/", "org/name", Some("refs/convert/parquet"), "x"),
            ("hf://datasets/org/name@refs%2Fpr%2F1/x", "org/name", Some("refs/pr/1"), "x"),
        ];
        for (text, repo, revision, path) in cases {
            let expected = DatasetName { repo: repo.into(), revision: revision.map(str::to_owned), path: path.into() };
            assert_eq!(DatasetName::parse(text).unwrap(), expected, "{text}");
        }
        for text in [
            "hf://org/name",
            "hf://datasets/name",
            "hf://datasets/../name",
            "hf://datasets/org/name@",
            "hf://datasets/org/name@../x",
            "hf://datasets/org/name/a/../../b",
        ] {
            assert_eq!(DatasetName::parse(text), None, "{text} was accepted");
        }
    }
}
