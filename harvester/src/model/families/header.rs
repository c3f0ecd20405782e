//! [`Header`]: a GGUF header read for one architecture, whose name is the prefix of every key.

use candle_core::quantized::gguf_file::Value;

use super::{MAX_LAYERS, Unsupported, refused};
use crate::{
    Error, Result,
    model::{GgufMetadata, Positions, RopeScaling},
};

/// The keys `{architecture}.*`.
pub(super) struct Header<'a> {
    pub(super) metadata: &'a GgufMetadata,
    pub(super) architecture: &'a str,
}

impl Header<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub(super) fn integer(&self, name: &str) -> Result<usize> {
        self.metadata.integer(&self.key(name))
    }

    pub(super) fn optional_integer(&self, name: &str) -> Result<Option<usize>> {
        self.metadata.get(&self.key(name)).map(|_| self.integer(name)).transpose()
    }

    pub(super) fn integer_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.optional_integer(name)?.unwrap_or(default))
    }

    pub(super) fn real(&self, name: &str) -> Result<f64> {
        self.metadata.real(&self.key(name))
    }

    pub(super) fn optional_real(&self, name: &str) -> Result<Option<f64>> {
        self.metadata.get(&self.key(name)).map(|_| self.real(name)).transpose()
    }

    pub(super) fn flag_or(&self, name: &str, default: bool) -> Result<bool> {
        match self.metadata.get(&self.key(name)) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(other) => Err(self.refused(&format!("{name} to be true or false"), format!("{other:?}"))),
        }
    }

    /// For each layer, whether it is local: a list in the header, or all layers except every n-th; `every_nth` if the
    /// header does not say.
    pub(super) fn local_layers(&self, n_layers: usize, every_nth: usize) -> Result<Vec<bool>> {
        let name = "attention.sliding_window_pattern";
        if let Some(Value::Array(flags)) = self.metadata.get(&self.key(name)) {
            return flags
                .iter()
                .map(|flag| match flag {
                    Value::Bool(flag) => Ok(*flag),
                    other => Err(self.refused(&format!("{name} to be true or false"), format!("{other:?}"))),
                })
                .collect();
        }
        let nth = self.integer_or(name, every_nth)?;
        Ok((1..=n_layers.min(MAX_LAYERS)).map(|number| nth == 0 || !number.is_multiple_of(nth)).collect())
    }

    pub(super) fn contains(&self, tensor: &str) -> bool {
        self.metadata.shape(tensor).is_some()
    }

    /// Number of rows of the embedding; 0 if there is none, which is refused later.
    pub(super) fn d_vocab(&self) -> usize {
        self.metadata.shape("token_embd.weight").and_then(|shape| shape.first().copied()).unwrap_or(0)
    }

    /// Rotary positions of heads of `d_head` dimensions in a model made for `ctx_len` tokens.
    pub(super) fn positions(&self, d_head: usize, ctx_len: usize) -> Result<Positions> {
        let base = self.optional_real("rope.freq_base")?.unwrap_or(10_000.0); // the format's documented default
        let rotary_dim = self.integer_or("rope.dimension_count", d_head)?;
        Ok(Positions::Rotary { base, rotary_dim, scaling: self.scaling(rotary_dim / 2, ctx_len)? })
    }

    fn scaling(&self, half: usize, ctx_len: usize) -> Result<RopeScaling> {
        if self.contains("rope_factors_short.weight") {
            let original_ctx_len = self.integer_or("rope.scaling.original_context_length", ctx_len)?;
            return Ok(RopeScaling::LongRope {
                short: self.metadata.vector("rope_factors_short.weight", half)?,
                long: self.metadata.vector("rope_factors_long.weight", half)?,
                original_ctx_len,
                attention_factor: self.optional_real("rope.scaling.attn_factor")?.unwrap_or(1.0),
            });
        }
        let kind_key = self.key("rope.scaling.type");
        // As in llama.cpp: a factor without a type is a linear one, and the oldest files have another key for it.
        let kind =
            self.metadata.get(&kind_key).map(|_| self.metadata.string(&kind_key)).transpose()?.unwrap_or("linear");
        let factor = match self.optional_real("rope.scaling.factor")? {
            Some(factor) => factor,
            None => self.optional_real("rope.scale_linear")?.unwrap_or(0.0),
        };
        let factor = if kind == "none" || factor == 0.0 { 1.0 } else { factor };
        match kind {
            // Llama 3's scaling is stored as precomputed factors, without a scaling type.
            "none" | "linear" if self.contains("rope_freqs.weight") => {
                let divisors = self.metadata.vector("rope_freqs.weight", half)?;
                Ok(RopeScaling::Divisors(divisors.into_iter().map(|divisor| divisor * factor as f32).collect()))
            }
            "none" | "linear" if factor == 1.0 => Ok(RopeScaling::None),
            "linear" => Ok(RopeScaling::Linear { factor }),
            other => Err(self.refused("rope.scaling.type none or linear", format!("`{other}`"))),
        }
    }

    pub(super) fn refused(&self, expected: &str, found: impl Into<String>) -> Error {
        refused(self.metadata.path(), &Unsupported::new(format!("{}.{expected}", self.architecture), found))
    }
}
