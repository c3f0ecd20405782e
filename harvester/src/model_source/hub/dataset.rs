//! [`HubDataset`]: the parquet files of a dataset on the Hub, read where they are: each range over HTTP when it is needed,
//! nothing kept on disk. What is read is of one commit, whatever happens to the branch meanwhile.

use std::{io::Read, sync::Arc};

use bytes::Bytes;
use hf_hub::RepoType;
use serde::Deserialize;

use super::{
    HubSettings,
    request::{ATTEMPTS, Client},
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
    /// Hub's own parquet copy of it.
    ///
    /// # Errors
    /// When the address is malformed, the Hub refuses or is not reached, or there is no parquet file.
    pub(crate) fn open(text: &str, settings: &HubSettings) -> Result<Self> {
        let address = Address::parse(text)?;
        if settings.offline {
            let hint = "Unset HF_HUB_OFFLINE, or harvest from files on this machine";
            return Err(Error::download(text, "HF_HUB_OFFLINE is set", hint));
        }
        let found = Self::at(&address, &address.revision, settings)?;
        if !found.files.is_empty() {
            return Ok(found);
        }
        let converted = Self::at(&address, CONVERTED, settings);
        match converted {
            Ok(converted) if !converted.files.is_empty() => Ok(converted),
            Err(error) if !is_missing(&error) => Err(error),
            _ => {
                let place = if address.path.is_empty() { "it".into() } else { format!("`{}`", address.path) };
                let reason =
                    format!("there is no parquet file in {place}, nor a parquet copy on the branch {CONVERTED}");
                Err(Error::download(text, reason, "Check the path, or download the dataset's files and name those"))
            }
        }
    }

    fn at(address: &Address, revision: &str, settings: &HubSettings) -> Result<Self> {
        let client = Client::new(settings, RepoType::Dataset, &address.repo, revision)?;
        let info: Info = client.info_with_blobs(&Silent)?;
        let client = Arc::new(client.at_commit(&info.sha));
        let folder = format!("{}/", address.path);
        let is_wanted = |name: &str| {
            let inside = address.path.is_empty() || name == address.path || name.starts_with(&folder);
            inside && name.ends_with(".parquet")
        };
        let siblings = info.siblings.into_iter().filter(|sibling| is_wanted(&sibling.rfilename));
        let mut files = siblings.map(|sibling| HubFile::of(&client, sibling)).collect::<Result<Vec<_>>>()?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let slash = if address.path.is_empty() { "" } else { "/" };
        let pinned = format!("{SCHEME}{}@{}{slash}{}", address.repo, info.sha, address.path);
        let name = address.repo.rsplit('/').next().unwrap_or_default().to_string();
        Ok(Self { pinned, name, files })
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
        let (name, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        if [org, name, revision].iter().any(|part| part.is_empty()) {
            return Err(malformed());
        }
        Ok(Self { repo: format!("{org}/{name}"), revision: revision.into(), path: path.into() })
    }
}

impl HubFile {
    fn of(client: &Arc<Client>, sibling: Sibling) -> Result<Self> {
        let url = client.url(&sibling.rfilename);
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

    /// `len` bytes from byte `start` on. A connection that breaks is taken up again where it broke, as long as each one
    /// brings something.
    ///
    /// # Errors
    /// When the Hub refuses, or [`ATTEMPTS`] connections in a row bring nothing.
    pub(crate) fn read_range(&self, start: u64, len: u64) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(len as usize);
        let mut fruitless = 0;
        while (bytes.len() as u64) < len {
            let before = bytes.len();
            let received = self.receive(start, len, &mut bytes);
            fruitless = if bytes.len() > before { 0 } else { fruitless + 1 };
            match received {
                Err(error) if fruitless >= ATTEMPTS || !matches!(error, Broken::Connection(_)) => {
                    return Err(error.into());
                }
                Err(error) => tracing::info!(url = self.url, reason = %Error::from(error), "goes on"),
                Ok(()) => {}
            }
        }
        Ok(bytes.into())
    }

    /// Appends what one connection brings of the range.
    fn receive(&self, start: u64, len: u64, bytes: &mut Vec<u8>) -> std::result::Result<(), Broken> {
        let from = start + bytes.len() as u64;
        let answer = self.client.file_range(&self.url, from, start + len - 1, &Silent).map_err(Broken::Refused)?;
        if answer.status != 206 {
            let reason =
                format!("asked for bytes {from} to {}, the answer has status {}", start + len - 1, answer.status);
            return Err(Broken::Refused(Error::download(
                &self.url,
                reason,
                "A proxy or mirror ignores ranges: set HF_ENDPOINT to another",
            )));
        }
        let left = len - bytes.len() as u64;
        let read = answer.body.take(left + 1).read_to_end(bytes);
        if bytes.len() as u64 > len {
            let reason = format!("more than the {left} bytes asked for arrived");
            return Err(Broken::Refused(Error::download(&self.url, reason, "Check HF_ENDPOINT")));
        }
        let (received, hint) = (bytes.len(), "Run the command again: it goes on where it stopped");
        let broken = |found: String| {
            let reason = format!("the connection broke after {received} of {len} bytes: {found}");
            Broken::Connection(Error::download(&self.url, reason, hint))
        };
        match read {
            Err(error) => Err(broken(error.to_string())),
            Ok(_) if (bytes.len() as u64) < len => Err(broken("it was closed".into())),
            Ok(_) => Ok(()),
        }
    }
}

/// Whether the Hub said that there is no such thing.
fn is_missing(error: &Error) -> bool {
    matches!(error, Error::Download { reason, .. } if reason.contains("has no revision") || reason.contains("there is no"))
}

/// Why a range did not arrive whole.
enum Broken {
    /// Asking again may help.
    Connection(Error),
    Refused(Error),
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Connection(error) | Broken::Refused(error) => error,
        }
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
        for text in ["hf://org/name", "hf://datasets/name", "hf://datasets/org/", "hf://datasets/org/name@"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains("hf://datasets/ORG/NAME") && message.contains(text), "{message}");
        }
    }
}
