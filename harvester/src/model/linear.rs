//! [`Linear`]: `y = x W^T + b`, the matrix products in which nearly all of a forward pass is spent.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Shape, Tensor, bail};

use super::{
    Compute,
    packed::{Instructions, Int8Matrix, PackedMatrix},
};
use crate::{Error, Result};

/// A matrix, with an optional bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Weight,
    /// `[d_out]`
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// As checkpoints store it, `[d_out, d_in]`: on other devices, and on processors without vector instructions that
    /// the packed product is written in.
    Stored(Tensor),
    Packed(Arc<Packed>),
}

impl Linear {
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: Weight::Stored(weight), bias }
    }

    /// Lays the matrix out for [`Self::forward`], where that is faster, and frees it as it was stored.
    pub(crate) fn pack(&mut self, compute: Compute) -> Result<()> {
        let Weight::Stored(weight) = &self.weight else { return Ok(()) };
        if !matches!(weight.device(), Device::Cpu) {
            return match compute {
                Compute::F32 => Ok(()),
                Compute::Int8 => Err(Error::invalid("compute", "f32 on this device: int8 is for the CPU", "int8")),
            };
        }
        let (values, d_in) = (weight.flatten_all()?.to_vec1::<f32>()?, weight.dim(1)?);
        let matrix = match (compute, Instructions::of_this_machine()) {
            (Compute::Int8, _) => Matrix::Int8(Int8Matrix::new(&values, d_in)),
            (Compute::F32, Some(instructions)) => Matrix::F32(PackedMatrix::new(instructions, &values, d_in)),
            (Compute::F32, None) => return Ok(()),
        };
        let bias = self.bias.take().map(|bias| bias.to_vec1::<f32>()).transpose()?;
        self.weight = Weight::Packed(Arc::new(Packed { matrix, bias }));
        Ok(())
    }

    /// # Shapes
    /// `x`: `[batch, pos, d_in]` -> `[batch, pos, d_out]`
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(packed) => Ok(x.contiguous()?.apply_op1_no_bwd(packed.as_ref())?),
            Weight::Stored(weight) => stored_product(x, weight, self.bias.as_ref()),
        }
    }
}

fn stored_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let (batch, pos, d_in) = x.dims3()?;
    // One product over all tokens: a batched one would pack the weight again for every row of the batch.
    let y = x.reshape((batch * pos, d_in))?.matmul(&weight.t()?)?; // [batch * pos, d_out]
    let y = match bias {
        Some(bias) => y.broadcast_add(bias)?,
        None => y,
    };
    Ok(y.reshape((batch, pos, ()))?)
}

/// A matrix and its bias, laid out for this processor.
#[derive(Debug)]
struct Packed {
    matrix: Matrix,
    /// `[d_out]`
    bias: Option<Vec<f32>>,
}

#[derive(Debug)]
enum Matrix {
    F32(PackedMatrix),
    Int8(Int8Matrix),
}

impl Matrix {
    /// `[d_out, d_in]`
    fn dims(&self) -> [usize; 2] {
        match self {
            Self::F32(matrix) => [matrix.d_out(), matrix.d_in()],
            Self::Int8(matrix) => [matrix.d_out(), matrix.d_in()],
        }
    }
}

impl CustomOp1 for Packed {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let CpuStorage::F32(values) = storage else { bail!("a product with packed weights needs f32") };
        let Some((from, to)) = layout.contiguous_offsets() else { bail!("it needs a contiguous tensor") };
        let (batch, pos, d_in) = layout.shape().dims3()?;
        let [d_out, columns] = self.matrix.dims();
        if d_in != columns {
            bail!("a product of {:?} with a matrix of {columns} columns", layout.shape());
        }
        let (x, bias) = (&values[from..to], self.bias.as_deref());
        let y = match &self.matrix {
            Matrix::F32(matrix) => matrix.product(x, bias),
            Matrix::Int8(matrix) => matrix.product(x, bias),
        };
        Ok((CpuStorage::F32(y), Shape::from((batch, pos, d_out))))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn packed_equals_stored_and_holds_the_weights_once() {
        for bias in [None, Some(Tensor::randn(0f32, 1., 70, &Device::Cpu).unwrap())] {
            let weight = Tensor::randn(0f32, 1., (70, 36), &Device::Cpu).unwrap();
            let x = Tensor::randn(0f32, 1., (2, 9, 36), &Device::Cpu).unwrap();
            let mut linear = Linear::new(weight, bias);
            let want = linear.forward(&x).unwrap();
            linear.pack(Compute::F32).unwrap();
            let is_stored = matches!(linear.weight, Weight::Stored(_));
            assert_eq!(is_stored, Instructions::of_this_machine().is_none());
            let diff = (linear.forward(&x).unwrap() - want).unwrap().abs().unwrap().max_all().unwrap();
            assert!(diff.to_scalar::<f32>().unwrap() < 2e-5);
            assert!(is_stored || linear.forward(&x.narrow(2, 0, 35).unwrap()).is_err());
        }
    }
}
