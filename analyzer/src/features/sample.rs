//! [`Sample`]: whole contexts of the indexed text with the active latents of every token. It is what everything reads
//! that needs single tokens: labels, contrasts, latents that fire together.

use std::ops::Range;

use trainer::FeatureActs;

use crate::EncodedRows;

/// The source of a token of no source.
pub(crate) const NO_SOURCE: u32 = u32::MAX;

/// Whole contexts, in their order, without roles.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// The tokens and their active latents.
    pub encoded: EncodedRows,
    /// The source of each token, an index into the manifest's sources; [`u32::MAX`] if it has none.
    pub source: Vec<u32>,
}

impl Sample {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// True if there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.source.is_empty()
    }

    /// The source of a token, as an index into the manifest's sources.
    pub fn source_of(&self, row: usize) -> Option<usize> {
        Some(self.source[row]).filter(|source| *source != NO_SOURCE).map(|source| source as usize)
    }

    /// Number of entries: tokens and their active latents.
    pub(crate) fn entries(&self) -> u64 {
        (self.len() + self.encoded.acts.n_active()) as u64
    }

    /// Appends the rows of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        self.encoded.append(&other.encoded);
        self.source.extend_from_slice(&other.source);
    }

    /// The tokens of some sources.
    pub(crate) fn of_sources(&self, places: &[usize]) -> EncodedRows {
        let mut found = EncodedRows::default();
        let mut start = 0;
        for same in self.source.chunk_by(|a, b| a == b) {
            let rows = start..start + same.len();
            start = rows.end;
            if self.source_of(rows.start).is_some_and(|source| places.contains(&source)) {
                found.append(&part_of(&self.encoded, &self.source, rows).encoded);
            }
        }
        found
    }

    /// A copy of some rows.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        part_of(&self.encoded, &self.source, rows)
    }

    /// Appends a row.
    pub(crate) fn push(&mut self, row: SampleRow) {
        let EncodedRows { rows, ordinary, acts } = &mut self.encoded;
        rows.document.push(row.document);
        rows.context.push(row.context);
        rows.position.push(row.position);
        rows.token.push(row.token);
        ordinary.push(row.ordinary);
        acts.latents.extend_from_slice(&row.latents);
        acts.values.extend_from_slice(&row.activations);
        acts.offsets.push(acts.latents.len());
        self.source.push(row.source.unwrap_or(NO_SOURCE));
    }

    /// A row, as in the table.
    pub(crate) fn row(&self, row: usize) -> SampleRow {
        let EncodedRows { rows, ordinary, acts } = &self.encoded;
        let (latents, activations) = acts.row(row);
        SampleRow {
            document: rows.document[row],
            context: rows.context[row],
            position: rows.position[row],
            token: rows.token[row],
            source: self.source_of(row).map(|source| source as u32),
            ordinary: ordinary[row],
            latents: latents.to_vec(),
            activations: activations.to_vec(),
        }
    }

    /// The entries sorted by latent.
    pub(crate) fn by_latent(&self, d_sae: usize) -> ByLatent {
        let FeatureActs { latents, values, .. } = &self.encoded.acts;
        let mut offsets = vec![0; d_sae + 1];
        latents.iter().for_each(|&latent| offsets[latent as usize + 1] += 1);
        (0..d_sae).for_each(|latent| offsets[latent + 1] += offsets[latent]);
        let (mut next, mut rows, mut sorted) = (offsets.clone(), vec![0; latents.len()], vec![0.0; latents.len()]);
        for row in 0..self.len() {
            let (latents, values) = self.encoded.acts.row(row);
            for (&latent, &value) in latents.iter().zip(values) {
                let at = &mut next[latent as usize];
                (rows[*at], sorted[*at]) = (row as u32, value);
                *at += 1;
            }
        }
        debug_assert_eq!(values.len(), sorted.len());
        ByLatent { offsets, rows, values: sorted }
    }
}

/// A copy of some rows of `encoded`, whose sources are `source`.
pub(crate) fn part_of(encoded: &EncodedRows, source: &[u32], rows: Range<usize>) -> Sample {
    Sample { source: source[rows.clone()].to_vec(), encoded: encoded.part(rows) }
}

/// The entries of a sample, sorted by latent, rows ascending within a latent.
#[derive(Debug)]
pub(crate) struct ByLatent {
    offsets: Vec<usize>,
    rows: Vec<u32>,
    values: Vec<f32>,
}

impl ByLatent {
    /// The rows on which a latent fires and its activations there.
    pub(crate) fn of(&self, latent: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[latent]..self.offsets[latent + 1];
        (&self.rows[range.clone()], &self.values[range])
    }
}

/// A token of a sample. A row of `sample.parquet`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SampleRow {
    pub(crate) document: u64,
    pub(crate) context: u64,
    pub(crate) position: u32,
    pub(crate) token: u32,
    pub(crate) source: Option<u32>,
    pub(crate) ordinary: bool,
    pub(crate) latents: Vec<u32>,
    pub(crate) activations: Vec<f32>,
}
