//! The middle of an MLP, `act(x)` or `act(gate) * value`, as vector instructions.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, bail};
use rayon::prelude::*;

use super::Activation;
use crate::numbers::simd::{Kernel, exp, wide};

/// `x * sigmoid(x)`
#[inline(always)]
fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// `x / 2 * (1 + tanh(u))`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`: the same as `x * sigmoid(2u)`, without the `tanh`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// 2 sqrt(2 / pi)
    const SCALE: f32 = 1.595_769;
    x / (1.0 + exp(-SCALE * (x + 0.044_715 * x * x * x)))
}

/// `x / 2 * (1 + erf(x / sqrt(2)))`, the exact GELU.
#[inline(always)]
fn gelu(x: f32) -> f32 {
    0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// `erf(x)` to 4.2e-7, without branches: the quotient of polynomials used in Eigen and XLA, on `[-4, 4]`, outside of
/// which `erf` is 1 or -1 in f32.
#[inline(always)]
fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let z = x * x;
    let mut p = -2.726_142_3e-10_f32;
    p = p.mul_add(z, 2.770_681_4e-8);
    p = p.mul_add(z, -2.101_024e-6);
    p = p.mul_add(z, -5.692_506_4e-5);
    p = p.mul_add(z, -7.349_906_4e-4);
    p = p.mul_add(z, -2.954_6e-3);
    p = p.mul_add(z, -1.609_603_3e-2);
    let mut q = -1.456_607_2e-5_f32;
    q = q.mul_add(z, -2.133_740_5e-4);
    q = q.mul_add(z, -1.682_827e-3);
    q = q.mul_add(z, -7.373_329e-3);
    q = q.mul_add(z, -1.426_473_9e-2);
    x * p / q
}

/// Values to which an activation is applied in place.
pub(crate) trait InPlace {
    /// Must be `#[inline(always)]`, like a [`Kernel`]'s loop.
    fn each(self, act: impl Fn(f32) -> f32);
}

impl InPlace for &mut [f32] {
    #[inline(always)]
    fn each(self, act: impl Fn(f32) -> f32) {
        for value in self {
            *value = act(*value);
        }
    }
}

/// Rows of `GATES` gates and the values they gate; the products replace the gates.
impl<const GATES: usize> InPlace for &mut [[[f32; GATES]; 2]] {
    #[inline(always)]
    fn each(self, act: impl Fn(f32) -> f32) {
        for [gates, values] in self {
            for (gate, value) in gates.iter_mut().zip(values) {
                *gate = act(*gate) * *value;
            }
        }
    }
}

/// The loop that applies an activation to some values.
pub(crate) struct Activate<V> {
    pub(crate) values: V,
    pub(crate) activation: Activation,
}

impl<V: InPlace> Kernel for Activate<V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.activation {
            Activation::Silu => self.values.each(silu),
            Activation::Gelu => self.values.each(gelu),
            Activation::GeluTanh => self.values.each(gelu_tanh),
        }
    }
}

/// `[rows, 2 * d_mlp]`, gates before values -> `[rows, d_mlp]`: for products that did not apply the gate themselves.
pub(super) struct Gate(pub(super) Activation);

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(hidden) = storage else { bail!("gate needs f32") };
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("gate needs a contiguous tensor") };
        let (rows, both) = layout.shape().dims2()?;
        let d_mlp = both / 2;
        let mut post = vec![0f32; rows * d_mlp];
        post.par_chunks_mut(d_mlp).zip(hidden[from..to].par_chunks(both)).for_each(|(post, hidden)| {
            let (gates, values) = hidden.split_at(d_mlp);
            post.copy_from_slice(gates);
            wide(Activate { values: &mut *post, activation: self.0 });
            post.iter_mut().zip(values).for_each(|(post, value)| *post *= value);
        });
        Ok((CpuStorage::F32(post), Shape::from((rows, d_mlp))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_that_of_candle() {
        for step in -60_000..60_000 {
            let x = step as f32 * 1e-4;
            let want = candle_core::cpu::erf::erf_f64(f64::from(x));
            assert!((f64::from(erf(x)) - want).abs() < 5e-7, "erf({x}) = {}, not {want}", erf(x));
        }
    }
}
