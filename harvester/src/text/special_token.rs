//! [`SpecialToken`]: the token that begins or separates texts, as the user names it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A special token as the user names it: `model`, `none`, or an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SpecialToken {
    /// The model's own token, named by its tokenizer.
    FromModel,
    /// No such token.
    None,
    /// This token.
    Id(u32),
}

impl SpecialToken {
    /// Replaces [`Self::FromModel`] by the tokenizer's token, if it has one.
    pub(crate) fn resolve(self, of_model: Option<u32>) -> Self {
        match (self, of_model) {
            (Self::FromModel, Some(id)) => Self::Id(id),
            (Self::FromModel, None) => Self::None,
            (settled, _) => settled,
        }
    }

    /// The token's id, once resolved.
    pub(crate) fn id(self) -> Option<u32> {
        match self {
            Self::Id(id) => Some(id),
            Self::FromModel | Self::None => None,
        }
    }
}

impl fmt::Display for SpecialToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromModel => f.write_str("model"),
            Self::None => f.write_str("none"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl FromStr for SpecialToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "model" => Ok(Self::FromModel),
            "none" => Ok(Self::None),
            id => id
                .parse()
                .map(Self::Id)
                .map_err(|_| Error::invalid("special token", "`model`, `none` or a token id", format!("`{id}`"))),
        }
    }
}

impl TryFrom<String> for SpecialToken {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SpecialToken> for String {
    fn from(token: SpecialToken) -> Self {
        token.to_string()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_survive_a_round_trip_and_resolve_once() {
        for token in [SpecialToken::FromModel, SpecialToken::None, SpecialToken::Id(2)] {
            assert_eq!(token.to_string().parse::<SpecialToken>().unwrap(), token);
        }
        assert!("eos".parse::<SpecialToken>().is_err());
        assert_eq!(SpecialToken::FromModel.resolve(Some(7)), SpecialToken::Id(7));
        assert_eq!(SpecialToken::FromModel.resolve(None), SpecialToken::None);
        assert_eq!(SpecialToken::Id(3).resolve(Some(7)), SpecialToken::Id(3));
    }
}
