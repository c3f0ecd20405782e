//! [`Client`]: one question to the Hub and its answer, with time-outs, retries where waiting helps, and each refusal
//! said in words. The only file that knows the HTTP client, which is hf-hub's own.

use std::{io::Read, time::Duration};

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiRepo},
};

use serde::de::DeserializeOwned;

use super::{HubSettings, RepoInfo, snapshot::is_plain};
use crate::{Error, Monitor, Result, model_source::cache::pause};

/// How often a question is asked while the Hub is overloaded.
pub(super) const ATTEMPTS: u32 = 3;

/// How long an overloaded Hub may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

// What to do next, by kind of refusal.
const NAMES: &str = "Check its spelling";
const GATED: &str =
    "Check its spelling; if it is private or gated, accept its terms on its page and set HF_TOKEN to your access token";
const LATER: &str = "Try again later, or set HF_ENDPOINT to a mirror of the Hub";

const MAX_REDIRECTS: u32 = 10;

/// Asks about one revision of one repository.
pub(super) struct Client {
    api: Api,
    settings: HubSettings,
    kind: RepoType,
    repo: String,
    revision: String,
}

/// What is asked: about a file's address, or, without one, about the repository.
struct Question<'a> {
    url: Option<&'a str>,
    range: Option<String>,
    redirects: u32,
}

/// An answer: the body is still on its way.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Box<dyn Read>,
}

impl Answer {
    /// A header, by its name in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("repo", &self.repo).field("revision", &self.revision).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(settings: &HubSettings, kind: RepoType, repo: &str, revision: &str) -> Result<Self> {
        let mut builder =
            ApiBuilder::from_cache(Cache::new(settings.cache_dir.clone())).with_token(settings.token.clone());
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| {
            Error::download(repo, format!("the HTTP client does not start: {source}"), "Check HF_ENDPOINT")
        })?;
        Ok(Self { api, settings: settings.clone(), kind, repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// The same repository at one commit, so that all files are of the same state.
    pub(super) fn at_commit(self, commit: &str) -> Self {
        Self { revision: commit.to_owned(), ..self }
    }

    /// `org/name`, as the user wrote it.
    pub(super) fn name(&self) -> &str {
        &self.repo
    }

    /// The address of a file.
    pub(super) fn url(&self, file: &str) -> String {
        self.handle().url(file)
    }

    fn handle(&self) -> ApiRepo {
        self.api.repo(Repo::with_revision(self.repo.clone(), self.kind, self.revision.clone()))
    }

    /// The repository's files, and the commit that the revision stands for.
    pub(super) fn info(&self, monitor: &dyn Monitor) -> Result<RepoInfo> {
        let answer = self.ask(&Question { url: None, range: None, redirects: MAX_REDIRECTS }, monitor)?;
        let unreadable = |found: String| {
            Error::download(&answer.url, format!("the answer is not a Hub's: {found}"), "Check HF_ENDPOINT")
        };
        let info: RepoInfo = serde_json::from_reader(answer.body).map_err(|source| unreadable(source.to_string()))?;
        if !is_plain(&info.sha) {
            return Err(unreadable(format!("`{}` is no commit", info.sha)));
        }
        Ok(info)
    }

    /// The same with the size and hash of each file.
    pub(super) fn info_with_blobs<T: DeserializeOwned>(&self, monitor: &dyn Monitor) -> Result<T> {
        let address = self.handle().info_request().uri_ref().map(ToString::to_string).unwrap_or_default();
        let url = format!("{address}?blobs=true");
        let answer = self.ask(&Question { url: Some(&url), range: None, redirects: MAX_REDIRECTS }, monitor)?;
        serde_json::from_reader(answer.body).map_err(|source| {
            Error::download(&url, format!("the answer is not a Hub's: {source}"), "Check HF_ENDPOINT")
        })
    }

    /// Asks for bytes `first` to `last` of a file.
    pub(super) fn file_range(&self, url: &str, first: u64, last: u64, monitor: &dyn Monitor) -> Result<Answer> {
        let range = Some(format!("bytes={first}-{last}"));
        self.ask(&Question { url: Some(url), range, redirects: MAX_REDIRECTS }, monitor)
    }

    /// Asks what a file is. A large file's answer is a redirect that carries hash and size; it is not followed.
    pub(super) fn file_head(&self, url: &str, monitor: &dyn Monitor) -> Result<Answer> {
        self.ask(&Question { url: Some(url), range: Some("bytes=0-0".to_owned()), redirects: 0 }, monitor)
    }

    /// Asks for a file's content from byte `start` on.
    pub(super) fn file_from(&self, url: &str, start: u64, monitor: &dyn Monitor) -> Result<Answer> {
        let range = (start > 0).then(|| format!("bytes={start}-"));
        self.ask(&Question { url: Some(url), range, redirects: MAX_REDIRECTS }, monitor)
    }

    /// Asks until there is an answer that waiting would not change.
    fn ask(&self, question: &Question<'_>, monitor: &dyn Monitor) -> Result<Answer> {
        let mut wait = Duration::from_millis(500);
        let mut answer = self.ask_once(question)?;
        for _ in 1..ATTEMPTS {
            if !is_busy(answer.status) {
                break;
            }
            let asked_for = answer.header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
            let longer = asked_for.map_or(wait, |seconds| Duration::from_secs(seconds).min(LONGEST_WAIT));
            pause(longer, &self.settings.cache_dir, monitor)?;
            wait *= 2;
            answer = self.ask_once(question)?;
        }
        self.accept(answer)
    }

    fn ask_once(&self, question: &Question<'_>) -> Result<Answer> {
        // hf-hub hands out requests to its API only. A file's address is set on one of them, so that proxy, token and
        // user agent are those of the same client.
        let mut request = self.handle().info_request();
        if let Some(url) = question.url {
            request = request.uri(url).header("Accept-Encoding", "identity");
        }
        if let Some(range) = &question.range {
            request = request.header("Range", range);
        }
        let url = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let timeout = Some(self.settings.timeout);
        let request = request.config().http_status_as_error(false);
        let request = request.max_redirects(question.redirects).max_redirects_will_error(false);
        let request = request.timeout_resolve(timeout).timeout_connect(timeout).timeout_recv_response(timeout);
        let response = request.timeout_per_read(Some(self.settings.stall)).build().call().map_err(|source| {
            Error::download(&url, source.to_string(), "Check the network, or set HF_ENDPOINT to a mirror of the Hub")
        })?;
        let readable =
            response.headers().iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let headers = readable.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Answer {
            url,
            status: response.status().as_u16(),
            headers,
            body: Box::new(response.into_body().into_reader()),
        })
    }

    /// Turns a refusal into words. The Hub gives the exact reason in a header of its own; mirrors may not.
    fn accept(&self, answer: Answer) -> Result<Answer> {
        let (repo, revision) = (&self.repo, &self.revision);
        let kind = match self.kind {
            RepoType::Dataset => "dataset",
            RepoType::Model | RepoType::Space => "model",
        };
        let (reason, hint) = match (answer.status, answer.header("x-error-code")) {
            (200..=399, _) => return Ok(answer),
            (_, Some("EntryNotFound")) => ("there is no such file".to_owned(), NAMES),
            (_, Some("RevisionNotFound")) => (format!("{repo} has no revision `{revision}`"), NAMES),
            (401 | 403, Some("GatedRepo")) => (format!("{repo} is gated, and access was not granted"), GATED),
            (401, _) if self.settings.token.is_none() => (format!("there is no public {kind} {repo}"), GATED),
            (401 | 403, _) => (format!("the token does not give access to {repo}"), GATED),
            (404, _) => (format!("there is no such {kind}, revision or file ({repo}@{revision})"), NAMES),
            (429, _) => (format!("the Hub refused {ATTEMPTS} times: too many requests"), "Wait, or set HF_TOKEN"),
            (status, _) if is_busy(status) => (format!("the Hub failed {ATTEMPTS} times with status {status}"), LATER),
            (status, _) => (format!("unexpected status {status}"), LATER),
        };
        Err(Error::download(answer.url, reason, hint))
    }
}

fn is_busy(status: u16) -> bool {
    status == 429 || status >= 500
}
