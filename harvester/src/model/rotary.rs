//! [`Rotary`]: positions as rotations of queries and keys.
//!
//! With `half = rotary_dim / 2`, position `p` and `angle_i = p / base^(i / half)`:
//! ```text
//! x'[i]        = x[i] cos(angle_i) - x[i + half] sin(angle_i)
//! x'[i + half] = x[i] sin(angle_i) + x[i + half] cos(angle_i)         for i < half; the other dimensions stay
//! ```

use candle_core::{CpuStorage, Device, InplaceOp1, Layout, Tensor, bail};
use rayon::prelude::*;

use super::simd::{Kernel, wide};
use crate::Result;

/// Cosines and sines of every position.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    rotary_dim: usize,
    /// `[ctx_len, rotary_dim / 2]`, row-major.
    cos: Vec<f32>,
    /// `[ctx_len, rotary_dim / 2]`, row-major.
    sin: Vec<f32>,
}

impl Rotary {
    pub(crate) fn new(base: f64, rotary_dim: usize, ctx_len: usize) -> Self {
        let half = rotary_dim / 2;
        // Frequencies are rounded to f32 first, as Hugging Face transformers does: the angle at position 8,000
        // differs by more than 1e-4 otherwise.
        let frequencies: Vec<f32> = (0..half).map(|i| (1.0 / base.powf(i as f64 / half as f64)) as f32).collect();
        let angles = || (0..ctx_len).flat_map(|pos| frequencies.iter().map(move |f| pos as f32 * f));
        Self { rotary_dim, cos: angles().map(f32::cos).collect(), sin: angles().map(f32::sin).collect() }
    }

    /// Rotates the first `n_rotated` heads of every token, in place where the device is the CPU.
    ///
    /// # Shapes
    /// `x`: `[batch, pos, heads, d_head]`, contiguous and not shared; token `t` of a row is at position `start + t`
    pub(crate) fn apply(&self, x: Tensor, n_rotated: usize, start: usize) -> Result<Tensor> {
        if matches!(x.device(), Device::Cpu) {
            x.inplace_op1(&RotateHeads { rotary: self, n_rotated, start })?;
            return Ok(x);
        }
        self.apply_plain(&x, n_rotated, start)
    }

    /// The same with plain tensor operations: other devices, and the reference of the tests.
    fn apply_plain(&self, x: &Tensor, n_rotated: usize, start: usize) -> Result<Tensor> {
        let (_, pos, heads, d_head) = x.dims4()?;
        let half = self.rotary_dim / 2;
        let table = |values: &[f32]| {
            let rows = values[start * half..(start + pos) * half].to_vec();
            Tensor::from_vec(rows, (1, pos, 1, half), x.device())
        };
        let (cos, sin) = (table(&self.cos)?, table(&self.sin)?);
        let rotated = x.narrow(2, 0, n_rotated)?;
        let (a, b) = (rotated.narrow(3, 0, half)?, rotated.narrow(3, half, half)?);
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (a.broadcast_mul(&sin)? + b.broadcast_mul(&cos)?)?;
        let rest = rotated.narrow(3, self.rotary_dim, d_head - self.rotary_dim)?;
        let rotated = Tensor::cat(&[&first, &second, &rest], 3)?; // [batch, pos, n_rotated, d_head]
        Ok(Tensor::cat(&[&rotated, &x.narrow(2, n_rotated, heads - n_rotated)?], 2)?)
    }
}

struct RotateHeads<'a> {
    rotary: &'a Rotary,
    n_rotated: usize,
    start: usize,
}

impl RotateHeads<'_> {
    /// Rotates one head of one token.
    #[inline(always)]
    fn rotate(&self, head: &mut [f32], pos: usize) {
        let half = self.rotary.rotary_dim / 2;
        let cos = &self.rotary.cos[pos * half..][..half];
        let sin = &self.rotary.sin[pos * half..][..half];
        let (first, rest) = head.split_at_mut(half);
        for (((a, b), cos), sin) in first.iter_mut().zip(&mut rest[..half]).zip(cos).zip(sin) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

/// Rotates the heads of one token.
struct RotateToken<'a> {
    op: &'a RotateHeads<'a>,
    heads: &'a mut [f32],
    pos: usize,
    d_head: usize,
}

impl Kernel for RotateToken<'_> {
    #[inline(always)]
    fn run(self) {
        for head in self.heads.chunks_exact_mut(self.d_head) {
            self.op.rotate(head, self.pos);
        }
    }
}

impl InplaceOp1 for RotateHeads<'_> {
    fn name(&self) -> &'static str {
        "rotate-heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (_, pos, heads, d_head) = layout.shape().dims4()?;
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("rotate-heads needs a contiguous tensor") };
        let CpuStorage::F32(values) = storage else { bail!("rotate-heads needs f32") };
        values[from..to].par_chunks_mut(heads * d_head).enumerate().for_each(|(token, row)| {
            wide(RotateToken {
                op: self,
                heads: &mut row[..self.n_rotated * d_head],
                pos: self.start + token % pos,
                d_head,
            });
        });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn in_place_rotation_equals_plain_tensor_operations() {
        let rotary = Rotary::new(10_000.0, 6, 32);
        let x = Tensor::randn(0f32, 1., (2, 5, 4, 8), &Device::Cpu).unwrap();
        let want = rotary.apply_plain(&x, 3, 7).unwrap();
        let got = rotary.apply(x.copy().unwrap(), 3, 7).unwrap();
        let diff = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(diff < 1e-6, "{diff}");
    }

    #[test]
    fn a_quarter_turn_is_a_quarter_turn() {
        // rotary_dim 2 has one frequency, 1: position p turns by p radians.
        let rotary = Rotary::new(10_000.0, 2, 4);
        let x = Tensor::new(&[[[[1f32, 0.]], [[1., 0.]]]], &Device::Cpu).unwrap();
        let y = rotary.apply(x, 1, 1).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (got, want) in y.iter().zip([1f32.cos(), 1f32.sin(), 2f32.cos(), 2f32.sin()]) {
            assert!((got - want).abs() < 1e-7);
        }
    }
}
