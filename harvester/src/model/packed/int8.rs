//! [`Int8Matrix`]: a matrix in 8 bits, and its product with rows that are rounded to 8 bits first.
//!
//! ```text
//! W[j][k] = w_scale[j][g] * w[j][k],   w in -127..=127        a scale for each row and group of neighboring columns
//! x[i][k] = x_scale[i][g] * a[i][k],   a in -127..=127        the same
//! y[i][j] = sum_g x_scale[i][g] w_scale[j][g] sum_{k in g} a[i][k] w[j][k]  (+ b[j])
//! ```
//!
//! Scales are per group, because a few columns of a residual stream are many times larger than the others: with one
//! scale for the whole row, only a handful of steps would be left for the others.

use rayon::prelude::*;

use super::{
    epilogue::Epilogue,
    fill,
    int8_kernel::{GROUP, Int8Operands, QUAD},
    kernel::PANEL,
};
use crate::numbers::simd::{Instructions, Kernel, wide};

/// Largest integer of either side. -128 is left out, so that the negative of every value is valid too.
const LEVELS: f32 = 127.0;

/// `W`, `[d_out, d_in]`, transposed in panels of 32 columns of bytes.
#[derive(Clone)]
pub(crate) struct Int8Matrix {
    instructions: Instructions,
    d_out: usize,
    d_in: usize,
    /// `[d_out / PANEL rounded up, d_in rounded up to groups / QUAD, PANEL, QUAD]`, each weight plus 128.
    panels: Vec<u8>,
    /// `[d_out / PANEL rounded up, groups, PANEL]`
    scales: Vec<f32>,
}

impl Int8Matrix {
    /// # Shapes
    /// `weight`: `[d_out, d_in]`, row-major
    pub(crate) fn new(weight: &[f32], d_in: usize) -> Self {
        Self::with(Instructions::of_this_machine(), weight, d_in)
    }

    fn with(instructions: Instructions, weight: &[f32], d_in: usize) -> Self {
        let d_out = weight.len() / d_in;
        assert_eq!(weight.len(), d_out * d_in, "whole rows");
        let depth = d_in.next_multiple_of(GROUP);
        let mut panels = vec![128u8; d_out.div_ceil(PANEL) * PANEL * depth];
        let mut scales = vec![0f32; panels.len() / GROUP];
        let by_panel =
            panels.par_chunks_exact_mut(PANEL * depth).zip(scales.par_chunks_exact_mut(PANEL * depth / GROUP));
        by_panel.zip(weight.par_chunks(PANEL * d_in)).for_each(|((panel, scales), rows)| {
            for (j, row) in rows.chunks_exact(d_in).enumerate() {
                for (g, group) in row.chunks(GROUP).enumerate() {
                    let (step, inverse) = scale_of(group);
                    scales[g * PANEL + j] = step;
                    for (k, value) in (g * GROUP..).zip(group) {
                        let whole = (value * inverse).round_ties_even() as i32;
                        panel[(k / QUAD * PANEL + j) * QUAD + k % QUAD] = (whole + 128) as u8;
                    }
                }
            }
        });
        Self { instructions, d_out, d_in, panels, scales }
    }

    pub(crate) fn d_in(&self) -> usize {
        self.d_in
    }

    /// Like [`super::PackedMatrix::product`].
    pub(crate) fn product(&self, x: &[f32], epilogue: &Epilogue, onto: Option<&[f32]>) -> Vec<f32> {
        let rows = x.len() / self.d_in;
        let x = Int8Rows::new(x, self.d_in);
        let Self { instructions, panels, scales, .. } = self;
        fill([rows, self.d_out], epilogue, onto, |first, panel, tile| {
            let (from, to) = (first * x.groups, (first + tile.len() / PANEL) * x.groups);
            let (b_from, b_to) = (panel * PANEL * x.groups, (panel + 1) * PANEL * x.groups);
            let operands = Int8Operands {
                a: &x.values[from * GROUP..to * GROUP],
                a_scales: &x.scales[from..to],
                starts: &x.starts[from..to],
                b: &panels[b_from * GROUP..b_to * GROUP],
                b_scales: &scales[b_from..b_to],
                c: tile,
            };
            operands.product(*instructions);
        })
    }
}

/// Rows rounded to 8 bits.
struct Int8Rows {
    groups: usize,
    /// `[rows, groups * GROUP]`; zeros fill the last group.
    values: Vec<i8>,
    /// `[rows, groups]`
    scales: Vec<f32>,
    /// -128 times the sum of each group. `[rows, groups]`
    starts: Vec<i32>,
}

impl Int8Rows {
    /// `x`: `[rows, d_in]`
    fn new(x: &[f32], d_in: usize) -> Self {
        let (rows, groups) = (x.len() / d_in, d_in.div_ceil(GROUP));
        assert_eq!(x.len(), rows * d_in, "whole rows");
        let (mut values, mut scales) = (vec![0i8; rows * groups * GROUP], vec![0f32; rows * groups]);
        let mut starts = vec![0i32; rows * groups];
        let by_row = values.par_chunks_exact_mut(groups * GROUP).zip(scales.par_chunks_exact_mut(groups));
        let by_row = by_row.zip(starts.par_chunks_exact_mut(groups)).zip(x.par_chunks_exact(d_in));
        by_row.for_each(|(((values, scales), starts), x)| wide(RoundRow { x, values, scales, starts }));
        Self { groups, values, scales, starts }
    }
}

/// Rounds one row.
struct RoundRow<'a> {
    x: &'a [f32],
    values: &'a mut [i8],
    scales: &'a mut [f32],
    starts: &'a mut [i32],
}

impl Kernel for RoundRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let groups = self.x.chunks(GROUP).zip(self.values.chunks_exact_mut(GROUP));
        for ((x, values), (scale, start)) in groups.zip(self.scales.iter_mut().zip(self.starts)) {
            let (step, inverse) = scale_of(x);
            let mut sum = 0i32;
            for (value, x) in values.iter_mut().zip(x) {
                // Adding 1.5 * 2^23 rounds to the nearest integer, ties to even, which is then in the low bits.
                let whole = (x * inverse + 12_582_912.0).to_bits() as i8;
                *value = whole;
                sum += i32::from(whole);
            }
            (*scale, *start) = (step, -128 * sum);
        }
    }
}

/// The step between neighboring integers for some values, and its inverse. The step is NaN if a value is not finite, so
/// that results computed from it are NaN too.
#[inline(always)]
fn scale_of(values: &[f32]) -> (f32, f32) {
    // Without the sign, bit patterns of floats are ordered like their values, with infinity and NaN above all others.
    let largest = values.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        return (f32::NAN, 0.0);
    }
    // For smaller values the inverse could be infinite; they are too small to matter beside any other value.
    if largest < 1e-30 { (0.0, 0.0) } else { (largest / LEVELS, LEVELS / largest) }
}

impl std::fmt::Debug for Int8Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Int8Matrix").field("d_out", &self.d_out).field("d_in", &self.d_in).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{testing::values, tests::plain_epilogue},
        *,
    };

    /// The three lines at the top of this file, in f64 except for the rounding.
    fn plain(x: &[f32], w: &[f32], d_in: usize, bias: Option<&[f32]>) -> Vec<f64> {
        let rounded = |values: &[f32]| -> Vec<f64> {
            let largest = values.iter().fold(0f32, |largest, value| largest.max(value.abs()));
            let (step, inverse) = (f64::from(largest / 127.0), 127.0 / largest);
            values.iter().map(|value| step * f64::from((value * inverse).round_ties_even())).collect()
        };
        let in_groups = |row: &[f32]| row.chunks(GROUP).flat_map(rounded).collect::<Vec<_>>();
        let w: Vec<Vec<f64>> = w.chunks(d_in).map(in_groups).collect();
        let x = x.chunks(d_in).map(in_groups);
        let dot = |x: &[f64], w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
        x.flat_map(|x| {
            let row = w.iter().enumerate().map(|(j, w)| dot(&x, w) + bias.map_or(0.0, |bias| f64::from(bias[j])));
            row.collect::<Vec<_>>()
        })
        .collect()
    }

    #[test]
    fn every_instruction_set_computes_the_formula_and_all_the_same_bits() {
        for (rows, d_in, d_out) in [(1, 1, 1), (12, 576, 64), (31, 40, 33), (61, 769, 100), (9, 1536, 31)] {
            let (x, w, bias) = (values(rows * d_in, 1), values(d_out * d_in, 2), values(d_out, 3));
            for bias in [None, Some(bias)] {
                let want = plain(&x, &w, d_in, bias.as_deref());
                let epilogue = Epilogue { bias, ..plain_epilogue(d_out) };
                let products: Vec<_> = Instructions::available()
                    .map(|instructions| Int8Matrix::with(instructions, &w, d_in).product(&x, &epilogue, None))
                    .collect();
                assert!(products.iter().all(|product| *product == products[0]), "[{rows}, {d_in}] by {d_out}");
                // Scales and their products are rounded to f32, and 24 groups are added in f32.
                let scale = want.iter().fold(0f64, |largest, value| largest.max(value.abs()));
                for (got, want) in products[0].iter().zip(&want) {
                    assert!(
                        (f64::from(*got) - want).abs() < 1e-6 * scale,
                        "[{rows}, {d_in}] by {d_out}: {got}, {want}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_largest_values_of_both_signs_do_not_overflow() {
        let d_in = 4096;
        for (x, w) in [(1e30, 3.0), (-1e30, 3.0), (-1e30, -3.0)] {
            let (xs, ws) = (vec![x; 7 * d_in], vec![w; 40 * d_in]);
            let want = f64::from(x) * f64::from(w) * d_in as f64;
            for instructions in Instructions::available() {
                let y = Int8Matrix::with(instructions, &ws, d_in).product(&xs, &plain_epilogue(40), None);
                assert!(
                    y.iter().all(|y| (f64::from(*y) / want - 1.0).abs() < 1e-6),
                    "{instructions:?} {x} {w}: {}",
                    y[0]
                );
            }
        }
    }

    #[test]
    fn an_outlier_costs_its_group_alone_and_what_is_not_finite_stays_so() {
        let d_in = 3 * GROUP;
        let w = values(40 * d_in, 2);
        let matrix = Int8Matrix::new(&w, d_in);
        let mut x = values(2 * d_in, 1);
        x[GROUP..2 * GROUP].fill(0.0);
        let without = matrix.product(&x, &plain_epilogue(40), None);
        x[GROUP] = 20_000.0;
        let outlier: Vec<f32> = matrix.product(&x, &plain_epilogue(40), None)[..40].to_vec();
        x[..GROUP].fill(0.0);
        x[2 * GROUP..d_in].fill(0.0);
        let alone = matrix.product(&x, &plain_epilogue(40), None);
        for j in 0..40 {
            assert!((outlier[j] - alone[j] - without[j]).abs() < 1e-6 * outlier[j].abs() + 1e-6, "column {j}");
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            x[5] = bad;
            let y = matrix.product(&x, &plain_epilogue(40), None);
            assert!(y[..40].iter().all(|y| y.is_nan()) && y[40..].iter().all(|y| y.is_finite()), "{bad}");
        }
    }

    #[test]
    fn a_row_gives_the_same_bits_among_any_number_of_rows() {
        let (d_in, d_out) = (800, 130);
        let (x, w) = (values(150 * d_in, 1), values(d_out * d_in, 2));
        let matrix = Int8Matrix::new(&w, d_in);
        let all = matrix.product(&x, &plain_epilogue(d_out), None);
        for rows in [1, 2, 7, 13, 47, 49, 96] {
            assert_eq!(
                matrix.product(&x[..rows * d_in], &plain_epilogue(d_out), None),
                all[..rows * d_out],
                "{rows} rows"
            );
        }
    }
}
