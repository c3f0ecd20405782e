//! [`Epilogue`]: the operations after a product, applied to each of its tiles while the tile is in the first-level
//! cache.

use std::ops::Range;

use super::{
    super::{Activation, activation::Activate},
    kernel::PANEL,
};
use crate::numbers::simd::wide;

/// Number of gates in a panel, and of the values that they gate.
pub(crate) const GATES: usize = PANEL / 2;

/// The operations after `x W^T`.
#[derive(Debug, Clone)]
pub(crate) struct Epilogue {
    /// Columns of the result: the rows of `W`, or one per gate.
    pub(crate) columns: usize,
    /// Added to every row. `[d_out]`
    pub(crate) bias: Option<Vec<f32>>,
    /// Activation applied after the bias.
    pub(crate) activation: Option<Activation>,
    /// The rows of `W` are 16 gates, the 16 values they gate, and so on ([`by_turns`]): `act(gate) * value`.
    pub(crate) gated: bool,
}

impl Epilogue {
    /// # Panics
    /// If it does not belong to a matrix of `d_out` rows: the result would have missing elements.
    pub(crate) fn check(&self, d_out: usize) {
        let rows = if self.gated { 2 * self.columns.next_multiple_of(GATES) } else { self.columns };
        assert_eq!(rows, d_out, "rows of the matrix");
        assert!(self.bias.as_ref().is_none_or(|bias| bias.len() == d_out), "a bias for each of its rows");
    }

    /// Finishes a tile of the product's `panel`-th 32 columns. The results are at the start of the tile's rows; returns
    /// their columns in the result.
    ///
    /// # Shapes
    /// `tile`: `[rows, PANEL]`
    pub(crate) fn finish(&self, panel: usize, tile: &mut [f32]) -> Range<usize> {
        if let Some(bias) = &self.bias {
            add_to_rows(tile, &bias[panel * PANEL..]);
        }
        match self.activation {
            Some(activation) if self.gated => {
                let (halves, _) = tile.as_chunks_mut::<GATES>();
                let (values, _) = halves.as_chunks_mut::<2>();
                wide(Activate { values, activation });
            }
            Some(activation) => wide(Activate { values: tile, activation }),
            None => {}
        }
        let width = if self.gated { GATES } else { PANEL };
        panel * width..((panel + 1) * width).min(self.columns)
    }
}

/// Adds `values`, one per column, to every row of a tile; a last panel has fewer columns than the tile.
fn add_to_rows(tile: &mut [f32], values: &[f32]) {
    for row in tile.chunks_exact_mut(PANEL) {
        for (sum, value) in row.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

/// Reorders the rows of a gated matrix, `n` gates above the `n` values they gate, to the order of [`Epilogue::gated`].
/// Zeros fill the last group.
///
/// # Shapes
/// `rows`: `[2 n, width]` -> `[2 (n rounded up to 16), width]`
pub(crate) fn by_turns(rows: &[f32], width: usize) -> Vec<f32> {
    let (gates, values) = rows.split_at(rows.len() / 2);
    let size = GATES * width;
    let mut turns = Vec::with_capacity(2 * gates.len().next_multiple_of(size));
    for (gates, values) in gates.chunks(size).zip(values.chunks(size)) {
        for group in [gates, values] {
            turns.extend_from_slice(group);
            turns.resize(turns.len().next_multiple_of(size), 0.0);
        }
    }
    turns
}
