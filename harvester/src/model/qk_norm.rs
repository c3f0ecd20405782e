//! [`QkNormWeights`]: the norm of queries and keys that some families apply before rotating them.
//!
//! ```text
//! q = q / sqrt(mean(q^2) + eps) * weight_q        the same for k; values stay unchanged
//! ```
//! The mean is over one head (Qwen 3, Gemma 3) or over all heads of a token (OLMo 2): over as many values as the weight
//! has.

use candle_core::{CpuStorage, D, Device, InplaceOp1, Layout, Tensor, bail};
use candle_nn::ops;
use rayon::prelude::*;

use crate::{
    Result,
    numbers::simd::{Kernel, wide},
};

/// The two weights of one attention layer.
#[derive(Debug, Clone)]
pub(crate) struct QkNormWeights {
    /// `[d_head]` or `[n_heads * d_head]`
    pub(crate) q: Tensor,
    /// `[d_head]` or `[n_kv_heads * d_head]`
    pub(crate) k: Tensor,
    pub(crate) eps: f64,
}

impl QkNormWeights {
    /// Normalizes the first `n_heads` heads of every token as queries and the next `n_kv_heads` as keys, in place if
    /// the device is the CPU.
    ///
    /// # Shapes
    /// `qkv`: `[rows, n_heads + 2 n_kv_heads, d_head]`, contiguous and not shared
    pub(crate) fn apply(&self, qkv: Tensor, n_heads: usize, n_kv_heads: usize) -> Result<Tensor> {
        if !matches!(qkv.device(), Device::Cpu) {
            return self.apply_plain(&qkv, n_heads, n_kv_heads);
        }
        let d_head = qkv.dim(D::Minus1)?;
        let (q, k) = (self.q.to_vec1::<f32>()?, self.k.to_vec1::<f32>()?);
        let widths = (n_heads * d_head, n_kv_heads * d_head);
        qkv.inplace_op1(&NormHeads { q: &q, k: &k, widths, eps: self.eps as f32 })?;
        Ok(qkv)
    }

    /// The same with plain tensor operations: for other devices, and as the reference of the tests.
    fn apply_plain(&self, qkv: &Tensor, n_heads: usize, n_kv_heads: usize) -> Result<Tensor> {
        let normed = |first, heads, weight: &Tensor| -> Result<Tensor> {
            let x = qkv.narrow(1, first, heads)?.contiguous()?; // [rows, heads, d_head]
            let groups = x.reshape((x.dim(0)?, (), weight.dim(0)?))?;
            Ok(ops::rms_norm(&groups, weight, self.eps as f32)?.reshape(x.shape())?)
        };
        let q = normed(0, n_heads, &self.q)?;
        let k = normed(n_heads, n_kv_heads, &self.k)?;
        Ok(Tensor::cat(&[&q, &k, &qkv.narrow(1, n_heads + n_kv_heads, n_kv_heads)?], 1)?)
    }
}

struct NormHeads<'a> {
    q: &'a [f32],
    k: &'a [f32],
    /// Number of values of a token's queries, and of its keys.
    widths: (usize, usize),
    eps: f32,
}

/// Normalizes groups of `weight.len()` values.
struct NormGroups<'a> {
    groups: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for NormGroups<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for group in self.groups.chunks_exact_mut(self.weight.len()) {
            // Separate lanes, because the compiler must not reorder a floating-point reduction.
            let mut lanes = [0f32; 16];
            for chunk in group.chunks(16) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    *lane += x * x;
                }
            }
            let mean = lanes.iter().sum::<f32>() / group.len() as f32;
            let inverse = 1.0 / (mean + self.eps).sqrt();
            for (x, weight) in group.iter_mut().zip(self.weight) {
                *x = *x * inverse * weight;
            }
        }
    }
}

impl InplaceOp1 for NormHeads<'_> {
    fn name(&self) -> &'static str {
        "norm-heads"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (_, heads, d_head) = layout.shape().dims3()?;
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("norm-heads needs a contiguous tensor") };
        let CpuStorage::F32(values) = storage else { bail!("norm-heads needs f32") };
        let (q_width, k_width) = self.widths;
        values[from..to].par_chunks_mut(heads * d_head).for_each(|token| {
            let (q, rest) = token.split_at_mut(q_width);
            wide(NormGroups { groups: q, weight: self.q, eps: self.eps });
            wide(NormGroups { groups: &mut rest[..k_width], weight: self.k, eps: self.eps });
        });
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn in_place_norm_equals_plain_tensor_operations() {
        let (n_heads, n_kv_heads, d_head) = (6, 2, 20);
        let x = Tensor::randn(0f32, 3., (10, n_heads + 2 * n_kv_heads, d_head), &Device::Cpu).unwrap();
        for (q_width, k_width) in [(d_head, d_head), (n_heads * d_head, n_kv_heads * d_head)] {
            let weight = |width: usize| Tensor::randn(1f32, 0.3, width, &Device::Cpu).unwrap();
            let norm = QkNormWeights { q: weight(q_width), k: weight(k_width), eps: 0.02 };
            let want = norm.apply_plain(&x, n_heads, n_kv_heads).unwrap();
            let got = norm.apply(x.copy().unwrap(), n_heads, n_kv_heads).unwrap();
            let diff = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(diff < 2e-6, "{q_width}: {diff}");
        }
    }
}
