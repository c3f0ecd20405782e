//! [`Http`]: the addresses of a repository on the Hub, and the HTTP client. Both are hf-hub's own, and only this file
//! knows hf-hub. Without the feature `hub`, `no_http.rs` replaces it.

use std::time::Duration;

use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiRepo},
};

use super::{
    HubSettings, RepoKind,
    answer::{Answer, Failure, Question},
};
use crate::{Error, Result};

/// Sends questions about one repository.
#[derive(Clone)]
pub(super) struct Http {
    api: Api,
    kind: RepoType,
    repo: String,
    timeout: Duration,
    stall: Duration,
}

impl Http {
    pub(super) fn new(settings: &HubSettings, kind: RepoKind, repo: &str) -> Result<Self> {
        let mut builder =
            ApiBuilder::from_cache(Cache::new(settings.cache_dir.clone())).with_token(settings.token.clone());
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| {
            Error::download(repo, format!("the HTTP client does not start: {source}"), "Check HF_ENDPOINT")
        })?;
        let kind = match kind {
            RepoKind::Model => RepoType::Model,
            RepoKind::Dataset => RepoType::Dataset,
        };
        Ok(Self { api, kind, repo: repo.to_owned(), timeout: settings.timeout, stall: settings.stall })
    }

    /// The address of a file.
    pub(super) fn file_url(&self, revision: &str, file: &str) -> String {
        self.handle(revision).url(file)
    }

    /// The address of the Hub's answer about a revision: `ENDPOINT/api/datasets/ORG/NAME/revision/REVISION`.
    pub(super) fn url(&self, revision: &str) -> String {
        self.handle(revision).info_request().uri_ref().map(ToString::to_string).unwrap_or_default()
    }

    fn handle(&self, revision: &str) -> ApiRepo {
        self.api.repo(Repo::with_revision(self.repo.clone(), self.kind, revision.to_owned()))
    }

    /// Asks once. A network failure counts as one that may pass.
    pub(super) fn ask(&self, revision: &str, question: &Question<'_>) -> Result<Answer, Failure> {
        // hf-hub makes requests only to its API. The file's address is set on such a request, so that proxy, token and
        // user agent are those of the same client.
        let mut request = self.handle(revision).info_request();
        if let Some(url) = question.url {
            request = request.uri(url).header("Accept-Encoding", "identity");
        }
        if let Some(range) = &question.range {
            request = request.header("Range", range);
        }
        let url = request.uri_ref().map(ToString::to_string).unwrap_or_default();
        let timeout = Some(self.timeout);
        let request = request.config().http_status_as_error(false);
        let request = request.max_redirects(question.redirects).max_redirects_will_error(false);
        let request = request.timeout_resolve(timeout).timeout_connect(timeout).timeout_recv_response(timeout);
        let response = request.timeout_per_read(Some(self.stall)).build().call().map_err(|source| {
            let hint = "Check the network, or set HF_ENDPOINT to a mirror of the Hub";
            Failure::passing(Error::download(&url, source.to_string(), hint))
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
}
