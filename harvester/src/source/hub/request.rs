//! [`Client`]: one question to the Hub and its answer, with time-outs, retries if waiting helps, and a message for each
//! refusal. The only file that knows the HTTP client, which is hf-hub's own.
//!
//! ```text
//! busy (429, 5xx)    asked again after Retry-After, else after backoff, 2 backoff, 4 backoff ..; attempts times in all
//! broken connection  asked again from the byte after the last received; attempts times without a new byte
//! anything else      reported at once
//! ```

use std::{fmt, io::Read, iter, ops::Range, time::Duration};

use bytes::Bytes;
use hf_hub::{
    Cache, Repo, RepoType,
    api::sync::{Api, ApiBuilder, ApiRepo},
};
use serde::de::DeserializeOwned;

use super::{HubSettings, RepoInfo, snapshot::is_plain};
use crate::{Error, Monitor, Result, source::cache::pause};

/// Longest wait for one answer of a busy Hub, even if it asks for a longer one.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

// Next steps, by kind of refusal.
const NAMES: &str = "Check its spelling";
const GATED: &str =
    "Check its spelling; if it is private or gated, accept its terms on its page and set HF_TOKEN to your access token";
const LATER: &str = "Try again later, or set HF_ENDPOINT to a mirror of the Hub";

const MAX_REDIRECTS: u32 = 10;

/// Most pages of one list of files: ten million files.
const MAX_PAGES: usize = 10_000;

/// Asks about one revision of one repository.
pub(super) struct Client {
    api: Api,
    settings: HubSettings,
    kind: RepoType,
    repo: String,
    revision: String,
}

impl fmt::Debug for Client {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}@{})", self.repo, self.revision)
    }
}

/// The reason why a question has no answer, and whether asking again may help.
pub(super) struct Failure {
    error: Box<Error>,
    pub(super) passing: bool,
}

impl Failure {
    /// A failure that may not happen again when the question is repeated.
    pub(super) fn passing(error: Error) -> Self {
        Self { error: Box::new(error), passing: true }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error: Box::new(error), passing: false }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        *failure.error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// One page of a list.
struct Page<T> {
    entries: Vec<T>,
    /// Query of the next page's address.
    next: Option<String>,
}

/// A question about the file at `url`, or about the repository if there is no `url`.
struct Question<'a> {
    url: Option<&'a str>,
    range: Option<String>,
    redirects: u32,
}

const ABOUT_THE_REPOSITORY: Question<'_> = Question { url: None, range: None, redirects: MAX_REDIRECTS };

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    pub(super) body: Box<dyn Read>,
}

impl Answer {
    /// A header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body; `what` names it in errors.
    fn read_to_end(&mut self, what: &str) -> Result<Vec<u8>, Failure> {
        let mut text = vec![];
        self.body.read_to_end(&mut text).map_err(|source| {
            let reason = format!("the connection broke after {} bytes of {what}: {source}", text.len());
            Failure::passing(Error::download(&self.url, reason, LATER))
        })?;
        Ok(text)
    }

    /// The wait that a busy Hub asks for. The Hub does not use the form with a date.
    fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }

    /// The query of the next page's address: `Link: <address>; rel="next"`. Only the query is used: the rest of the
    /// address is the Hub's own even behind a mirror, and no other host may get the token. A header that speaks of a
    /// next page but cannot be understood is an error: the list must not end there.
    fn next_page(&self) -> Result<Option<String>> {
        let links = self.headers.iter().filter(|(key, _)| key == "link").map(|(_, value)| value.as_str());
        let links = links.collect::<Vec<_>>().join(", ");
        let query = |address: &str| address.split_once('?').map(|(_, query)| query.to_owned());
        match next_link(&links).map(|next| next.map(query)) {
            Some(None) => Ok(None),
            Some(Some(Some(query))) => Ok(Some(query)),
            None if !links.to_ascii_lowercase().contains("next") => Ok(None),
            _ => {
                let reason = format!(
                    "the list of files continues, but the header that names the next page cannot be read: {links}"
                );
                Err(Error::download(&self.url, reason, "Check HF_ENDPOINT"))
            }
        }
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

    /// The same repository at one commit, so that all files are from the same state.
    pub(super) fn at_commit(&self, commit: &str) -> Self {
        let (api, settings, repo) = (self.api.clone(), self.settings.clone(), self.repo.clone());
        Self { api, settings, kind: self.kind, repo, revision: commit.to_owned() }
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

    /// The repository's files, and the commit of the revision.
    pub(super) fn info(&self, monitor: &dyn Monitor) -> Result<RepoInfo> {
        self.described(monitor)?.ok_or_else(|| self.no_revision())
    }

    /// The commit of the revision; `None` if there is no such revision.
    pub(super) fn commit(&self, monitor: &dyn Monitor) -> Result<Option<String>> {
        Ok(self.described(monitor)?.map(|info| info.sha))
    }

    fn described(&self, monitor: &dyn Monitor) -> Result<Option<RepoInfo>> {
        self.persistently(monitor, || {
            // The first question of a run: if the Hub cannot be reached at all, that is reported at once.
            let answer = self.settled(&ABOUT_THE_REPOSITORY, monitor).map_err(Error::from)?;
            if answer.header("x-error-code") == Some("RevisionNotFound") {
                return Ok(None);
            }
            let mut answer = self.accept(answer)?;
            let text = answer.read_to_end("the Hub's answer about the repository")?;
            Ok(Some(info_in(&answer.url, &text)?))
        })
    }

    /// The error for a revision that does not exist.
    pub(super) fn no_revision(&self) -> Error {
        Error::download(&self.repo, format!("{} has no revision `{}`", self.repo, self.revision), NAMES)
    }

    /// The entries of a folder of the repository, and everything below it if `recursive`; empty if there is no such
    /// folder. The Hub gives the list in pages; the list in [`RepoInfo`] is cut off if a repository has very many
    /// files.
    pub(super) fn tree<T: DeserializeOwned>(
        &self,
        folder: &str,
        recursive: bool,
        monitor: &dyn Monitor,
    ) -> Result<Vec<T>> {
        // hf-hub has no address for this; the address it has is `ENDPOINT/api/datasets/ORG/NAME/revision/REVISION`.
        let about = self.handle().info_request().uri_ref().map(ToString::to_string).unwrap_or_default();
        let (place, revision) = about.rsplit_once("/revision/").unwrap_or((&about, &self.revision));
        let slash = if folder.is_empty() { "" } else { "/" };
        let place = format!("{place}/tree/{revision}{slash}{}", escaped(folder));
        let (mut entries, mut query) = (vec![], format!("recursive={recursive}"));
        for number in 1..=MAX_PAGES {
            let url = format!("{place}?{query}");
            let Some(page) = self.page::<T>(&url, monitor)? else {
                if number == 1 {
                    return Ok(entries);
                }
                let reason = format!("page {number} of its list of files is missing, but page {} names it", number - 1);
                return Err(Error::download(url, reason, "Run the command again"));
            };
            entries.extend(page.entries);
            match page.next {
                Some(next) => query = next,
                None => return Ok(entries),
            }
        }
        Err(Error::download(place, format!("its list of files has more than {MAX_PAGES} pages"), "Name a folder of it"))
    }

    /// A page of a list; `None` if there is no such list. A page that breaks off is asked for again.
    fn page<T: DeserializeOwned>(&self, url: &str, monitor: &dyn Monitor) -> Result<Option<Page<T>>> {
        self.persistently(monitor, || self.page_once(url, monitor))
    }

    /// Asks again after a failure that may pass, `attempts` times in all.
    fn persistently<T>(&self, monitor: &dyn Monitor, ask: impl Fn() -> Result<T, Failure>) -> Result<T> {
        let mut waits = self.waits();
        loop {
            let failure = match ask() {
                Ok(found) => return Ok(found),
                Err(failure) => failure,
            };
            let Some(wait) = waits.next().filter(|_| failure.passing) else { return Err(failure.into()) };
            tracing::warn!("asking again in {wait:?}: {failure}");
            pause(wait, &self.settings.cache_dir, monitor)?;
        }
    }

    fn page_once<T: DeserializeOwned>(&self, url: &str, monitor: &dyn Monitor) -> Result<Option<Page<T>>, Failure> {
        let answer = self.settled(&Question { url: Some(url), range: None, redirects: MAX_REDIRECTS }, monitor)?;
        if answer.header("x-error-code") == Some("EntryNotFound") {
            return Ok(None);
        }
        let mut answer = self.accept(answer)?;
        let text = answer.read_to_end("a list of files")?;
        let entries = serde_json::from_slice(&text).map_err(|source| {
            let reason = format!("the answer is not a Hub's list of files: {source}");
            Error::download(url, reason, "Check HF_ENDPOINT")
        })?;
        Ok(Some(Page { entries, next: answer.next_page()? }))
    }

    /// Asks about a file. The answer for a large file is a redirect that carries hash and size; it is not followed.
    pub(super) fn file_head(&self, url: &str, monitor: &dyn Monitor) -> Result<Answer> {
        self.ask(&Question { url: Some(url), range: Some("bytes=0-0".to_owned()), redirects: 0 }, monitor)
    }

    /// Asks for a file's content from byte `start` on.
    pub(super) fn file_from(&self, url: &str, start: u64, monitor: &dyn Monitor) -> Result<Answer, Failure> {
        let range = (start > 0).then(|| format!("bytes={start}-"));
        self.answer(&Question { url: Some(url), range, redirects: MAX_REDIRECTS }, monitor)
    }

    /// Reads all bytes of `range` of a file. `total` is the length that the file should have.
    pub(super) fn range(&self, url: &str, range: Range<u64>, total: u64, monitor: &dyn Monitor) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut waits = self.waits();
        loop {
            let before = bytes.len();
            let left = range.start + before as u64..range.end;
            if left.is_empty() {
                return Ok(bytes.into());
            }
            let Err(failure) = self.receive(url, left, total, &mut bytes, monitor) else { continue };
            if bytes.len() > before {
                waits = self.waits();
            }
            let Some(wait) = waits.next().filter(|_| failure.passing) else { return Err(failure.into()) };
            tracing::warn!("asking again in {wait:?}: {failure}");
            pause(wait, &self.settings.cache_dir, monitor)?;
        }
    }

    /// Appends the bytes of a range that one connection brings.
    fn receive(
        &self,
        url: &str,
        range: Range<u64>,
        total: u64,
        bytes: &mut Vec<u8>,
        monitor: &dyn Monitor,
    ) -> Result<(), Failure> {
        let (start, wanted) = (range.start, range.end - range.start);
        let asked = format!("bytes={start}-{}", range.end - 1);
        let answer =
            self.answer(&Question { url: Some(url), range: Some(asked), redirects: MAX_REDIRECTS }, monitor)?;
        let expected = format!("bytes {start}-{}/{total}", range.end - 1);
        let given = answer.header("content-range").unwrap_or("no range").to_owned();
        if answer.status != 206 || given != expected {
            let reason = format!("asked for {expected}, the server answered with status {} and {given}", answer.status);
            return Err(Error::download(url, reason, "Check HF_ENDPOINT: files are read by ranges").into());
        }
        let before = bytes.len() as u64;
        let read = answer.body.take(wanted + 1).read_to_end(bytes);
        let came = bytes.len() as u64 - before;
        if came > wanted {
            let reason = format!("asked for {expected}, the server sent more");
            return Err(Error::download(url, reason, "Check HF_ENDPOINT: files are read by ranges").into());
        }
        let found = match read {
            Ok(_) if came == wanted => return Ok(()),
            Ok(_) => "it was closed".to_owned(),
            Err(source) => source.to_string(),
        };
        let reason = format!("the connection broke after {came} of {wanted} bytes: {found}");
        let hint = "Run the command again: it continues where it stopped";
        Err(Failure::passing(Error::download(url, reason, hint)))
    }

    /// The waits between attempts: one fewer than there are attempts.
    pub(super) fn waits(&self) -> impl Iterator<Item = Duration> + use<> {
        let longer = |wait: &Duration| Some((*wait * 2).min(LONGEST_WAIT));
        let waits = iter::successors(Some(self.settings.backoff.min(LONGEST_WAIT)), longer);
        waits.take(self.settings.attempts.saturating_sub(1) as usize)
    }

    /// Asks until the Hub is not busy.
    fn ask(&self, question: &Question<'_>, monitor: &dyn Monitor) -> Result<Answer> {
        self.answer(question, monitor).map_err(Error::from)
    }

    fn answer(&self, question: &Question<'_>, monitor: &dyn Monitor) -> Result<Answer, Failure> {
        Ok(self.accept(self.settled(question, monitor)?)?)
    }

    /// The first answer of a Hub that is not busy, or the last one of a busy Hub.
    fn settled(&self, question: &Question<'_>, monitor: &dyn Monitor) -> Result<Answer, Failure> {
        for wait in self.waits() {
            let answer = self.ask_once(question)?;
            if !is_busy(answer.status) {
                return Ok(answer);
            }
            pause(answer.retry_after().unwrap_or(wait), &self.settings.cache_dir, monitor)?;
        }
        self.ask_once(question)
    }

    /// Asks once. A network failure counts as one that may pass.
    fn ask_once(&self, question: &Question<'_>) -> Result<Answer, Failure> {
        // hf-hub makes requests only to its API. The file's address is set on such a request, so that proxy, token and
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

    /// Turns a refusal into a message. The Hub gives the exact reason in its own header; mirrors may not.
    fn accept(&self, answer: Answer) -> Result<Answer> {
        let (repo, revision, attempts) = (&self.repo, &self.revision, self.settings.attempts);
        let kind = if matches!(self.kind, RepoType::Dataset) { "dataset" } else { "model" };
        let (reason, hint) = match (answer.status, answer.header("x-error-code")) {
            (200..=399, _) => return Ok(answer),
            (_, Some("EntryNotFound")) => ("there is no such file".to_owned(), NAMES),
            (_, Some("RevisionNotFound")) => (format!("{repo} has no revision `{revision}`"), NAMES),
            (401 | 403, Some("GatedRepo")) => (format!("{repo} is gated, and access was not granted"), GATED),
            (401, _) if self.settings.token.is_none() => (format!("there is no public {kind} {repo}"), GATED),
            (401 | 403, _) => (format!("the token does not give access to {repo}"), GATED),
            (404, _) => (format!("there is no such {kind}, revision or file ({repo}@{revision})"), NAMES),
            (429, _) => (format!("the Hub refused {attempts} times: too many requests"), "Wait, or set HF_TOKEN"),
            (status, _) if is_busy(status) => (format!("the Hub failed {attempts} times with status {status}"), LATER),
            (status, _) => (format!("unexpected status {status}"), LATER),
        };
        Err(Error::download(answer.url, reason, hint))
    }
}

fn info_in(url: &str, text: &[u8]) -> Result<RepoInfo> {
    let unreadable =
        |found: String| Error::download(url, format!("the answer is not a Hub's: {found}"), "Check HF_ENDPOINT");
    let info: RepoInfo = serde_json::from_slice(text).map_err(|source| unreadable(source.to_string()))?;
    if !is_plain(&info.sha) {
        return Err(unreadable(format!("`{}` is not a commit", info.sha)));
    }
    Ok(info)
}

/// Address of the next page in a Link header: `Some(None)` if it names none, `None` if it is not a Link header.
fn next_link(mut links: &str) -> Option<Option<&str>> {
    loop {
        links = links.trim_start_matches([',', ' ', '\t']);
        if links.is_empty() {
            return Some(None);
        }
        let (address, after) = links.strip_prefix('<')?.split_once('>')?;
        let mut quoted = false;
        let end = after.find(|character| {
            quoted ^= character == '"';
            character == ',' && !quoted
        });
        let (parameters, rest) = after.split_at(end.unwrap_or(after.len()));
        if parameters.split(';').any(is_rel_next) {
            return Some(Some(address));
        }
        links = rest;
    }
}

/// True if a parameter of a link is `rel=next`, quoted or not, alone or among other relations.
fn is_rel_next(parameter: &str) -> bool {
    let Some((name, value)) = parameter.split_once('=') else { return false };
    let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
    name.trim().eq_ignore_ascii_case("rel") && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
}

fn is_busy(status: u16) -> bool {
    status == 429 || status >= 500
}

/// A path as part of an address: every byte except letters, digits and `-._~/` becomes `%XX`.
pub(super) fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_one_fewer_than_attempts() {
        let backoff = Duration::from_secs(100);
        let settings = HubSettings { attempts: 5, backoff, ..HubSettings::in_folder("unused") };
        let client = Client::new(&settings, RepoType::Dataset, "org/name", "main").unwrap();
        let seconds: Vec<_> = client.waits().map(|wait| wait.as_secs()).collect();
        assert_eq!(seconds, [100, 200, 300, 300]);
    }

    fn answer(name: &str, value: &str) -> Answer {
        let headers = vec![(name.to_owned(), value.to_owned())];
        Answer { url: String::new(), status: 429, headers, body: Box::new(std::io::empty()) }
    }

    #[test]
    fn a_busy_hub_is_waited_for_but_not_for_ever() {
        assert_eq!(answer("retry-after", " 7 ").retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(answer("retry-after", "99999999").retry_after(), Some(LONGEST_WAIT));
        assert_eq!(answer("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT").retry_after(), None);
    }

    #[test]
    fn the_next_page_is_found_whatever_host_it_names() {
        let link = r#"<https://elsewhere/api/tree?recursive=true&cursor=abc>; rel="next", <x?y>; rel="last""#;
        assert_eq!(answer("link", link).next_page().unwrap().as_deref(), Some("recursive=true&cursor=abc"));
        assert_eq!(answer("link", r#"<x?y>; rel="prev""#).next_page().unwrap(), None);
        assert_eq!(answer("etag", "next").next_page().unwrap(), None);
    }

    #[test]
    fn a_list_does_not_end_where_the_next_page_is_named_otherwise_than_the_hub_does() {
        let written = [
            r#"<x?cursor=a,b>; rel="next""#,
            "<x?cursor=a,b>; rel=next",
            r#"<x?cursor=a,b>; REL="prefetch next"; title="more, of it""#,
            r#"<x?y>; title="a, b"; rel="prev",<x?cursor=a,b>;rel=next"#,
        ];
        for link in written {
            assert_eq!(answer("link", link).next_page().unwrap().as_deref(), Some("cursor=a,b"), "{link}");
        }
        for odd in [r#"x?cursor=a; rel="next""#, "<x?cursor=a; rel=next", "<x>; rel=next"] {
            let message = answer("link", odd).next_page().unwrap_err().to_string();
            assert!(message.contains("the list of files goes on") && message.contains(odd), "{message}");
        }
    }

    #[test]
    fn names_of_files_become_parts_of_addresses() {
        assert_eq!(escaped("data/a b#1-é.parquet"), "data/a%20b%231-%C3%A9.parquet");
    }
}
