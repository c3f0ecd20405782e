//! [`PackedMatrix`]: the weights of a [`Linear`](super::linear::Linear) as the inner loop of its product reads them.
//! Weights never change, so they are laid out once, when a model is loaded, instead of once a product.
//!
//! ```text
//! y = x W^T + b        in tiles of 12 rows x 32 columns; each tile reads 12 rows of x and one panel of W
//! ```
//!
//! A tile's sums stay in registers, its rows of `x` in the first-level cache, the panel in the second. What follows the
//! product, such as the bias, is done to the tile while it is there.

mod grid;
mod int8;
mod int8_kernel;
mod kernel;

use rayon::prelude::*;

use grid::{Grid, Output};
use kernel::{MAX_ROWS, Operands, PANEL};

pub(crate) use int8::Int8Matrix;
pub(crate) use kernel::Instructions;

/// Columns of `x` taken at once: a panel's part is 96 KiB, a fraction of any second-level cache.
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

    pub(crate) fn d_out(&self) -> usize {
        self.d_out
    }

    pub(crate) fn d_in(&self) -> usize {
        self.d_in
    }

    /// `x W^T`, and `bias` added where there is one.
    ///
    /// # Shapes
    /// `x`: `[rows, d_in]`, row-major; `bias`: `[d_out]` -> `[rows, d_out]`
    pub(crate) fn product(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let rows = x.len() / self.d_in;
        assert_eq!(x.len(), rows * self.d_in, "whole rows");
        assert!(bias.is_none_or(|bias| bias.len() == self.d_out), "a bias for each column");
        let y = Output::new(rows, self.d_out);
        let grid = Grid::new(rows, self.d_out.div_ceil(PANEL));
        grid.for_each_tile(|first, rows, panel| {
            let mut tile = [0f32; MAX_ROWS * PANEL];
            let tile = &mut tile[..rows * PANEL];
            self.tile(&x[first * self.d_in..(first + rows) * self.d_in], panel, tile);
            if let Some(bias) = bias {
                add_to_rows(tile, &bias[panel * PANEL..]);
            }
            // SAFETY: the grid hands out every tile once.
            unsafe { y.write(first, panel * PANEL, tile) };
        });
        // SAFETY: and so every element is written.
        unsafe { y.into_values() }
    }

    /// One tile of the product. `x`: `[rows, d_in]` -> `tile`: `[rows, PANEL]`
    fn tile(&self, x: &[f32], panel: usize, tile: &mut [f32]) {
        let rows = tile.len() / PANEL;
        let panel = &self.panels[panel * PANEL * self.d_in..][..PANEL * self.d_in];
        for (i, b) in panel.chunks(DEPTH * PANEL).enumerate() {
            let operands = Operands { a: &x[i * DEPTH..], a_row: self.d_in, b, c: &mut *tile, add: i > 0 };
            self.instructions.product(rows, operands);
        }
    }
}

/// Adds `values`, one for each column, to every row of a tile; a last panel has fewer columns than the tile.
fn add_to_rows(tile: &mut [f32], values: &[f32]) {
    for row in tile.chunks_exact_mut(PANEL) {
        for (sum, value) in row.iter_mut().zip(values) {
            *sum += value;
        }
    }
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedMatrix").field("d_out", &self.d_out).field("d_in", &self.d_in).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that need every bit of their mantissa.
    pub(super) fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 8_388_608.0 - 1.0
        };
        (0..n).map(|_| next()).collect()
    }

    /// `x W^T + b`, each element a chain of fused multiply-adds in the order of the columns.
    fn plain(x: &[f32], w: &[f32], d_in: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let dot = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
        let element = |x, (j, w)| dot(x, w) + bias.map_or(0.0, |bias| bias[j]);
        x.chunks(d_in).flat_map(|x| w.chunks(d_in).enumerate().map(move |w| element(x, w))).collect()
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_loop() {
        // Tiles and panels that are whole, partial and single; columns of one part and of several.
        for (rows, d_in, d_out) in
            [(1, 1, 1), (12, 576, 64), (31, 40, 33), (61, 769, 100), (5, 1600, 31), (200, 24, 96)]
        {
            let (x, w, bias) = (values(rows * d_in, 1), values(d_out * d_in, 2), values(d_out, 3));
            for bias in [None, Some(&bias[..])] {
                let want = plain(&x, &w, d_in, bias);
                for instructions in Instructions::available() {
                    let got = PackedMatrix::new(instructions, &w, d_in).product(&x, bias);
                    assert_eq!(got, want, "{instructions:?}, [{rows}, {d_in}] by [{d_in}, {d_out}]");
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows_and_on_any_number_of_threads() {
        let (d_in, d_out) = (800, 130);
        let (x, w) = (values(150 * d_in, 1), values(d_out * d_in, 2));
        let Some(instructions) = Instructions::of_this_machine() else { return };
        let packed = PackedMatrix::new(instructions, &w, d_in);
        let all = packed.product(&x, None);
        for rows in [1, 2, 7, 13, 47, 49, 96] {
            assert_eq!(packed.product(&x[..rows * d_in], None), all[..rows * d_out], "{rows} rows");
        }
        for threads in [1, 3, 8] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a small pool");
            assert_eq!(pool.install(|| packed.product(&x, None)), all, "{threads} threads");
        }
    }
}
