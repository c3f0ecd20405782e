//! Vector instructions, chosen at run time. [`wide`] runs a plain loop compiled for the widest vectors of this machine;
//! `Instructions` names them for loops written in intrinsics. Also here: elementwise functions written so that the
//! compiler turns a loop over them into vector instructions.

use std::sync::OnceLock;

use pulp::{Arch, Simd, WithSimd};

/// A kernel and its arguments. A struct, not a closure: rustc compiles a closure's call separately. `run` and every
/// function that it calls must be `#[inline(always)]`, and the heavy loops must not be in closures. Code that is not
/// inlined into [`wide`] is compiled for the oldest x86-64: there, `mul_add` is a call to the C library and a loop runs
/// ten times slower.
pub trait Kernel {
    /// Type of the result, if it is not written through the arguments.
    type Output;

    /// Runs the loop.
    fn run(self) -> Self::Output;
}

/// Runs `kernel` compiled for the widest vectors of this machine.
#[inline(always)]
pub fn wide<K: Kernel>(kernel: K) -> K::Output {
    Arch::new().dispatch(OnAnyMachine(kernel))
}

struct OnAnyMachine<K>(K);

impl<K: Kernel> WithSimd for OnAnyMachine<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) -> K::Output {
        self.0.run()
    }
}

/// Instruction sets that loops in intrinsics are written for, each with those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Instructions {
    Plain,
    /// AVX2 with FMA.
    Avx2,
    Avx512,
    /// AVX-512 with VNNI: products of bytes.
    Avx512Vnni,
}

impl Instructions {
    /// The fastest instruction set of this machine.
    pub(crate) fn of_this_machine() -> Self {
        static BEST: OnceLock<Instructions> = OnceLock::new();
        *BEST.get_or_init(|| match Arch::new() {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) if is_x86_feature_detected!("avx512vnni") => Self::Avx512Vnni,
            #[cfg(target_arch = "x86_64")]
            Arch::V4(_) => Self::Avx512,
            #[cfg(target_arch = "x86_64")]
            Arch::V3(_) => Self::Avx2,
            _ => Self::Plain,
        })
    }

    /// All instruction sets of this machine, fastest first.
    #[cfg(test)]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let all = [Self::Avx512Vnni, Self::Avx512, Self::Avx2, Self::Plain];
        all.into_iter().filter(|set| *set <= Self::of_this_machine())
    }
}

/// `e^x` to about one unit in the last place, without branches. Inputs outside `[-87, 88]` are clamped: where the true
/// value underflows, the result is about 1.6e-38, too small to change a sum of probabilities.
///
/// `e^x = 2^n e^r`, `n = round(x / ln 2)`, `|r| <= ln 2 / 2`; `e^r` is the polynomial of the Cephes library's `expf`.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    /// Adding 1.5 * 2^23 rounds to the nearest integer, which is then in the low bits of the sum.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that `n * LN2_HI` is exact.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, x));
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 0.5);
    let e_r = p.mul_add(r * r, r) + 1.0;
    // `n` moves into the exponent's bits. `n as i32` would need a branch per value for numbers outside the range of
    // i32.
    let two_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    e_r * two_n
}

/// `tanh(x)` to a few units in the last place, without branches. Near zero, where `1 - 2 / (e^2x + 1)` would cancel, it
/// is the polynomial of the Cephes library's `tanhf`.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let size = x.abs();
    let far = 1.0 - 2.0 / (exp(2.0 * size) + 1.0);
    let z = x * x;
    let mut p = -5.704_988_7e-3_f32;
    p = p.mul_add(z, 2.063_909e-2);
    p = p.mul_add(z, -5.373_971_6e-2);
    p = p.mul_add(z, 1.333_144_2e-1);
    p = p.mul_add(z, -3.333_328e-1);
    let near = (p * z).mul_add(size, size);
    (if size < 0.625 { near } else { far }).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_ulp_of_f64() {
        for step in -86_990..88_000 {
            let x = step as f32 * 1e-3;
            let want = f64::from(x).exp();
            let got = f64::from(exp(x));
            assert!(((got - want) / want).abs() < 2.5e-7, "exp({x}) = {got}, not {want}");
        }
    }

    #[test]
    fn tanh_is_within_four_ulp_of_f64() {
        for step in -100_000..100_000 {
            let x = step as f32 * 1.7e-4;
            let want = f64::from(x).tanh();
            let got = f64::from(tanh(x));
            assert!((got - want).abs() <= 2.5e-7 * want.abs(), "tanh({x}) = {got}, not {want}");
        }
        assert_eq!((tanh(1e6), tanh(-1e6), tanh(0.0)), (1.0, -1.0, 0.0));
    }

    #[test]
    fn exp_is_finite_where_f32_is_not() {
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(1e9).is_finite());
        assert_eq!(exp(0.0), 1.0);
    }
}
