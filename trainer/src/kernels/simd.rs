//! Vector building blocks of the kernels, written as plain loops. When they are inlined into a
//! [`harvester::simd::wide`] call, the compiler turns them into the widest instructions of the running machine.
//!
//! The number of lanes is fixed here, not by the machine, and `mul_add` rounds once everywhere. So sums are
//! bit-identical with AVX2, with AVX-512 and without either. This does not hold for the dense products (`product`).

/// Separate partial sums in a reduction: enough to keep four AVX-512 or eight AVX2 accumulators busy.
const LANES: usize = 64;

/// sum_i a_i * b_i over slices of the same length.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] = a[lane].mul_add(b[lane], sums[lane]);
        }
    }
    let rest = a_rest.iter().zip(b_rest).fold(0.0, |sum, (&a, &b)| a.mul_add(b, sum));
    sum_lanes(sums) + rest
}

/// sum_i a_i^2.
#[inline(always)]
pub(crate) fn sum_of_squares(a: &[f32]) -> f32 {
    dot(a, a)
}

/// values_i *= factor.
pub(crate) fn multiply(values: &mut [f32], factor: f32) {
    values.iter_mut().for_each(|value| *value *= factor);
}

/// y += c * x.
#[inline(always)]
pub(crate) fn add_scaled(y: &mut [f32], c: f32, x: &[f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = c.mul_add(x, *y);
    }
}

/// y += sum_n c_n * x_n, where `row(n)` is the n-th vector. It takes four vectors at a time, so `y` is loaded and
/// stored once for four products. The order of additions depends only on the order of `coefficients`.
#[inline(always)]
pub(crate) fn add_weighted_rows<'a>(y: &mut [f32], coefficients: &[f32], row: impl Fn(usize) -> &'a [f32]) {
    let (quads, rest) = coefficients.as_chunks::<4>();
    for (quad, c) in quads.iter().enumerate() {
        let first = quad * 4;
        add_four_scaled(y, *c, [row(first), row(first + 1), row(first + 2), row(first + 3)]);
    }
    let first = quads.len() * 4;
    for (n, &c) in rest.iter().enumerate() {
        add_scaled(y, c, row(first + n));
    }
}

#[inline(always)]
fn add_four_scaled(y: &mut [f32], c: [f32; 4], x: [&[f32]; 4]) {
    // Giving all five slices the same length first removes every bounds check from the loop.
    let n = y.len();
    let (x0, x1, x2, x3) = (&x[0][..n], &x[1][..n], &x[2][..n], &x[3][..n]);
    for i in 0..n {
        let low = c[1].mul_add(x1[i], c[0].mul_add(x0[i], y[i]));
        y[i] = c[3].mul_add(x3[i], c[2].mul_add(x2[i], low));
    }
}

/// Sums pairwise, in a fixed order.
#[inline(always)]
fn sum_lanes(mut sums: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use harvester::simd::{Kernel, wide};

    use super::*;

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Kernel for Dot<'_> {
        type Output = f32;

        #[inline(always)]
        fn run(self) -> f32 {
            dot(self.0, self.1)
        }
    }

    #[test]
    fn dot_agrees_with_a_plain_sum_at_every_length() {
        for n in [0, 1, 3, 16, 63, 64, 65, 200, 576] {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.91).cos()).collect();
            let plain: f64 = a.iter().zip(&b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let fast = wide(Dot(&a, &b));
            assert!((f64::from(fast) - plain).abs() < 1e-5, "length {n}: {fast} against {plain}");
        }
    }

    #[test]
    fn rows_add_up_whatever_their_number() {
        let rows: Vec<Vec<f32>> = (0..7).map(|r| (0..19).map(|i| (r * 19 + i) as f32).collect()).collect();
        for n in 0..=7 {
            let coefficients: Vec<f32> = (0..n).map(|r| r as f32 + 0.5).collect();
            let mut y = vec![1.0; 19];
            add_weighted_rows(&mut y, &coefficients, |r| rows[r].as_slice());
            for (i, &y) in y.iter().enumerate() {
                let plain: f32 = 1.0 + (0..n).map(|r| coefficients[r] * rows[r][i]).sum::<f32>();
                assert!((y - plain).abs() < 1e-3, "{n} rows, column {i}: {y} against {plain}");
            }
        }
    }

    #[test]
    fn wide_and_plain_code_give_the_same_bits() {
        let a: Vec<f32> = (0..577).map(|i| (i as f32 * 0.37).sin()).collect();
        assert_eq!(wide(Dot(&a, &a)).to_bits(), sum_of_squares(&a).to_bits());
    }
}
