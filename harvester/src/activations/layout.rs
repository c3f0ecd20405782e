//! [`Layout`]: the kind of parquet column that holds the values of a hook point.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Kind of column that holds the values of a hook point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A fixed-size list of numbers per row: any reader opens it as numbers.
    #[default]
    List,
    /// The row's bytes: many times faster for readers that decode lists value by value, but the reader must know the
    /// dtype.
    Binary,
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::List => "list",
            Self::Binary => "binary",
        })
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "list" => Ok(Self::List),
            "binary" => Ok(Self::Binary),
            _ => Err(Error::invalid("layout", "list or binary", format!("`{text}`"))),
        }
    }
}
