//! [`HubDataset`]: the parquet files of a dataset on the Hub, read where they are: each range over HTTP when it is needed,
//! nothing kept on disk. What is read is of one commit, whatever happens to the branch meanwhile.

use std::sync::Arc;

use bytes::Bytes;
use hf_hub::RepoType;
use serde::Deserialize;

use super::{
    HubSettings,
    request::{Client, escaped},
    snapshot::is_plain,
};
use crate::{Error, Result, Silent};

/// How the address of a dataset begins.
const SCHEME: &str = "hf://datasets/";

/// The branch on which the Hub keeps a parquet copy of datasets that are in another format.
const CONVERTED: &str = "refs/convert/parquet";

/// A dataset, or a file or folder of it, at one commit.
#[derive(Debug)]
pub(crate) struct HubDataset {
    /// `hf://datasets/ORG/NAME@COMMIT/PATH`: what finds the same bytes again.
    pub(crate) pinned: String,
    /// The commit.
    pub(crate) commit: String,
    /// Its own name.
    pub(crate) name: String,
    /// Its parquet files, sorted by path.
    pub(crate) files: Vec<HubFile>,
}

/// A parquet file on the Hub.
#[derive(Debug, Clone)]
pub(crate) struct HubFile {
    client: Arc<Client>,
    url: String,
    /// In the repository, with `/`.
    pub(crate) path: String,
    /// Its size.
    pub(crate) bytes: u64,
    /// SHA-256 of its content, or git's name of it for a small file.
    pub(crate) hash: String,
}

/// `ORG/NAME`, a revision, and a path in the repository.
struct Address {
    repo: String,
    revision: String,
    path: String,
}

/// What the Hub tells of a dataset.
#[derive(Deserialize)]
struct Info {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
    size: u64,
}

impl HubDataset {
    /// Whether a corpus is named by such an address.
    pub(crate) fn is_named(text: &str) -> bool {
        text.starts_with("hf://")
    }

    /// The parquet files of the dataset at `hf://datasets/ORG/NAME[@REVISION][/FILE-OR-FOLDER]`; where it has none, those of the
    /// Hub's own parquet copy of it. At the commit `pinned`, if an earlier run has found that: a branch may have moved since.
    ///
    /// # Errors
    /// When the address is malformed, the Hub refuses or is not reached, or there is no parquet file.
    pub(crate) fn open(text: &str, pinned: Option<&str>, settings: &HubSettings) -> Result<Self> {
        let address = Address::parse(text)?;
        if settings.offline {
            let hint = "Unset HF_HUB_OFFLINE, or harvest from files on this machine";
            return Err(Error::download(text, "HF_HUB_OFFLINE is set", hint));
        }
        let revision = pinned.unwrap_or(&address.revision);
        let client = Client::new(settings, RepoType::Dataset, &address.repo, revision)?;
        let found = Self::at(&address, &client)?.ok_or_else(|| client.no_revision())?;
        if !found.files.is_empty() {
            return Ok(found);
        }
        let client = Client::new(settings, RepoType::Dataset, &address.repo, CONVERTED)?;
        let converted = Self::at(&address, &client)?.filter(|converted| !converted.files.is_empty());
        converted.ok_or_else(|| {
            let place = if address.path.is_empty() { "it".into() } else { format!("`{}`", address.path) };
            let reason = format!("there is no parquet file in {place}, nor a parquet copy on the branch {CONVERTED}");
            Error::download(text, reason, "Check the path, or download the dataset's files and name those")
        })
    }

    /// What is there at the revision that `client` asks about; `None` where there is no such revision.
    fn at(address: &Address, client: &Client) -> Result<Option<Self>> {
        let Some(Info { sha, siblings }) = client.info_with_blobs(&Silent)? else { return Ok(None) };
        if !is_plain(&sha) {
            let reason = format!("the answer is not a Hub's: `{sha}` is no commit");
            return Err(Error::download(&address.repo, reason, "Check HF_ENDPOINT"));
        }
        let client = Arc::new(client.at_commit(&sha));
        let folder = format!("{}/", address.path);
        let is_wanted = |name: &str| {
            let inside = address.path.is_empty() || name == address.path || name.starts_with(&folder);
            inside && name.ends_with(".parquet")
        };
        let siblings = siblings.into_iter().filter(|sibling| is_wanted(&sibling.rfilename));
        let mut files = siblings.map(|sibling| HubFile::of(&client, sibling)).collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let slash = if address.path.is_empty() { "" } else { "/" };
        let pinned = format!("{SCHEME}{}@{}{slash}{}", address.repo, sha, address.path);
        let name = address.repo.rsplit('/').next().unwrap_or_default().to_string();
        Ok(Some(Self { pinned, commit: sha, name, files }))
    }
}

impl Address {
    fn parse(text: &str) -> Result<Self> {
        let malformed = || {
            let expected = format!("{SCHEME}ORG/NAME, with @REVISION and /FILE-OR-FOLDER where wanted");
            Error::invalid("corpus", expected, text.to_string())
        };
        let rest = text.strip_prefix(SCHEME).ok_or_else(malformed)?.trim_end_matches('/');
        let (org, rest) = rest.split_once('/').ok_or_else(malformed)?;
        let (name, path) = rest.split_at(rest.find(['@', '/']).unwrap_or(rest.len()));
        let (revision, path) = match path.strip_prefix('@') {
            None => ("main", path),
            Some(rest) => {
                // Only the Hub's own references have slashes: `refs/convert/parquet`, `refs/pr/1`.
                let slashes = if rest.starts_with("refs/") { 2 } else { 0 };
                rest.split_at(rest.match_indices('/').nth(slashes).map_or(rest.len(), |(at, _)| at))
            }
        };
        let path = path.trim_start_matches('/');
        if [org, name, revision].iter().any(|part| part.is_empty()) {
            return Err(malformed());
        }
        Ok(Self { repo: format!("{org}/{name}"), revision: revision.into(), path: path.into() })
    }
}

impl HubFile {
    fn of(client: &Arc<Client>, sibling: Sibling) -> Result<Self> {
        let url = client.url(&escaped(&sibling.rfilename));
        let bytes = sibling.lfs.as_ref().map(|lfs| lfs.size).or(sibling.size);
        let hash = sibling.lfs.map(|lfs| lfs.sha256).or(sibling.blob_id);
        let (Some(bytes), Some(hash)) = (bytes, hash) else {
            return Err(Error::download(
                &url,
                "the Hub's list of files has no size and hash of it",
                "Check HF_ENDPOINT",
            ));
        };
        Ok(Self { client: Arc::clone(client), url, path: sibling.rfilename, bytes, hash })
    }

    /// The address of the file at its commit.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// `len` bytes from byte `start` on. A connection that breaks is taken up again where it broke.
    ///
    /// # Errors
    /// When the Hub refuses, or connection after connection brings nothing.
    pub(crate) fn read_range(&self, start: u64, len: u64) -> Result<Bytes> {
        // Where a file ends is known: nothing is allocated for what a damaged footer names.
        let end = start.checked_add(len).filter(|end| *end <= self.bytes).ok_or_else(|| {
            let found = format!("a footer that names {len} bytes from byte {start} on");
            Error::malformed(&self.url, format!("a parquet file of {} bytes", self.bytes), found, "It is damaged")
        })?;
        self.client.range(&self.url, start..end, self.bytes, &Silent)
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
        for text in ["hf://org/name", "hf://datasets/name", "hf://datasets/org/", "hf://datasets/org/name@"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("hf://datasets/ORG/NAME") && message.contains(text), "{message}");
        }
    }
}
