//! [`Batch`]: the input of one pass, and [`Rows`]: the token of each row of its activations. Sequences of any lengths
//! are concatenated, without padding:
//!
//! ```text
//! rows:       the cat sat | fellow citizens of the | and          [rows, width], one row per token
//! sequence:   0   0   0     1      1        1  1     2
//! position:   0   1   2     0      1        2  3     57           if the cache holds 57 tokens of sequence 2
//! ```
//!
//! Nearly everything in a model is computed row by row; only attention uses several rows, all of one sequence. So the
//! bits of a row do not depend on the other sequences of the batch.

use std::ops::Range;

/// Tokens of one or more sequences.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    tokens: Vec<u32>,
    /// Number and length of each sequence.
    sequences: Vec<(usize, usize)>,
}

impl Batch {
    /// Texts from their beginning, numbered from 0.
    pub fn of<T: AsRef<[u32]>>(texts: impl IntoIterator<Item = T>) -> Self {
        let mut batch = Self::default();
        texts.into_iter().enumerate().for_each(|(number, text)| batch.push(number, text.as_ref()));
        batch
    }

    /// Adds a sequence, or the next tokens of one: `sequence` is its number in the cache of the pass. In a pass without
    /// a cache, every sequence is a text from its beginning, and the number only identifies it to a hook.
    pub fn push(&mut self, sequence: usize, tokens: &[u32]) {
        self.tokens.extend_from_slice(tokens);
        self.sequences.push((sequence, tokens.len()));
    }

    /// Number of tokens, which is the number of rows of each activation.
    pub(crate) fn n_rows(&self) -> usize {
        self.tokens.len()
    }

    /// All tokens, sequence after sequence.
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The numbers of the sequences, in the order in which they were added.
    pub(crate) fn sequences(&self) -> impl ExactSizeIterator<Item = usize> {
        self.sequences.iter().map(|(number, _)| *number)
    }

    /// The rows of each sequence, in the same order.
    pub(crate) fn spans(&self) -> impl ExactSizeIterator<Item = Range<usize>> {
        let mut end = 0;
        self.sequences.iter().map(move |(_, len)| {
            end += len;
            end - len..end
        })
    }

    /// The last row of each sequence: the one that predicts the next token.
    pub fn last_rows(&self) -> Vec<u32> {
        self.spans().map(|rows| rows.end.saturating_sub(1) as u32).collect()
    }
}

/// A row of an activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Number of the variant that a hook made of the batch ([`super::Edit::Variants`]); 0 if it made none.
    pub variant: usize,
    /// Number of its sequence.
    pub sequence: usize,
    /// Position in the sequence, from 0.
    pub position: usize,
    /// Token id.
    pub token: u32,
}

/// The token of each row of an activation.
#[derive(Debug, Clone)]
pub struct Rows {
    /// The rows of one variant.
    rows: Vec<Row>,
    n_variants: usize,
}

impl Rows {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.rows.len() * self.n_variants
    }

    /// The row with index `row`.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn get(&self, row: usize) -> Row {
        assert!(row < self.len(), "row {row} of {}", self.len());
        Row { variant: row / self.rows.len(), ..self.rows[row % self.rows.len()] }
    }

    /// All rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Row> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The rows of a batch whose sequences start at the positions `starts`.
    pub fn of(batch: &Batch, starts: &[usize]) -> Self {
        let spans = batch.sequences().zip(batch.spans()).zip(starts);
        let rows = spans.flat_map(|((sequence, rows), start)| {
            let row = move |(place, row): (usize, usize)| Row {
                variant: 0,
                sequence,
                position: start + place,
                token: batch.tokens[row],
            };
            rows.enumerate().map(row)
        });
        Self { rows: rows.collect(), n_variants: 1 }
    }

    /// Adapts to an activation of `rows` rows, which must be a multiple of one variant's rows.
    pub(crate) fn set_len(&mut self, rows: usize) {
        self.n_variants = rows / self.rows.len().max(1);
    }
}

/// Rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) rows: Range<usize>,
    /// Position of the first row.
    pub(crate) start: usize,
}

impl Span {
    /// Number of tokens of the sequence up to the last of these rows.
    pub(crate) fn end(&self) -> usize {
        self.start + self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_tokens_of_the_sequences_and_of_every_variant() {
        let mut batch = Batch::of([[7, 8].as_slice(), &[9]]);
        batch.push(5, &[1, 2]);
        assert_eq!(batch.last_rows(), [1, 2, 4]);
        assert_eq!(batch.spans().collect::<Vec<_>>(), [0..2, 2..3, 3..5]);
        let mut rows = Rows::of(&batch, &[0, 0, 30]);
        let row = |variant, sequence, position, token| Row { variant, sequence, position, token };
        let once = [row(0, 0, 0, 7), row(0, 0, 1, 8), row(0, 1, 0, 9), row(0, 5, 30, 1), row(0, 5, 31, 2)];
        assert_eq!(rows.iter().collect::<Vec<_>>(), once);
        rows.set_len(10);
        assert_eq!((rows.n_variants, rows.get(6)), (2, row(1, 0, 1, 8)));
    }
}
