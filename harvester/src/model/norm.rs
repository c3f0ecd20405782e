//! [`Norm`]: the norm before attention, before the MLP and before the head; in some families also of the outputs of
//! attention and MLP.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor, bail};
use candle_nn::ops;
use rayon::prelude::*;

use super::NormKind;
use crate::{
    Result,
    numbers::simd::{Kernel, wide},
};

/// ```text
/// rms:    y = x / sqrt(mean(x^2) + eps) * weight
/// layer:  y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias
/// ```
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    kind: NormKind,
    /// `[d_model]`; for Gemma, which stores it minus 1, the 1 was added on load.
    weight: Tensor,
    /// `[d_model]`; zeros for `rms`, which has no bias.
    bias: Tensor,
    eps: f64,
}

impl Norm {
    pub(crate) fn new(kind: NormKind, weight: Tensor, bias: Option<Tensor>, eps: f64) -> Result<Self> {
        let bias = match bias {
            Some(bias) => bias,
            None => weight.zeros_like()?,
        };
        Ok(Self { kind, weight, bias, eps })
    }

    /// # Shapes
    /// `x`: `[rows, d_model]` -> the same
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let eps = self.eps as f32;
        Ok(match self.kind {
            NormKind::Rms if matches!(x.device(), Device::Cpu) => {
                x.contiguous()?.apply_op2_no_bwd(&self.weight, &Rms { eps })?
            }
            NormKind::Rms => ops::rms_norm(&x.contiguous()?, &self.weight, eps)?,
            NormKind::Layer => ops::layer_norm(&x.contiguous()?, &self.weight, &self.bias, eps)?,
        })
    }

    /// Directions after the norm but without its scale, which depends on what else a row holds.
    ///
    /// # Shapes
    /// `directions`: `[rows, d_model]` -> the same
    pub(crate) fn directions(&self, directions: &Tensor) -> Result<Tensor> {
        let directions = match self.kind {
            NormKind::Rms => directions.clone(),
            NormKind::Layer => directions.broadcast_sub(&directions.mean_keepdim(1)?)?,
        };
        Ok(directions.broadcast_mul(&self.weight)?)
    }
}

/// candle's `rms_norm` adds a row's squares one after the other, each waiting for the previous one: 2 % of a pass.
struct Rms {
    eps: f32,
}

/// One token.
struct RmsRow<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    y: &'a mut [f32],
    eps: f32,
}

impl Kernel for RmsRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        // Separate lanes, because the compiler must not reorder a floating-point sum.
        let mut lanes = [0f32; 32];
        let (chunks, rest) = self.x.as_chunks::<32>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = x.mul_add(*x, *lane);
            }
        }
        let squares = lanes.iter().sum::<f32>() + rest.iter().map(|x| x * x).sum::<f32>();
        let scale = 1.0 / (squares / self.x.len() as f32 + self.eps).sqrt();
        for ((y, x), weight) in self.y.iter_mut().zip(self.x).zip(self.weight) {
            *y = x * scale * weight;
        }
    }
}

impl CustomOp2 for Rms {
    fn name(&self) -> &'static str {
        "rms"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(x), CpuStorage::F32(weight)) = (x, weight) else { bail!("rms needs f32") };
        let (Some(x_range), Some(range)) = (x_layout.contiguous_offsets(), weight_layout.contiguous_offsets()) else {
            bail!("rms needs contiguous tensors")
        };
        let (x, weight) = (&x[x_range.0..x_range.1], &weight[range.0..range.1]);
        if x_layout.shape().dims().last() != Some(&weight.len()) {
            bail!("rms of {:?} with {} weights", x_layout.shape(), weight.len());
        }
        let mut y = vec![0f32; x.len()];
        let rows = y.par_chunks_mut(weight.len()).zip(x.par_chunks(weight.len()));
        rows.for_each(|(y, x)| wide(RmsRow { x, weight, y, eps: self.eps }));
        Ok((CpuStorage::F32(y), x_layout.shape().clone()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rms_equals_the_formula_in_f64() {
        for width in [1, 31, 64, 577] {
            let x = Tensor::randn(0f32, 3., (10, width), &Device::Cpu).unwrap();
            let weight = Tensor::randn(1f32, 0.5, width, &Device::Cpu).unwrap();
            let norm = Norm::new(NormKind::Rms, weight.clone(), None, 1e-5).unwrap();
            let values = |x: &Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let (got, weight) = (values(&norm.forward(&x).unwrap()), values(&weight));
            for (x, got) in values(&x).chunks(width).zip(got.chunks(width)) {
                let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
                let scale = (squares / width as f64 + 1e-5).sqrt().recip();
                for ((x, weight), got) in x.iter().zip(&weight).zip(got) {
                    let want = f64::from(*x) * scale * f64::from(*weight);
                    // Three roundings of the product, and those of a sum of squares.
                    assert!((f64::from(*got) - want).abs() <= 1e-6 * want.abs(), "{got}, {want}");
                }
            }
            assert!(norm.forward(&x.repeat((1, 2)).unwrap()).is_err());
        }
    }
}
