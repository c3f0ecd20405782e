//! [`Compute`]: the number type of a model's matrix products.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Error, Result, numbers::simd::Instructions};

/// The number type of a model's matrix products. Everything else (embedding, norms, attention's softmax, the residual
/// stream) is f32 in both cases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// The checkpoint's weights, dequantized to f32.
    #[default]
    F32,
    /// Weights and their inputs rounded to 8 bits, with a scale for each 64 values of a row. On processors with VNNI it
    /// is more than twice as fast, and weights take a quarter of the memory. SmolLM2's residual stream differs by 3 %
    /// at the middle layer, 4 % after the last, and its next token by 0.008 nats of KL divergence (measured by
    /// `trainer/examples/compute_drift.rs`).
    Int8,
}

impl Compute {
    /// True if refract has its own matrix products for this processor, and not candle's: then the bits of a row are the
    /// same in a batch of any size.
    pub(crate) fn has_own_products(self) -> bool {
        // The `gemm` crate's loops are faster than the plain one of f32.
        self == Self::Int8 || Instructions::of_this_machine() != Instructions::Plain
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Int8 => "int8",
        })
    }
}

impl FromStr for Compute {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "f32" => Ok(Self::F32),
            "int8" => Ok(Self::Int8),
            _ => Err(Error::invalid("compute", "f32 or int8", format!("`{text}`"))),
        }
    }
}
