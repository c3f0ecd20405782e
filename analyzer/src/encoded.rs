//! [`EncodedRows`]: tokens with their active latents. Encoding a text or a shard gives them; tables, labels and
//! contrasts are made from them.

use std::ops::Range;

use harvester::{ActivationRows, TokenRows, is_ordinary};
use trainer::{Encoder, FeatureActs, Sae};

use crate::Result;

/// Tokens of whole contexts, with the latents that are active on each.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EncodedRows {
    /// The tokens.
    pub rows: TokenRows,
    /// False for the tokens that no SAE is trained on, position 0 and attention sinks. They have no active latents.
    pub ordinary: Vec<bool>,
    /// The active latents of each token.
    pub acts: FeatureActs,
}

impl EncodedRows {
    /// Encodes activations. Rows with a norm above `sink_norm` are attention sinks. What a dense SAE gives a value of
    /// zero or less is not active.
    ///
    /// # Errors
    /// Activations of another width than the SAE reads.
    pub fn encode(sae: &Sae, read: ActivationRows, sink_norm: f32) -> Result<Self> {
        Self::encode_with(&mut Encoder::new(sae), read, sink_norm)
    }

    /// The same, with the buffers of `encoder`.
    pub(crate) fn encode_with(encoder: &mut Encoder<'_>, read: ActivationRows, sink_norm: f32) -> Result<Self> {
        let (width, d_in) = (read.d_model, encoder.d_in());
        if width != d_in {
            let (expected, found) = (format!("{d_in} values a row, as the SAE reads"), width.to_string());
            return Err(harvester::Error::invalid("activations", expected, found).into());
        }
        let encoded = encoder.encode(read.rows.token.len(), |row, to| read.values.copy_row(row, to));
        let ordinary: Vec<bool> =
            (0..encoded.n_rows()).map(|row| is_ordinary(read.rows.position[row], read.norm[row], sink_norm)).collect();
        let mut acts = FeatureActs::default();
        for (row, ordinary) in ordinary.iter().enumerate() {
            if *ordinary {
                let (latents, values) = encoded.row(row);
                let active = || latents.iter().zip(values).filter(|(_, value)| **value > 0.0);
                acts.latents.extend(active().map(|(latent, _)| *latent));
                acts.values.extend(active().map(|(_, value)| *value));
            }
            acts.offsets.push(acts.latents.len());
        }
        Ok(Self { rows: read.rows, ordinary, acts })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ordinary.len()
    }

    /// True if there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ordinary.is_empty()
    }

    /// The rows of each document in turn. Rows of one document follow one another.
    pub fn documents(&self) -> Vec<Self> {
        let mut end = 0;
        let lengths = self.rows.document.chunk_by(|a, b| a == b).map(<[u64]>::len);
        let rows = lengths.map(|len| {
            end += len;
            self.part(end - len..end)
        });
        rows.collect()
    }

    /// A copy of some rows, without roles.
    pub(crate) fn part(&self, rows: Range<usize>) -> Self {
        let Self { rows: tokens, ordinary, acts } = self;
        let (first, last) = (acts.offsets[rows.start], acts.offsets[rows.end]);
        Self {
            rows: TokenRows {
                document: tokens.document[rows.clone()].to_vec(),
                context: tokens.context[rows.clone()].to_vec(),
                position: tokens.position[rows.clone()].to_vec(),
                token: tokens.token[rows.clone()].to_vec(),
                role: vec![],
            },
            ordinary: ordinary[rows.clone()].to_vec(),
            acts: FeatureActs {
                offsets: acts.offsets[rows.start..=rows.end].iter().map(|offset| offset - first).collect(),
                latents: acts.latents[first..last].to_vec(),
                values: acts.values[first..last].to_vec(),
            },
        }
    }

    /// Appends the rows of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        let Self { rows, ordinary, acts } = self;
        rows.document.extend_from_slice(&other.rows.document);
        rows.context.extend_from_slice(&other.rows.context);
        rows.position.extend_from_slice(&other.rows.position);
        rows.token.extend_from_slice(&other.rows.token);
        rows.role.extend_from_slice(&other.rows.role);
        ordinary.extend_from_slice(&other.ordinary);
        let base = acts.latents.len();
        acts.offsets.extend(other.acts.offsets[1..].iter().map(|offset| base + offset));
        acts.latents.extend_from_slice(&other.acts.latents);
        acts.values.extend_from_slice(&other.acts.values);
    }
}
