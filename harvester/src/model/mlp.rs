//! [`Mlp`]: the block's second half.
//!
//! ```text
//! gated:  post = act(x W_gate^T) * (x W_up^T)         plain:  post = act(x W_in^T + b_in)
//! out = post W_out^T + b_out
//! ```

use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use super::{
    Activation,
    linear::Linear,
    simd::{Kernel, exp, wide},
};
use crate::Result;

/// The weights of one MLP.
#[derive(Debug, Clone)]
pub(crate) struct Mlp {
    /// Gated: W_gate above W_up in one matrix, `[2 * d_mlp, d_model]`; plain: `[d_mlp, d_model]`.
    pub(crate) input: Linear,
    /// `[d_model, d_mlp]`
    pub(crate) out: Linear,
    pub(crate) activation: Activation,
    pub(crate) gated: bool,
}

impl Mlp {
    /// The hidden activations (`mlp.hook_post`).
    ///
    /// # Shapes
    /// `x`: `[batch, pos, d_model]` -> `[batch, pos, d_mlp]`
    pub(crate) fn post(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.input.forward(x)?;
        match (self.gated, self.activation) {
            (true, Activation::Silu | Activation::GeluTanh) if matches!(x.device(), Device::Cpu) => {
                Ok(hidden.apply_op1_no_bwd(&Gate(self.activation))?)
            }
            (true, activation) => gate_plain(&hidden, activation),
            (false, activation) => activate(&hidden, activation),
        }
    }

    /// What the MLP adds to the residual stream, from [`Mlp::post`].
    ///
    /// # Shapes
    /// `post`: `[batch, pos, d_mlp]` -> `[batch, pos, d_model]`
    pub(crate) fn project(&self, post: &Tensor) -> Result<Tensor> {
        self.out.forward(post)
    }
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Silu => x.silu()?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
    })
}

/// `act(gate) * up` with plain tensor operations. `hidden`: `[.., 2 * d_mlp]`, gate before up.
fn gate_plain(hidden: &Tensor, activation: Activation) -> Result<Tensor> {
    let halves = hidden.chunk(2, D::Minus1)?;
    Ok((activate(&halves[0].contiguous()?, activation)? * halves[1].contiguous()?)?)
}

/// `act(gate) * up` in one pass over `[.., 2 * d_mlp]`, gate before up; `act` is SiLU or GELU's tanh approximation.
struct Gate(Activation);

/// One token's `post = act(gate) * up`.
struct GateRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    post: &'a mut [f32],
    activation: Activation,
}

impl Kernel for GateRow<'_> {
    #[inline(always)]
    fn run(self) {
        let rows = self.post.iter_mut().zip(self.gate).zip(self.up);
        match self.activation {
            Activation::GeluTanh => {
                for ((post, &gate), &up) in rows {
                    *post = gelu_tanh(gate) * up;
                }
            }
            _ => {
                for ((post, &gate), &up) in rows {
                    *post = gate / (1.0 + exp(-gate)) * up;
                }
            }
        }
    }
}

/// `x / 2 * (1 + tanh(u))`, `u = sqrt(2 / pi) (x + 0.044715 x^3)`: the same as `x * sigmoid(2u)`, which needs no `tanh`.
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    /// 2 sqrt(2 / pi)
    const SCALE: f32 = 1.595_769;
    x / (1.0 + exp(-SCALE * (x + 0.044_715 * x * x * x)))
}

impl CustomOp1 for Gate {
    fn name(&self) -> &'static str {
        "gate"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(values) = storage else { bail!("gate needs f32") };
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("gate needs a contiguous tensor") };
        let (batch, pos, both) = layout.shape().dims3()?;
        let d_mlp = both / 2;
        let mut post = vec![0f32; batch * pos * d_mlp];
        post.par_chunks_mut(d_mlp).zip(values[from..to].par_chunks(both)).for_each(|(post, hidden)| {
            let (gate, up) = hidden.split_at(d_mlp);
            wide(GateRow { gate, up, post, activation: self.0 });
        });
        Ok((CpuStorage::F32(post), Shape::from((batch, pos, d_mlp))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn one_pass_gates_equal_plain_tensor_operations() {
        let hidden = Tensor::randn(0f32, 3., (2, 7, 46), &Device::Cpu).unwrap();
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let got = hidden.apply_op1_no_bwd(&Gate(activation)).unwrap();
            let want = gate_plain(&hidden, activation).unwrap();
            let diff = (got - want).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(diff < 5e-6, "{activation:?}: {diff}");
        }
    }
}
