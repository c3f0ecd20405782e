//! [`StorageDtype`]: the number type that stored values have.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Number type of stored activation values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageDtype {
    /// 4 bytes per value, as computed.
    F32,
    /// 2 bytes per value: 11 significant bits, at most 65,504. A larger value is an error and is never stored.
    F16,
    /// 1 byte per value and 4 per row: integer multiples of the row's largest absolute value over 127.
    #[serde(rename = "int8")]
    I8,
}

impl StorageDtype {
    /// Bytes per value.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
            Self::I8 => 1,
        }
    }

    /// Bytes per row of `width` values, including its scale if it has one.
    pub fn row_bytes(self, width: usize) -> usize {
        self.bytes() * width + if self.has_scale() { 4 } else { 0 }
    }

    /// True if each row has a scale, in a separate column.
    pub(crate) fn has_scale(self) -> bool {
        self == Self::I8
    }
}

impl fmt::Display for StorageDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "int8",
        })
    }
}

impl FromStr for StorageDtype {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "int8" => Ok(Self::I8),
            _ => Err(Error::invalid("dtype", "f16, f32 or int8", format!("`{text}`"))),
        }
    }
}
