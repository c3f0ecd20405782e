//! [`KvCache`]: keys and values of the tokens already seen, so that generating a token costs one token. Each sequence has
//! its own, of its own length: sequences come and go while others go on.

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
    /// A cache without a sequence.
    pub fn new(config: &ModelConfig) -> Self {
        Self { config: config.clone(), sequences: BTreeMap::new(), next: 0 }
    }

    /// Makes room for a sequence of at most `capacity` tokens. Returns its number, which no other sequence gets.
    ///
    /// # Errors
    /// `capacity` over the model's context length.
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

    /// Forgets a sequence and frees its memory.
    pub fn free(&mut self, sequence: usize) {
        self.sequences.remove(&sequence);
    }

    /// Tokens held of a sequence; 0 of one that is not there.
    pub fn len(&self, sequence: usize) -> usize {
        self.sequences.get(&sequence).map_or(0, |held| held.len)
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    /// Where each sequence of a batch goes on.
    ///
    /// # Errors
    /// A sequence that is not there, is there twice, or has no room.
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

    /// What a layer holds of each sequence of a batch, in the batch's order. Call [`Self::starts`] first.
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

/// The keys and values that the layers of a pass read and add to.
pub(crate) enum KeysValues<'a> {
    Cache(&'a mut KvCache, &'a Batch),
    /// Of texts from their beginnings: one layer's, which the next overwrites.
    OneLayer(Vec<Panels>),
}

impl KeysValues<'_> {
    /// What a layer holds of each of `spans`.
    pub(crate) fn layer(&mut self, layer: usize, spans: &[Span], config: &ModelConfig) -> Vec<&mut Panels> {
        match self {
            Self::Cache(cache, batch) => cache.layer(layer, batch),
            Self::OneLayer(panels) => {
                // More than before where a hook has made variants.
                panels.extend(spans[panels.len()..].iter().map(|span| Panels::new(config, span.end())));
                panels.iter_mut().collect()
            }
        }
    }
}
