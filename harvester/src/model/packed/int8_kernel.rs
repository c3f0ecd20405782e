//! [`Int8Operands::product`]: the inner loop of a product of 8-bit rows by an 8-bit matrix, once for each instruction
//! set, and the plain loop that defines the result of all of them:
//!
//! ```text
//! c[i][j] = sum over groups g of  a_scale[i][g] b_scale[g][j] * sum over k in g of  a[i][k] (b[k][j] - 128)
//! ```
//!
//! The inner sum adds integers and is exact; the outer sum is a chain of fused multiply-adds in the order of the
//! groups. So the result is the same on every machine, and a row's result does not depend on the other rows.

use super::kernel::PANEL;
use crate::numbers::simd::Instructions;

/// Number of neighboring values, in a row of either side, that share a scale. An outlier reduces the resolution of its
/// own group only.
pub(super) const GROUP: usize = 64;

/// Number of neighboring values of a row that one instruction multiplies and adds.
pub(super) const QUAD: usize = 4;

/// Bytes of a panel for one group.
const GROUP_BYTES: usize = GROUP * PANEL;

/// The operands of a tile.
pub(super) struct Int8Operands<'a> {
    /// `[rows, groups * GROUP]`
    pub(super) a: &'a [i8],
    /// `[rows, groups]`
    pub(super) a_scales: &'a [f32],
    /// -128 times the sum of each group, which compensates for `b`'s offset. `[rows, groups]`
    pub(super) starts: &'a [i32],
    /// `[groups * GROUP / QUAD, PANEL, QUAD]`, each weight plus 128.
    pub(super) b: &'a [u8],
    /// `[groups, PANEL]`
    pub(super) b_scales: &'a [f32],
    /// `[rows, PANEL]`, overwritten.
    pub(super) c: &'a mut [f32],
}

impl Int8Operands<'_> {
    /// Computes a tile, in pieces of as many rows as the registers hold.
    pub(super) fn product(self, instructions: Instructions) {
        let Self { a, a_scales, starts, b, b_scales, c } = self;
        let groups = b.len() / GROUP_BYTES;
        let rows = c.len() / PANEL;
        assert!(b.len() == groups * GROUP_BYTES && c.len() == rows * PANEL, "whole groups and rows");
        assert!(a.len() == rows * groups * GROUP && b_scales.len() == groups * PANEL, "a panel for these rows");
        assert!(a_scales.len() == rows * groups && starts.len() == rows * groups, "a scale and a start for each group");
        let mut first = 0;
        while first < rows {
            let call = Call {
                groups,
                a: a[first * groups * GROUP..].as_ptr(),
                a_scales: a_scales[first * groups..].as_ptr(),
                starts: starts[first * groups..].as_ptr(),
                b: b.as_ptr(),
                b_scales: b_scales.as_ptr(),
                c: c[first * PANEL..].as_mut_ptr(),
            };
            // SAFETY: the assertions bound the ranges that `Call` describes for the rows from `first`, of which there
            // are at least as many as the piece takes; `Instructions::of_this_machine` and `available` return only
            // what the processor has.
            first += unsafe {
                match rows - first {
                    6.. => run::<6>(instructions, call),
                    4.. => run::<4>(instructions, call),
                    2.. => run::<2>(instructions, call),
                    _ => run::<1>(instructions, call),
                }
            };
        }
    }
}

/// Returns `ROWS`.
///
/// # Safety
/// As for [`Call`]; the processor has these instructions.
unsafe fn run<const ROWS: usize>(instructions: Instructions, call: Call) -> usize {
    match instructions {
        // SAFETY: the caller promises it.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512Vnni => unsafe { avx512::<ROWS>(call) },
        // SAFETY: the caller promises it.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512 | Instructions::Avx2 => unsafe { avx2::<ROWS>(call) },
        // SAFETY: the caller promises it.
        _ => unsafe { plain::<ROWS>(call) },
    }
    ROWS
}

/// A checked call: `ROWS` rows of the operands that [`Int8Operands`] describes; nothing else reads or writes these rows
/// of `c`.
struct Call {
    groups: usize,
    a: *const i8,
    a_scales: *const f32,
    starts: *const i32,
    b: *const u8,
    b_scales: *const f32,
    c: *mut f32,
}

/// # Safety
/// As for [`Call`].
unsafe fn plain<const ROWS: usize>(call: Call) {
    let Call { groups, a, a_scales, starts, b, b_scales, c } = call;
    for i in 0..ROWS {
        for j in 0..PANEL {
            // SAFETY: i, j, g and k stay below the sizes that `Call` promises.
            unsafe {
                *c.add(i * PANEL + j) = (0..groups).fold(0.0, |sum, g| {
                    let term = |k: usize| {
                        let a = *a.add((i * groups + g) * GROUP + k);
                        let b = *b.add(g * GROUP_BYTES + (k / QUAD * PANEL + j) * QUAD + k % QUAD);
                        i32::from(a) * i32::from(b)
                    };
                    let whole = *starts.add(i * groups + g) + (0..GROUP).map(term).sum::<i32>();
                    let scale = *a_scales.add(i * groups + g) * *b_scales.add(g * PANEL + j);
                    scale.mul_add(whole as f32, sum)
                });
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// # Safety
/// As for [`Call`]; the processor has AVX-512F and VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512<const ROWS: usize>(call: Call) {
    let Call { groups, a, a_scales, starts, b, b_scales, c } = call;
    // SAFETY: i, g and the quad stay below the sizes that `Call` promises; loads and stores need no alignment.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for g in 0..groups {
            let b = b.add(g * GROUP_BYTES);
            let mut whole = [[_mm512_setzero_si512(); 2]; ROWS];
            for (i, whole) in whole.iter_mut().enumerate() {
                *whole = [_mm512_set1_epi32(*starts.add(i * groups + g)); 2];
            }
            for quad in 0..GROUP / QUAD {
                let b = b.add(quad * PANEL * QUAD);
                let b = [_mm512_loadu_si512(b.cast()), _mm512_loadu_si512(b.add(64).cast())];
                for (i, whole) in whole.iter_mut().enumerate() {
                    let a = a.add((i * groups + g) * GROUP + quad * QUAD);
                    let a = _mm512_set1_epi32(a.cast::<i32>().read_unaligned());
                    *whole = [_mm512_dpbusd_epi32(whole[0], b[0], a), _mm512_dpbusd_epi32(whole[1], b[1], a)];
                }
            }
            let b_scales = b_scales.add(g * PANEL);
            let b_scales = [_mm512_loadu_ps(b_scales), _mm512_loadu_ps(b_scales.add(16))];
            for (i, (sums, whole)) in sums.iter_mut().zip(whole).enumerate() {
                let a_scale = _mm512_set1_ps(*a_scales.add(i * groups + g));
                for (sum, (whole, b_scale)) in sums.iter_mut().zip(whole.into_iter().zip(b_scales)) {
                    let scale = _mm512_mul_ps(a_scale, b_scale);
                    *sum = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(whole), *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * PANEL), sums[0]);
            _mm512_storeu_ps(c.add(i * PANEL + 16), sums[1]);
        }
    }
}

/// Eight columns at a time. AVX2's own product of bytes saturates at 16 bits, so bytes are widened to 16 bits first,
/// and pairs of them multiplied and added exactly.
///
/// # Safety
/// As for [`Call`]; the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize>(call: Call) {
    let Call { groups, a, a_scales, starts, b, b_scales, c } = call;
    for first in (0..PANEL).step_by(8) {
        // SAFETY: i, g, the quad and the column stay below the sizes that `Call` promises; loads and stores need no
        // alignment.
        unsafe {
            let mut sums = [_mm256_setzero_ps(); ROWS];
            for g in 0..groups {
                let b = b.add(g * GROUP_BYTES + first * QUAD);
                let mut pairs = [[_mm256_setzero_si256(); 2]; ROWS]; // two sums for each of four columns
                for quad in 0..GROUP / QUAD {
                    let b = b.add(quad * PANEL * QUAD);
                    let b = [
                        _mm256_cvtepu8_epi16(_mm_loadu_si128(b.cast())),
                        _mm256_cvtepu8_epi16(_mm_loadu_si128(b.add(16).cast())),
                    ];
                    for (i, pairs) in pairs.iter_mut().enumerate() {
                        let a = a.add((i * groups + g) * GROUP + quad * QUAD);
                        let a = _mm256_cvtepi8_epi16(_mm_set1_epi32(a.cast::<i32>().read_unaligned()));
                        for (pairs, b) in pairs.iter_mut().zip(b) {
                            *pairs = _mm256_add_epi32(*pairs, _mm256_madd_epi16(a, b));
                        }
                    }
                }
                let b_scale = _mm256_loadu_ps(b_scales.add(g * PANEL + first));
                for (i, (sum, pairs)) in sums.iter_mut().zip(pairs).enumerate() {
                    // Columns 0 1 4 5 2 3 6 7, reordered in halves of 64 bits.
                    let whole = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_hadd_epi32(pairs[0], pairs[1]));
                    let whole = _mm256_add_epi32(whole, _mm256_set1_epi32(*starts.add(i * groups + g)));
                    let scale = _mm256_mul_ps(_mm256_set1_ps(*a_scales.add(i * groups + g)), b_scale);
                    *sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(whole), *sum);
                }
            }
            for (i, sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(c.add(i * PANEL + first), *sum);
            }
        }
    }
}
