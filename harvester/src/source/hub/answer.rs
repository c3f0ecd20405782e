//! [`Question`] and [`Answer`] over HTTP, and the [`Failure`] that may come instead of an answer.

use std::{fmt, io::Read, time::Duration};

use crate::{Error, Result};

/// Longest wait for one answer of a busy Hub, even if it asks for a longer one.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// Next step if the Hub does not answer.
pub(super) const LATER: &str = "Try again later, or set HF_ENDPOINT to a mirror of the Hub";

/// A question about the file at `url`, or about the repository if there is no `url`.
#[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "no_http.rs asks nothing"))]
pub(super) struct Question<'a> {
    pub(super) url: Option<&'a str>,
    pub(super) range: Option<String>,
    pub(super) redirects: u32,
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

/// An answer whose body is still to be read.
pub(super) struct Answer {
    pub(super) url: String,
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Box<dyn Read>,
}

impl Answer {
    /// A header, by its lower-case name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Reads the body; `what` names it in errors.
    pub(super) fn read_to_end(&mut self, what: &str) -> Result<Vec<u8>, Failure> {
        let mut text = vec![];
        self.body.read_to_end(&mut text).map_err(|source| {
            let reason = format!("the connection broke after {} bytes of {what}: {source}", text.len());
            Failure::passing(Error::download(&self.url, reason, LATER))
        })?;
        Ok(text)
    }

    /// The wait that a busy Hub asks for. The Hub does not use the form with a date.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let seconds: u64 = self.header("retry-after")?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }

    /// The query of the next page's address: `Link: <address>; rel="next"`. Only the query is used: the rest of the
    /// address is the Hub's own even behind a mirror, and no other host may get the token. A header that speaks of a
    /// next page but cannot be understood is an error: the list must not end there.
    pub(super) fn next_page(&self) -> Result<Option<String>> {
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

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

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
            assert!(message.contains("the list of files continues") && message.contains(odd), "{message}");
        }
    }
}
