//! [`Positions`]: the positions of a text that an edit applies to.
//!
//! ```text
//! all  prompt  generated  last_prompt  8..20  8..      one of them, or several with commas between
//! ```
//! The model writes its first token at the prompt's last one, and each further token at the one before it. So
//! `generated` leaves the first written token as it would be, and `last_prompt,generated` edits every written token.

use std::{fmt, ops::Range, str::FromStr};

use harvester::Error as Harvester;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Positions of a text: those in any of its parts. Default: all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Positions(Vec<Part>);

/// A part of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    All,
    Prompt,
    Generated,
    LastPrompt,
    /// From, and up to but without; `None`: to the end.
    Range(usize, Option<usize>),
}

impl Part {
    /// Its positions in a text with a prompt of this length.
    fn range(self, prompt_len: usize) -> Range<usize> {
        match self {
            Self::All => 0..usize::MAX,
            Self::Prompt => 0..prompt_len,
            Self::Generated => prompt_len..usize::MAX,
            Self::LastPrompt => prompt_len.saturating_sub(1)..prompt_len,
            Self::Range(from, to) => from..to.unwrap_or(usize::MAX),
        }
    }
}

impl Positions {
    /// Every position.
    pub fn all() -> Self {
        Self(vec![Part::All])
    }

    /// True if it has the position, in a text with a prompt of this length.
    pub(crate) fn contains(&self, position: usize, prompt_len: usize) -> bool {
        self.0.iter().any(|part| part.range(prompt_len).contains(&position))
    }

    /// True if a text can have a position that is in both.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        // Every order that the ends of ranges and the end of the prompt can have is that of one of these lengths.
        let ends = |parts: &Self| -> Vec<usize> {
            let of = |part: &Part| match part {
                Part::Range(from, to) => vec![*from, from + 1, to.unwrap_or(*from)],
                _ => vec![],
            };
            parts.0.iter().flat_map(of).collect()
        };
        let lengths = [ends(self), ends(other), vec![1]].concat();
        let meet = |a: Range<usize>, b: Range<usize>| a.start.max(b.start) < a.end.min(b.end);
        lengths
            .iter()
            .filter(|length| **length > 0)
            .any(|&length| self.0.iter().any(|a| other.0.iter().any(|b| meet(a.range(length), b.range(length)))))
    }
}

impl Default for Positions {
    fn default() -> Self {
        Self::all()
    }
}

impl FromStr for Part {
    type Err = Harvester;

    fn from_str(text: &str) -> Result<Self, Harvester> {
        let range = || {
            let (from, to) = text.split_once("..")?;
            let from = if from.is_empty() { 0 } else { from.parse().ok()? };
            let to = if to.is_empty() { None } else { Some(to.parse().ok().filter(|to| from < *to)?) };
            Some(Self::Range(from, to))
        };
        let part = match text {
            "all" => Some(Self::All),
            "prompt" => Some(Self::Prompt),
            "generated" => Some(Self::Generated),
            "last_prompt" | "last-prompt" => Some(Self::LastPrompt),
            _ => range(),
        };
        let expected = "all, prompt, generated, last_prompt, or a range such as 8..20";
        part.ok_or_else(|| Harvester::invalid("positions", expected, format!("`{text}`")))
    }
}

impl FromStr for Positions {
    type Err = Harvester;

    fn from_str(text: &str) -> Result<Self, Harvester> {
        Ok(Self(text.split(',').map(|part| part.trim().parse()).collect::<Result<_, _>>()?))
    }
}

impl TryFrom<String> for Positions {
    type Error = Harvester;

    fn try_from(text: String) -> Result<Self, Harvester> {
        text.parse()
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Prompt => f.write_str("prompt"),
            Self::Generated => f.write_str("generated"),
            Self::LastPrompt => f.write_str("last_prompt"),
            Self::Range(from, Some(to)) => write!(f, "{from}..{to}"),
            Self::Range(from, None) => write!(f, "{from}.."),
        }
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join(","))
    }
}

impl From<Positions> for String {
    fn from(positions: Positions) -> Self {
        positions.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn of(text: &str) -> Positions {
        text.parse().unwrap()
    }

    #[test]
    fn positions_of_a_text_with_a_prompt_of_five_tokens() {
        let chosen = |text: &str| (0..8).filter(|position| of(text).contains(*position, 5)).collect::<Vec<_>>();
        assert_eq!(chosen("all"), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(chosen("prompt"), [0, 1, 2, 3, 4]);
        assert_eq!(chosen("generated"), [5, 6, 7]);
        assert_eq!(chosen("last_prompt,generated"), [4, 5, 6, 7]);
        assert_eq!(chosen("2..4, 7.."), [2, 3, 7]);
        assert_eq!(of("2..4, 7..").to_string(), "2..4,7..");
        for text in ["", "everywhere", "4..2", "3..3", "-1..2", "1-2"] {
            assert!(text.parse::<Positions>().is_err(), "{text}");
        }
    }

    #[test]
    fn parts_that_never_meet_are_told_from_those_that_may() {
        let overlap = |a: &str, b: &str| {
            assert_eq!(of(a).overlaps(&of(b)), of(b).overlaps(&of(a)));
            of(a).overlaps(&of(b))
        };
        for (a, b) in [("prompt", "generated"), ("last_prompt", "generated"), ("2..4", "4..9")] {
            assert!(!overlap(a, b), "{a} {b}");
        }
        let pairs =
            [("all", "prompt"), ("prompt", "last_prompt"), ("2..4", "generated"), ("2..4", "prompt"), ("3..", "7..8")];
        for (a, b) in pairs.into_iter().chain([("last_prompt", "8..9"), ("prompt,generated", "generated")]) {
            assert!(overlap(a, b), "{a} {b}");
        }
    }
}
