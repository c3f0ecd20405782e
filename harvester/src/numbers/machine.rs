//! Measured speed of this machine, for estimates and benchmarks to compare with.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

/// Side of the matrices multiplied: large enough for the product's full rate, small enough for a few milliseconds.
const SIDE: usize = 768;

/// Duration of the measurement.
const TIME: Duration = Duration::from_millis(100);

/// Rate of f32 matrix products on all cores, in FLOP/s: the best product within a tenth of a second.
pub fn gemm_flops() -> f64 {
    let (a, b) = (vec![1f32; SIDE * SIDE], vec![1f32; SIDE * SIDE]);
    let mut c = vec![0f32; SIDE * SIDE];
    let mut best = f64::INFINITY;
    let begin = Instant::now();
    while begin.elapsed() < TIME {
        let start = Instant::now();
        multiply(&a, &b, &mut c);
        best = best.min(start.elapsed().as_secs_f64());
    }
    black_box(&c);
    2.0 * (SIDE * SIDE * SIDE) as f64 / best
}

/// `c = a b`, all `[SIDE, SIDE]`, row-major.
fn multiply(a: &[f32], b: &[f32], c: &mut [f32]) {
    let (n, row) = (SIDE, SIDE as isize);
    assert!(a.len() == n * n && b.len() == n * n && c.len() == n * n);
    // SAFETY: the assertion bounds every address the product reads or writes.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            1,
            row,
            false,
            a.as_ptr(),
            1,
            row,
            b.as_ptr(),
            1,
            row,
            0.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::Rayon(0),
        );
    }
}
