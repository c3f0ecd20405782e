//! The part of an SAE that passes no latent: y += x W_skip^T. Apart from the encoder's product, whose row may change by
//! a bit with the number of rows where there are few columns: a row here is the same alone and in a batch.

use rayon::prelude::*;

use super::simd::{Kernel, dot, wide};

/// Adds `x W^T` to `y`.
///
/// # Shapes
/// `x` `[n, d_in]`, `w` `[d_out, d_in]`, `y` `[n, d_out]`, all row-major.
pub(crate) fn add_skipped(x: &[f32], w: &[f32], d_in: usize, y: &mut [f32]) {
    let d_out = w.len() / d_in;
    y.par_chunks_exact_mut(d_out).zip(x.par_chunks_exact(d_in)).for_each(|(y, x)| wide(AddRow { x, w, y }));
}

/// One row.
struct AddRow<'a> {
    x: &'a [f32],
    w: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for AddRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (y, w) in self.y.iter_mut().zip(self.w.chunks_exact(self.x.len())) {
            *y += dot(self.x, w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        let mut y = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0];
        // Rows of W: x_0 + x_1, 2 x_1, -x_0.
        add_skipped(&[1.0, 2.0, 3.0, 4.0], &[1.0, 1.0, 0.0, 2.0, -1.0, 0.0], 2, &mut y);
        assert_eq!(y, [13.0, 24.0, 29.0, 47.0, 58.0, 57.0]);
    }
}
