//! [`Client`]: one question to the Hub and its answer, with time-outs, retries if waiting helps, and a message for each
//! refusal.
//!
//! ```text
//! busy (429, 5xx)    asked again after Retry-After, else after backoff, 2 backoff, 4 backoff ..; attempts times in all
//! broken connection  asked again from the byte after the last received; attempts times without a new byte
//! anything else      reported at once
//! ```

use std::{fmt, io::Read, iter, ops::Range, time::Duration};

use bytes::Bytes;
use serde::de::DeserializeOwned;

use super::{
    HubSettings, RepoInfo, RepoKind,
    answer::{Answer, Failure, LATER, LONGEST_WAIT, Question},
    http::Http,
    snapshot::is_plain,
};
use crate::{Error, Monitor, Result, source::cache::pause};

// Next steps, by kind of refusal.
const NAMES: &str = "Check its spelling";
const GATED: &str =
    "Check its spelling; if it is private or gated, accept its terms on its page and set HF_TOKEN to your access token";

const MAX_REDIRECTS: u32 = 10;

const ABOUT_THE_REPOSITORY: Question<'_> = Question { url: None, range: None, redirects: MAX_REDIRECTS };

/// Most pages of one list of files: ten million files.
const MAX_PAGES: usize = 10_000;

/// Asks about one revision of one repository.
pub(super) struct Client {
    http: Http,
    settings: HubSettings,
    kind: RepoKind,
    repo: String,
    revision: String,
}

impl fmt::Debug for Client {
    /// Leaves out the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}@{})", self.repo, self.revision)
    }
}

/// One page of a list.
struct Page<T> {
    entries: Vec<T>,
    /// Query of the next page's address.
    next: Option<String>,
}

impl Client {
    pub(super) fn new(settings: &HubSettings, kind: RepoKind, repo: &str, revision: &str) -> Result<Self> {
        let http = Http::new(settings, kind, repo)?;
        Ok(Self { http, settings: settings.clone(), kind, repo: repo.to_owned(), revision: revision.to_owned() })
    }

    /// The same repository at one commit, so that all files are from the same state.
    pub(super) fn at_commit(&self, commit: &str) -> Self {
        let (http, settings, repo) = (self.http.clone(), self.settings.clone(), self.repo.clone());
        Self { http, settings, kind: self.kind, repo, revision: commit.to_owned() }
    }

    /// `org/name`, as the user wrote it.
    pub(super) fn name(&self) -> &str {
        &self.repo
    }

    /// The address of a file.
    pub(super) fn url(&self, file: &str) -> String {
        self.http.file_url(&self.revision, file)
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
        let about = self.http.url(&self.revision);
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
        waits(self.settings.backoff, self.settings.attempts)
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
            let answer = self.http.ask(&self.revision, question)?;
            if !is_busy(answer.status) {
                return Ok(answer);
            }
            pause(answer.retry_after().unwrap_or(wait), &self.settings.cache_dir, monitor)?;
        }
        self.http.ask(&self.revision, question)
    }

    /// Turns a refusal into a message. The Hub gives the exact reason in its own header; mirrors may not.
    fn accept(&self, answer: Answer) -> Result<Answer> {
        let (repo, revision, attempts) = (&self.repo, &self.revision, self.settings.attempts);
        let kind = if matches!(self.kind, RepoKind::Dataset) { "dataset" } else { "model" };
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

fn waits(first: Duration, attempts: u32) -> impl Iterator<Item = Duration> {
    let longer = |wait: &Duration| Some((*wait * 2).min(LONGEST_WAIT));
    iter::successors(Some(first.min(LONGEST_WAIT)), longer).take(attempts.saturating_sub(1) as usize)
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

fn is_busy(status: u16) -> bool {
    status == 429 || status >= 500
}

/// A path as part of an address: every byte except letters, digits and `-._~/` becomes `%XX`.
pub(super) fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_one_fewer_than_attempts() {
        let seconds: Vec<_> = waits(Duration::from_secs(100), 5).map(|wait| wait.as_secs()).collect();
        assert_eq!(seconds, [100, 200, 300, 300]);
    }

    #[test]
    fn names_of_files_become_parts_of_addresses() {
        assert_eq!(escaped("data/a b#1-é.parquet"), "data/a%20b%231-%C3%A9.parquet");
    }
}
