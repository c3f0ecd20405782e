//! [`CorpusPart`]: one of several harvests that share a corpus, each on its own machine. Its two numbers alone
//! determine which documents it reads and how it numbers its contexts, so no part waits for another.
//!
//! ```text
//! documents of part p of n = the documents at indices p, p + n, p + 2 n .. of the harvest's order
//! number of its context i  = i n + p                                          (different in every part)
//! ```

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A limit that keeps the numbers of contexts far below the largest integer.
const MOST_PARTS: u64 = 1_000_000;

/// Part `index` of `of`, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CorpusPart {
    index: u64,
    of: u64,
}

impl CorpusPart {
    /// Number of this part, from 0.
    pub(crate) fn index(self) -> u64 {
        self.index
    }

    /// Number of parts.
    pub fn of(self) -> u64 {
        self.of
    }

    /// Index of this part's document `index` in the harvest's order.
    pub(crate) fn place(self, index: u64) -> u64 {
        index * self.of + self.index
    }

    /// The number of this part's context `index`.
    pub(crate) fn context_number(self, index: u64) -> u64 {
        index * self.of + self.index
    }
}

impl fmt::Display for CorpusPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for CorpusPart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index, of)) if index < of && of <= MOST_PARTS => Ok(Self { index, of }),
            Some((_, of @ 1..=MOST_PARTS)) => Err(Error::invalid(
                "part",
                format!("0/{of} to {}/{of}: parts count from 0", of - 1),
                format!("`{text}`"),
            )),
            _ => Err(Error::invalid("part", "a part and the number of parts, such as 0/16", format!("`{text}`"))),
        }
    }
}

impl TryFrom<String> for CorpusPart {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CorpusPart> for String {
    fn from(part: CorpusPart) -> Self {
        part.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn parts_have_every_document_and_number_once() {
        let parts: Vec<CorpusPart> = ["0/3", "1/3", "2/3"].map(|text| text.parse().unwrap()).into();
        let mut places: Vec<_> = parts.iter().flat_map(|part| (0..4).map(|index| part.place(index))).collect();
        places.sort_unstable();
        assert_eq!(places, (0..12).collect::<Vec<_>>());
        let mut numbers: Vec<_> =
            parts.iter().flat_map(|part| (0..4).map(|index| part.context_number(index))).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn parts_count_from_0_and_that_is_said() {
        let part = "3/16".parse::<CorpusPart>().unwrap();
        assert_eq!((part.index(), part.of(), part.to_string()), (3, 16, "3/16".into()));
        let message = "16/16".parse::<CorpusPart>().unwrap_err().to_string();
        assert!(message.contains("0/16 to 15/16"), "{message}");
        for text in ["3", "a/b", "0/0", "-1/4", ""] {
            assert!(text.parse::<CorpusPart>().is_err(), "{text}");
        }
    }
}
