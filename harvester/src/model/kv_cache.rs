//! [`KvCache`]: keys and values of the tokens already seen, so that generating a token costs one token.

use candle_core::{DType, Device, Tensor};

use super::ModelConfig;
use crate::{Error, Result};

/// Keys and values of every layer for one batch, allocated once for `capacity` tokens.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

/// One layer's keys (already rotated) and values, each `[batch, capacity, n_kv_heads, d_head]`.
#[derive(Debug)]
pub(crate) struct LayerCache {
    keys: Tensor,
    values: Tensor,
}

impl KvCache {
    /// Room for `capacity` tokens in each of `batch` rows.
    ///
    /// # Errors
    /// `capacity` over the model's context length.
    pub fn new(config: &ModelConfig, batch: usize, capacity: usize, device: &Device) -> Result<Self> {
        if capacity > config.ctx_len {
            let expected = format!("at most {} tokens, the model's context length", config.ctx_len);
            return Err(Error::invalid("text and new tokens together", expected, format!("{capacity} tokens")));
        }
        let shape = (batch, capacity, config.n_kv_heads, config.d_head);
        let zeros = || Tensor::zeros(shape, DType::F32, device);
        let layer = |_| Ok(LayerCache { keys: zeros()?, values: zeros()? });
        Ok(Self { layers: (0..config.n_layers).map(layer).collect::<Result<_>>()?, len: 0, capacity })
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token was seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Checks, before a pass starts, that `pos` more tokens fit.
    pub(crate) fn check_room(&self, pos: usize) -> Result<()> {
        if self.len + pos > self.capacity {
            let expected = format!("at most {} tokens in the cache", self.capacity);
            return Err(Error::invalid("generation", expected, format!("{}", self.len + pos)));
        }
        Ok(())
    }

    /// Counts the tokens of a finished pass as seen.
    pub(crate) fn advance(&mut self, pos: usize) {
        self.len += pos;
    }
}

impl LayerCache {
    /// Writes the new tokens after the `start` old ones; returns all keys and all values.
    ///
    /// # Shapes
    /// `k`, `v`: `[batch, pos, n_kv_heads, d_head]` -> `[batch, start + pos, n_kv_heads, d_head]`
    pub(crate) fn append(&self, k: &Tensor, v: &Tensor, start: usize) -> Result<(Tensor, Tensor)> {
        let end = start + k.dim(1)?;
        self.keys.slice_set(&k.contiguous()?, 1, start)?;
        self.values.slice_set(&v.contiguous()?, 1, start)?;
        Ok((self.keys.narrow(1, 0, end)?, self.values.narrow(1, 0, end)?))
    }
}
