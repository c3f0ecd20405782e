//! [`PackedMatrix`]: the weights of a [`Linear`](super::linear::Linear) in the layout of its product's inner loop.
//! Weights never change, so they are packed once, when a model is loaded, instead of once per product.
//!
//! ```text
//! y = x W^T + b        in tiles of 12 rows x 32 columns; each tile reads 12 rows of x and one panel of W
//! ```
//!
//! A tile's sums stay in registers, its rows of `x` in the first-level cache, the panel in the second. The operations
//! after the product, such as the bias, are applied to the tile while it is in cache.

mod epilogue;
mod grid;
mod int8;
mod int8_kernel;
mod kernel;

use candle_core::bail;
use rayon::prelude::*;

use grid::Grid;

pub(crate) use epilogue::{Epilogue, by_turns};
pub(crate) use grid::Output;
pub(crate) use int8::Int8Matrix;
pub(crate) use kernel::{MAX_ROWS, Operands, PANEL, tile_rows};

use crate::numbers::simd::Instructions;

/// Columns of `x` per step: a panel's part is 96 KiB, a fraction of any second-level cache.
const DEPTH: usize = 768;

/// `W`, `[d_out, d_in]`, transposed in panels of 32 columns.
#[derive(Clone)]
pub(crate) struct PackedMatrix {
    instructions: Instructions,
    d_out: usize,
    d_in: usize,
    /// `[d_out / PANEL rounded up, d_in, PANEL]`; zeros fill the last panel.
    panels: Vec<f32>,
}

impl PackedMatrix {
    /// # Shapes
    /// `weight`: `[d_out, d_in]`, row-major
    pub(crate) fn new(instructions: Instructions, weight: &[f32], d_in: usize) -> Self {
        let d_out = weight.len() / d_in;
        assert_eq!(weight.len(), d_out * d_in, "whole rows");
        let mut panels = vec![0f32; d_out.div_ceil(PANEL) * PANEL * d_in];
        let by_panel = panels.par_chunks_exact_mut(PANEL * d_in).zip(weight.par_chunks(PANEL * d_in));
        by_panel.for_each(|(panel, rows)| {
            for (j, row) in rows.chunks_exact(d_in).enumerate() {
                for (panel, &value) in panel.chunks_exact_mut(PANEL).zip(row) {
                    panel[j] = value;
                }
            }
        });
        Self { instructions, d_out, d_in, panels }
    }

    pub(crate) fn d_in(&self) -> usize {
        self.d_in
    }

    /// Reads rows of W. -> `[rows, d_in]`
    ///
    /// # Errors
    /// A row that W does not have.
    pub(crate) fn rows(&self, rows: &[u32]) -> candle_core::Result<Vec<f32>> {
        if let Some(row) = rows.iter().find(|row| **row as usize >= self.d_out) {
            bail!("row {row} of {}", self.d_out);
        }
        let mut values = vec![0f32; rows.len() * self.d_in];
        values.par_chunks_exact_mut(self.d_in).zip(rows).for_each(|(values, row)| {
            let (panel, column) = (*row as usize / PANEL, *row as usize % PANEL);
            let panel = self.panels[panel * PANEL * self.d_in..].chunks_exact(PANEL);
            values.iter_mut().zip(panel).for_each(|(value, panel)| *value = panel[column]);
        });
        Ok(values)
    }

    /// `x W^T` and its epilogue, added to `onto` if given.
    ///
    /// # Shapes
    /// `x`: `[rows, d_in]`, row-major; `onto`: `[rows, epilogue.columns]` -> the same
    pub(crate) fn product(&self, x: &[f32], epilogue: &Epilogue, onto: Option<&[f32]>) -> Vec<f32> {
        let rows = x.len() / self.d_in;
        assert_eq!(x.len(), rows * self.d_in, "whole rows");
        fill([rows, self.d_out], epilogue, onto, |first, panel, tile| {
            let rows = tile.len() / PANEL;
            self.tile(&x[first * self.d_in..(first + rows) * self.d_in], panel, tile);
        })
    }

    /// One tile of the product. `x`: `[rows, d_in]` -> `tile`: `[rows, PANEL]`
    fn tile(&self, x: &[f32], panel: usize, tile: &mut [f32]) {
        let rows = tile.len() / PANEL;
        let panel = &self.panels[panel * PANEL * self.d_in..][..PANEL * self.d_in];
        for (i, b) in panel.chunks(DEPTH * PANEL).enumerate() {
            let operands =
                Operands { a: &x[i * DEPTH..], a_row: self.d_in, b, c: &mut *tile, c_row: PANEL, add: i > 0 };
            operands.product(self.instructions, rows);
        }
    }
}

/// A product of `rows` rows and a matrix of `d_out`, tile by tile: `compute(first row, panel, tile)`, then the
/// epilogue.
///
/// # Shapes
/// `onto`: `[rows, epilogue.columns]` -> the same
fn fill(
    [rows, d_out]: [usize; 2],
    epilogue: &Epilogue,
    onto: Option<&[f32]>,
    compute: impl Fn(usize, usize, &mut [f32]) + Sync,
) -> Vec<f32> {
    let width = epilogue.columns;
    epilogue.check(d_out);
    assert!(onto.is_none_or(|onto| onto.len() == rows * width), "something to add to each element");
    let y = Output::new(rows, width);
    Grid::new(rows, d_out.div_ceil(PANEL)).for_each_tile(|first, rows, panel| {
        let mut tile = [0f32; MAX_ROWS * PANEL];
        let tile = &mut tile[..rows * PANEL];
        compute(first, panel, tile);
        let columns = epilogue.finish(panel, tile);
        if let Some(onto) = onto {
            for (row, onto) in tile.chunks_exact_mut(PANEL).zip(onto[first * width..].chunks_exact(width)) {
                row.iter_mut().zip(&onto[columns.clone()]).for_each(|(sum, value)| *sum += value);
            }
        }
        // SAFETY: the grid yields every tile once.
        unsafe { y.write(first, columns, tile) };
    });
    // SAFETY: for the same reason every element is written.
    unsafe { y.into_values() }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix").field("d_out", &self.d_out).field("d_in", &self.d_in).finish_non_exhaustive()
    }
}

#[cfg(test)]
pub(crate) mod testing {
    /// Values that need every bit of their mantissa, in `[-1, 1)`; the same for the same seed.
    pub(crate) fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::values, *};

    pub(super) fn plain_epilogue(columns: usize) -> Epilogue {
        Epilogue { columns, bias: None, activation: None, gated: false }
    }

    /// `x W^T + b`, each element a chain of fused multiply-adds in the order of the columns.
    fn plain(x: &[f32], w: &[f32], d_in: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
        let element = |x, (j, w)| dot(x, w) + bias.map_or(0.0, |bias| bias[j]);
        x.chunks(d_in).flat_map(|x| w.chunks(d_in).enumerate().map(move |w| element(x, w))).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_loop() {
        // Tiles and panels that are whole, partial and single; columns in one part and in several.
        for (rows, d_in, d_out) in
            [(1, 1, 1), (12, 576, 64), (31, 40, 33), (61, 769, 100), (5, 1600, 31), (200, 24, 96)]
        {
            let (x, w, bias) = (values(rows * d_in, 1), values(d_out * d_in, 2), values(d_out, 3));
            for bias in [None, Some(bias)] {
                let want = plain(&x, &w, d_in, bias.as_deref());
                let epilogue = Epilogue { bias, ..plain_epilogue(d_out) };
                for instructions in Instructions::available() {
                    let got = PackedMatrix::new(instructions, &w, d_in).product(&x, &epilogue, None);
                    assert_eq!(got, want, "{instructions:?}, [{rows}, {d_in}] by [{d_in}, {d_out}]");
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows_and_on_any_number_of_threads() {
        let (d_in, d_out) = (800, 130);
        let (x, w) = (values(150 * d_in, 1), values(d_out * d_in, 2));
        let packed = PackedMatrix::new(Instructions::of_this_machine(), &w, d_in);
        let epilogue = plain_epilogue(d_out);
        let all = packed.product(&x, &epilogue, None);
        for rows in [1, 2, 7, 13, 47, 49, 96] {
            assert_eq!(packed.product(&x[..rows * d_in], &epilogue, None), all[..rows * d_out], "{rows} rows");
        }
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            assert_eq!(pool.install(|| packed.product(&x, &epilogue, None)), all, "{threads} threads");
        }
    }
}
