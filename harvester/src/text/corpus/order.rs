//! [`DocumentOrder`]: the order in which documents are harvested.
//!
//! ```text
//! units   = single documents of text and JSONL files, and the blocks of rows of streamed tables
//! order   = the units shuffled by the seed; the rows of a block, also shuffled, stay together
//! part p of n takes indices p, p + n, p + 2 n .. of the order
//! ```
//!
//! Fisher-Yates driven by ChaCha8, both implemented here so that a seed gives the same order on every machine and with
//! every version of a library.

use std::sync::{Mutex, PoisonError};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use crate::CorpusPart;

/// Documents that are read together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) first_document: u64,
    pub(super) documents: u64,
}

/// Maps an index in the harvest's order to a document.
#[derive(Debug)]
pub(crate) struct DocumentOrder {
    /// The first document of each unit, in order.
    units: Vec<u64>,
    /// Ascending.
    blocks: Vec<Block>,
    /// Index in the order at which each unit starts; empty if every unit is one document.
    starts: Vec<u64>,
    len: u64,
    seed: Option<u64>,
    part: Option<CorpusPart>,
    /// The block used last, and the order of its rows.
    rows: Mutex<Option<(u64, Vec<u32>)>>,
}

impl DocumentOrder {
    /// The order of `n` documents, of which those in `blocks` are streamed. Shuffled by `seed`; unchanged if `None`.
    pub(super) fn new(n: u64, blocks: Vec<Block>, seed: Option<u64>) -> Self {
        let mut units = vec![];
        let mut document = 0;
        for block in &blocks {
            units.extend(document..block.first_document);
            units.push(block.first_document);
            document = block.first_document + block.documents;
        }
        units.extend(document..n);
        if let Some(seed) = seed {
            shuffle(&mut units, &mut ChaCha8Rng::seed_from_u64(seed));
        }
        let mut order = Self { units, blocks, starts: vec![], len: n, seed, part: None, rows: Mutex::new(None) };
        if !order.blocks.is_empty() {
            order.starts = order
                .units
                .iter()
                .scan(0, |start, unit| {
                    *start += order.documents_of(*unit);
                    Some(*start - order.documents_of(*unit))
                })
                .collect();
        }
        order
    }

    /// Keeps only the documents of one part of several.
    #[must_use]
    pub(crate) fn of_part(mut self, part: Option<CorpusPart>) -> Self {
        self.part = part;
        self
    }

    /// True unless this is a part of several and not the first.
    pub(crate) fn is_first_part(&self) -> bool {
        self.part.is_none_or(|part| part.index() == 0)
    }

    /// Number of documents.
    pub(crate) fn n_documents(&self) -> u64 {
        self.part.map_or(self.len, |part| self.len.saturating_sub(part.index()).div_ceil(part.of()))
    }

    /// The document at an index of the order; `None` after the last.
    pub(crate) fn get(&self, place: u64) -> Option<u64> {
        let place = self.part.map_or(place, |part| part.place(place));
        if place >= self.len {
            return None;
        }
        if self.starts.is_empty() {
            return self.units.get(place as usize).copied();
        }
        let unit = self.starts.partition_point(|start| *start <= place) - 1;
        let (first, row) = (self.units[unit], place - self.starts[unit]);
        Some(first + self.row(first, row))
    }

    /// Number of documents in a unit.
    fn documents_of(&self, first: u64) -> u64 {
        let found = self.blocks.binary_search_by_key(&first, |block| block.first_document);
        found.map_or(1, |at| self.blocks[at].documents)
    }

    /// The row at index `row` of the shuffled block that begins with document `first`.
    fn row(&self, first: u64, row: u64) -> u64 {
        let Some(seed) = self.seed else { return row };
        let mut cached = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, rows) = match cached.take() {
            Some(found) if found.0 == first => cached.insert(found),
            _ => {
                let mut rows: Vec<u32> = (0..self.documents_of(first) as u32).collect();
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                random.set_stream(first + 1); // stream 0 orders the units
                shuffle(&mut rows, &mut random);
                cached.insert((first, rows))
            }
        };
        u64::from(rows[row as usize])
    }
}

fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        // The high half of a 64 x 64 bit product: uniform on 0..=last up to 2^-64 per value.
        let pick = (u128::from(random.next_u64()) * (last as u128 + 1)) >> 64;
        items.swap(last, pick as usize);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn all(order: &DocumentOrder) -> Vec<u64> {
        (0..).map_while(|place| order.get(place)).collect()
    }

    fn blocks() -> Vec<Block> {
        vec![Block { first_document: 3, documents: 4 }, Block { first_document: 9, documents: 5 }]
    }

    #[test]
    fn a_seed_gives_one_permutation_for_ever() {
        // Expected values from ChaCha8 and Fisher-Yates written out in Python.
        assert_eq!(all(&DocumentOrder::new(100, vec![], Some(0)))[..8], [96, 53, 11, 31, 76, 2, 62, 43]);
        assert_eq!(all(&DocumentOrder::new(5, vec![], None)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn every_document_comes_once_and_a_blocks_rows_follow_each_other() {
        assert_eq!(all(&DocumentOrder::new(16, blocks(), None)), (0..16).collect::<Vec<_>>());
        for seed in 0..20 {
            let order = all(&DocumentOrder::new(16, blocks(), Some(seed)));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..16).collect::<Vec<_>>());
            let first = order.iter().position(|document| (9..14).contains(document)).unwrap();
            assert!(order[first..first + 5].iter().all(|document| (9..14).contains(document)), "{order:?}");
        }
        assert_ne!(all(&DocumentOrder::new(16, blocks(), Some(0))), all(&DocumentOrder::new(16, blocks(), Some(1))));
    }

    #[test]
    fn parts_have_every_document_once() {
        let order = all(&DocumentOrder::new(16, blocks(), Some(3)));
        let parts = ["0/3", "1/3", "2/3"]
            .map(|part| all(&DocumentOrder::new(16, blocks(), Some(3)).of_part(part.parse().ok())));
        for (place, document) in order.iter().enumerate() {
            assert_eq!(parts[place % 3][place / 3], *document);
        }
        assert_eq!(parts.iter().map(Vec::len).sum::<usize>(), 16);
    }
}
