//! [`Mlp`]: the second half of a block.
//!
//! ```text
//! gated:  post = act(x W_gate^T) * (x W_up^T)         plain:  post = act(x W_in^T + b_in)
//! out = post W_out^T + b_out
//! ```

use candle_core::{D, Device, Tensor};

use super::{Activation, Compute, activation::Gate, linear::Linear};
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
    /// Packs the matrices like [`Linear::pack`], with the activation inside the first product.
    pub(crate) fn pack(&mut self, compute: Compute) -> Result<()> {
        self.input.pack_activated(compute, self.activation, self.gated)?;
        self.out.pack(compute)
    }

    /// The hidden activations (`mlp.hook_post`).
    ///
    /// # Shapes
    /// `x`: `[rows, d_model]` -> `[rows, d_mlp]`
    pub(crate) fn post(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.input.forward(x)?;
        if self.input.activates() {
            return Ok(hidden);
        }
        match (self.gated, x.device()) {
            (true, Device::Cpu) => Ok(hidden.apply_op1_no_bwd(&Gate(self.activation))?),
            (true, _) => gate_plain(&hidden, self.activation),
            (false, _) => activate(&hidden, self.activation),
        }
    }
}

fn activate(x: &Tensor, activation: Activation) -> Result<Tensor> {
    Ok(match activation {
        Activation::Silu => x.silu()?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
    })
}

/// `act(gate) * value` with plain tensor operations. `hidden`: `[.., 2 * d_mlp]`, gates before values.
fn gate_plain(hidden: &Tensor, activation: Activation) -> Result<Tensor> {
    let halves = hidden.chunk(2, D::Minus1)?;
    Ok((activate(&halves[0].contiguous()?, activation)? * halves[1].contiguous()?)?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use candle_core::DType;

    use super::{super::packed::testing::values, *};

    /// A product of 12 columns and an activation in f32: a few units in the last place of the largest value.
    fn assert_close(got: &Tensor, want: &Tensor, what: &str) {
        let largest = |x: &Tensor| x.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
        let diff = largest(&(exact(got) - want).unwrap());
        assert!(diff < 1e-6 * largest(want), "{what}: {diff}");
    }

    fn exact(x: &Tensor) -> Tensor {
        x.to_dtype(DType::F64).unwrap()
    }

    #[test]
    fn activating_in_one_pass_and_inside_the_product_equal_plain_operations_in_f64() {
        // Numbers of columns that are a multiple of a panel, and that are not.
        for (d_mlp, gated) in [(32, true), (23, true), (32, false), (23, false)] {
            for activation in [Activation::Silu, Activation::GeluTanh, Activation::Gelu] {
                let tensor = |seed, shape: &[usize]| {
                    Tensor::from_vec(values(shape.iter().product(), seed), shape, &Device::Cpu).unwrap()
                };
                let rows = if gated { 2 * d_mlp } else { d_mlp };
                let (weight, bias, x) = (tensor(1, &[rows, 12]), tensor(2, &[rows]), tensor(3, &[14, 12]));
                let hidden = Linear::new(exact(&weight), Some(exact(&bias))).forward(&exact(&x)).unwrap();
                let (input, out) = (Linear::new(weight, Some(bias)), Linear::new(tensor(4, &[12, d_mlp]), None));
                let mut mlp = Mlp { input, out, activation, gated };
                let plain = if gated { gate_plain } else { activate };
                let want = plain(&hidden, activation).unwrap();
                assert_close(&mlp.post(&x).unwrap(), &want, "one pass");
                mlp.pack(Compute::F32).unwrap();
                assert_close(&mlp.post(&x).unwrap(), &want, "inside");
            }
        }
    }
}
