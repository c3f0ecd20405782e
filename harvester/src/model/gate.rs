//! [`Gating`]: `act(gate) * value`, the middle of a gated MLP, in one pass over both.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, bail};
use rayon::prelude::*;

use super::{
    Activation,
    simd::{Kernel, exp, wide},
};

/// The activations that gate in one pass: vector instructions compute them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gating {
    Silu,
    GeluTanh,
}

impl Gating {
    pub(crate) fn of(activation: Activation) -> Option<Self> {
        match activation {
            Activation::Silu => Some(Self::Silu),
            Activation::GeluTanh => Some(Self::GeluTanh),
            Activation::Gelu => None,
        }
    }
}

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

/// Rows of `GATES` gates and the values they gate: the products take the gates' places.
pub(crate) struct GateRows<'a, const GATES: usize> {
    pub(crate) rows: &'a mut [[[f32; GATES]; 2]],
    pub(crate) gating: Gating,
}

impl<const GATES: usize> GateRows<'_, GATES> {
    #[inline(always)]
    fn each(self, act: impl Fn(f32) -> f32) {
        for [gates, values] in self.rows {
            for (gate, value) in gates.iter_mut().zip(values) {
                *gate = act(*gate) * *value;
            }
        }
    }
}

impl<const GATES: usize> Kernel for GateRows<'_, GATES> {
    #[inline(always)]
    fn run(self) {
        match self.gating {
            Gating::Silu => self.each(silu),
            Gating::GeluTanh => self.each(gelu_tanh),
        }
    }
}

/// One token's gates and values, and where the products go.
struct GateToken<'a> {
    gates: &'a [f32],
    values: &'a [f32],
    post: &'a mut [f32],
    gating: Gating,
}

impl GateToken<'_> {
    #[inline(always)]
    fn each(self, act: impl Fn(f32) -> f32) {
        for ((post, gate), value) in self.post.iter_mut().zip(self.gates).zip(self.values) {
            *post = act(*gate) * value;
        }
    }
}

impl Kernel for GateToken<'_> {
    #[inline(always)]
    fn run(self) {
        match self.gating {
            Gating::Silu => self.each(silu),
            Gating::GeluTanh => self.each(gelu_tanh),
        }
    }
}

/// `[batch, pos, 2 * d_mlp]`, gates before values -> `[batch, pos, d_mlp]`: for products that did not gate on the way.
impl CustomOp1 for Gating {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(hidden) = storage else { bail!("gate needs f32") };
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("gate needs a contiguous tensor") };
        let (batch, pos, both) = layout.shape().dims3()?;
        let d_mlp = both / 2;
        let mut post = vec![0f32; batch * pos * d_mlp];
        post.par_chunks_mut(d_mlp).zip(hidden[from..to].par_chunks(both)).for_each(|(post, hidden)| {
            let (gates, values) = hidden.split_at(d_mlp);
            wide(GateToken { gates, values, post, gating: *self });
        });
        Ok((CpuStorage::F32(post), Shape::from((batch, pos, d_mlp))))
    }
}
