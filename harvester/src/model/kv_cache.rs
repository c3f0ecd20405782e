//! [`KvCache`]: keys and values of the tokens already seen, so that generating a token computes only one token.
//! Sequences may have different lengths, and may be added and removed while others continue.

use std::collections::BTreeMap;

use super::{Batch, ModelConfig, attention_kernel::Panels, batch::Span};
use crate::{Error, Result};

/// Keys and values of every layer for some sequences.
#[derive(Debug)]
pub struct KvCache {
    config: ModelConfig,
    sequences: BTreeMap<usize, Sequence>,
    /// Number of the sequence that is added next.
    next: usize,
}

#[derive(Debug)]
struct Sequence {
    len: usize,
    capacity: usize,
    /// `[n_layers]`
    layers: Vec<Panels>,
}

impl KvCache {
    /// A cache without sequences.
    pub fn new(config: &ModelConfig) -> Self {
        Self { config: config.clone(), sequences: BTreeMap::new(), next: 0 }
    }

    /// Adds a sequence of at most `capacity` tokens. Returns its number, which no other sequence gets.
    ///
    /// # Errors
    /// `capacity` is above the model's context length.
    pub fn add(&mut self, capacity: usize) -> Result<usize> {
        if capacity > self.config.ctx_len {
            let expected = format!("at most {} tokens, the model's context length", self.config.ctx_len);
            return Err(Error::invalid("text and new tokens together", expected, format!("{capacity} tokens")));
        }
        let number = self.next;
        self.next += 1;
        let layers = (0..self.config.n_layers).map(|_| Panels::new(&self.config, capacity)).collect();
        self.sequences.insert(number, Sequence { len: 0, capacity, layers });
        Ok(number)
    }

    /// Removes a sequence and frees its memory.
    pub fn free(&mut self, sequence: usize) {
        self.sequences.remove(&sequence);
    }

    /// The position from which each sequence of a batch continues.
    ///
    /// # Errors
    /// A sequence does not exist, occurs twice, or has no space left.
    pub(crate) fn starts(&self, batch: &Batch) -> Result<Vec<usize>> {
        let numbers: Vec<usize> = batch.sequences().collect();
        let start = |(place, (number, rows)): (usize, (&usize, std::ops::Range<usize>))| {
            let refuse = |expected: String, found: String| Err(Error::invalid("batch", expected, found));
            let Some(held) = self.sequences.get(number) else {
                return refuse("sequences that are in the cache".into(), format!("sequence {number}"));
            };
            if numbers[..place].contains(number) {
                return refuse("each sequence once".into(), format!("sequence {number} twice"));
            }
            if held.len + rows.len() > held.capacity {
                let expected = format!("at most {} tokens in the cache", held.capacity);
                return Err(Error::invalid("generation", expected, format!("{}", held.len + rows.len())));
            }
            Ok(held.len)
        };
        numbers.iter().zip(batch.spans()).enumerate().map(start).collect()
    }

    /// The keys and values of each sequence of a batch in one layer, in the batch's order. Call [`Self::starts`] first.
    pub(crate) fn layer(&mut self, layer: usize, batch: &Batch) -> Vec<&mut Panels> {
        let mut held: BTreeMap<usize, &mut Panels> =
            self.sequences.iter_mut().map(|(number, held)| (*number, &mut held.layers[layer])).collect();
        batch.sequences().map(|number| held.remove(&number).expect("each is there, once")).collect()
    }

    /// Counts the tokens of a finished pass as seen.
    pub(crate) fn advance(&mut self, batch: &Batch) {
        for (number, rows) in batch.sequences().zip(batch.spans()) {
            if let Some(held) = self.sequences.get_mut(&number) {
                held.len += rows.len();
            }
        }
    }
}

#[cfg(test)]
impl KvCache {
    /// Number of tokens held of a sequence; 0 if it does not exist.
    pub(crate) fn len(&self, sequence: usize) -> usize {
        self.sequences.get(&sequence).map_or(0, |held| held.len)
    }

    /// True if there are no sequences.
    pub(crate) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }
}

/// The keys and values that the layers of a pass read and extend.
pub(crate) enum KeysValues<'a> {
    Cache(&'a mut KvCache, &'a Batch),
    /// For texts from their beginning: those of one layer, overwritten by the next one.
    OneLayer(Vec<Panels>),
}

impl KeysValues<'_> {
    /// The keys and values of each of `spans` in one layer.
    pub(crate) fn layer(&mut self, layer: usize, spans: &[Span], config: &ModelConfig) -> Vec<&mut Panels> {
        match self {
            Self::Cache(cache, batch) => cache.layer(layer, batch),
            Self::OneLayer(panels) => {
                // There are more spans than before if a hook has made variants.
                panels.extend(spans[panels.len()..].iter().map(|span| Panels::new(config, span.end())));
                panels.iter_mut().collect()
            }
        }
    }
}
