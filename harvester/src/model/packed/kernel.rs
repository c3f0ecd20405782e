//! [`Operands::product`]: the inner loop of a product by a packed matrix, once for each instruction set, and the plain
//! loop that defines the result of all of them:
//!
//! ```text
//! c[i][j] = a[i][0] b[0][j] + a[i][1] b[1][j] + ..        fused multiply-adds, in this order
//! ```
//!
//! The order is part of the contract. An element's sum does not depend on the tile it falls into, so a batch row equals
//! a single row, and one machine equals another, bit for bit.

use crate::numbers::simd::Instructions;

/// Columns of a panel: two AVX-512 registers, or four of AVX2.
pub(crate) const PANEL: usize = 32;

/// Rows of the largest tile: 12 x 32 sums and a row of the panel fill 26 of AVX-512's 32 registers.
pub(crate) const MAX_ROWS: usize = 12;

/// The operands of a tile: `c = a b`, or `c += a b` if the tile already holds the product of earlier columns of `a`.
pub(crate) struct Operands<'a> {
    /// `[rows, k]`, its rows `a_row` values apart.
    pub(crate) a: &'a [f32],
    pub(crate) a_row: usize,
    /// `[k, PANEL]`
    pub(crate) b: &'a [f32],
    /// `[rows, PANEL]`, its rows `c_row` values apart.
    pub(crate) c: &'a mut [f32],
    pub(crate) c_row: usize,
    /// True if the product is added to `c`; else `c` is overwritten.
    pub(crate) add: bool,
}

/// Rows of the next tile, with `left` rows left: the largest number that a loop below is compiled for.
pub(crate) fn tile_rows(left: usize) -> usize {
    [MAX_ROWS, 8, 4, 2, 1].into_iter().find(|rows| *rows <= left).unwrap_or(0)
}

impl Operands<'_> {
    /// Computes a tile.
    ///
    /// # Shapes
    /// `rows` is a number that [`tile_rows`] returns.
    pub(crate) fn product(self, instructions: Instructions, rows: usize) {
        let Self { a, a_row, b, c, c_row, add } = self;
        let k = b.len() / PANEL;
        assert!(b.len() == k * PANEL && a.len() >= (rows - 1) * a_row + k, "operands of a tile's sizes");
        assert!(c.len() >= (rows - 1) * c_row + PANEL, "room for the tile");
        let call = Call { k, a: a.as_ptr(), a_row, b: b.as_ptr(), c: c.as_mut_ptr(), c_row, add };
        // SAFETY: the assertions above bound the ranges that `Call` describes, and `Instructions::of_this_machine` and
        // `available` return only what the processor has.
        unsafe {
            match rows {
                12 => run::<12>(instructions, call),
                8 => run::<8>(instructions, call),
                4 => run::<4>(instructions, call),
                2 => run::<2>(instructions, call),
                1 => run::<1>(instructions, call),
                _ => unreachable!("tile_rows gives no tile of {rows} rows"),
            }
        }
    }
}

/// # Safety
/// As for [`Call`]; the processor has these instructions.
unsafe fn run<const ROWS: usize>(instructions: Instructions, call: Call) {
    match instructions {
        // SAFETY: the caller promises it.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx512Vnni | Instructions::Avx512 => unsafe { avx512::<ROWS>(call) },
        // SAFETY: the caller promises it.
        #[cfg(target_arch = "x86_64")]
        Instructions::Avx2 => unsafe { avx2::<ROWS>(call) },
        // SAFETY: the caller promises it.
        _ => unsafe { plain::<ROWS>(call) },
    }
}

/// A checked call: `a` points to `ROWS` rows of `k` values, `a_row` apart, `b` to `k * PANEL` values, and `c` to `ROWS`
/// rows of `PANEL`, `c_row` apart, that nothing else reads or writes.
struct Call {
    k: usize,
    a: *const f32,
    a_row: usize,
    b: *const f32,
    c: *mut f32,
    c_row: usize,
    add: bool,
}

/// The tile in pieces of four rows (or fewer) by half a panel: compiled to vectors, this is what 32 registers of four
/// values hold.
///
/// # Safety
/// As for [`Call`].
unsafe fn plain<const ROWS: usize>(call: Call) {
    let Call { k, a, a_row, b, c, c_row, add } = call;
    for half in [0, PANEL / 2] {
        let mut first = 0;
        while first < ROWS {
            // SAFETY: `first` and what a piece takes stay below ROWS, and `half + 16` within the panel.
            unsafe {
                let (a, b, c) = (a.add(first * a_row), b.add(half), c.add(first * c_row + half));
                let call = Call { k, a, a_row, b, c, c_row, add };
                first += match ROWS - first {
                    4.. => plain_piece::<4>(call),
                    2.. => plain_piece::<2>(call),
                    _ => plain_piece::<1>(call),
                };
            }
        }
    }
}

/// `PIECE` rows of a tile by 16 columns. Returns `PIECE`.
///
/// # Safety
/// As for [`Call`], but with `PIECE` rows and 16 columns from its pointers on.
unsafe fn plain_piece<const PIECE: usize>(call: Call) -> usize {
    let Call { k, a, a_row, b, c, c_row, add } = call;
    // SAFETY: i and p stay below the sizes that the caller promises.
    unsafe {
        let row = |i: usize| c.add(i * c_row).cast::<[f32; PANEL / 2]>();
        let mut sums = [[0f32; PANEL / 2]; PIECE];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = row(i).read();
            }
        }
        for p in 0..k {
            let b = b.add(p * PANEL).cast::<[f32; PANEL / 2]>().read();
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = *a.add(i * a_row + p);
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = a.mul_add(b, *sum);
                }
            }
        }
        for (i, sums) in sums.into_iter().enumerate() {
            row(i).write(sums);
        }
    }
    PIECE
}

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

/// # Safety
/// As for [`Call`]; the processor has AVX-512F.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const ROWS: usize>(call: Call) {
    let Call { k, a, a_row, b, c, c_row, add } = call;
    // SAFETY: i and p stay below the sizes that `Call` promises; loads and stores need no alignment.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm512_loadu_ps(c.add(i * c_row)), _mm512_loadu_ps(c.add(i * c_row + 16))];
            }
        }
        for p in 0..k {
            let b = [_mm512_loadu_ps(b.add(p * PANEL)), _mm512_loadu_ps(b.add(p * PANEL + 16))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*a.add(i * a_row + p));
                *sums = [_mm512_fmadd_ps(a, b[0], sums[0]), _mm512_fmadd_ps(a, b[1], sums[1])];
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * c_row), sums[0]);
            _mm512_storeu_ps(c.add(i * c_row + 16), sums[1]);
        }
    }
}

/// The tile in pieces of six rows (or fewer) by half a panel: what 16 registers hold.
///
/// # Safety
/// As for [`Call`]; the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize>(call: Call) {
    let Call { k, a, a_row, b, c, c_row, add } = call;
    for half in [0, PANEL / 2] {
        let mut first = 0;
        while first < ROWS {
            // SAFETY: `first` and what a piece takes stay below ROWS, and `half + 16` within the panel.
            unsafe {
                let (a, b, c) = (a.add(first * a_row), b.add(half), c.add(first * c_row + half));
                let call = Call { k, a, a_row, b, c, c_row, add };
                first += match ROWS - first {
                    6.. => avx2_piece::<6>(call),
                    4.. => avx2_piece::<4>(call),
                    2.. => avx2_piece::<2>(call),
                    _ => avx2_piece::<1>(call),
                };
            }
        }
    }
}

/// `PIECE` rows of a tile by 16 columns. Returns `PIECE`.
///
/// # Safety
/// As for [`Call`], but with `PIECE` rows and 16 columns from its pointers on; the processor has AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2_piece<const PIECE: usize>(call: Call) -> usize {
    let Call { k, a, a_row, b, c, c_row, add } = call;
    // SAFETY: i and p stay below the sizes that the caller promises; loads and stores need no alignment.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); 2]; PIECE];
        if add {
            for (i, sums) in sums.iter_mut().enumerate() {
                *sums = [_mm256_loadu_ps(c.add(i * c_row)), _mm256_loadu_ps(c.add(i * c_row + 8))];
            }
        }
        for p in 0..k {
            let b = [_mm256_loadu_ps(b.add(p * PANEL)), _mm256_loadu_ps(b.add(p * PANEL + 8))];
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_set1_ps(*a.add(i * a_row + p));
                *sums = [_mm256_fmadd_ps(a, b[0], sums[0]), _mm256_fmadd_ps(a, b[1], sums[1])];
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            _mm256_storeu_ps(c.add(i * c_row), sums[0]);
            _mm256_storeu_ps(c.add(i * c_row + 8), sums[1]);
        }
    }
    PIECE
}
