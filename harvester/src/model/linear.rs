//! [`Linear`]: `y = x W^T + b`, the matrix products that take nearly all the time of a forward pass.

use std::{borrow::Cow, sync::Arc};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Device, Layout, Shape, Storage, Tensor, bail};

use super::{
    Activation, Compute,
    packed::{Epilogue, Int8Matrix, PackedMatrix, by_turns},
    residual,
};
use crate::{Error, Result, numbers::simd::Instructions};

/// A matrix, with an optional bias.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    weight: Weight,
    /// `[d_out]`
    bias: Option<Tensor>,
}

#[derive(Debug, Clone)]
enum Weight {
    /// As stored in checkpoints, `[d_out, d_in]`: for other devices, and for processors without the vector instructions
    /// of the packed product.
    Stored(Tensor),
    Packed(Arc<Packed>),
}

impl Linear {
    pub(crate) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: Weight::Stored(weight), bias }
    }

    /// Packs the matrix for [`Self::forward`] if that is faster, and frees the stored one.
    pub(crate) fn pack(&mut self, compute: Compute) -> Result<()> {
        self.pack_with(compute, None, false)
    }

    /// Like [`Self::pack`], and includes the activation in the packed product: [`Self::forward`] then gives `act(y)`,
    /// or, for a matrix of gates above the values they gate, `act(gate) * value`.
    pub(crate) fn pack_activated(&mut self, compute: Compute, activation: Activation, gated: bool) -> Result<()> {
        self.pack_with(compute, Some(activation), gated)
    }

    fn pack_with(&mut self, compute: Compute, activation: Option<Activation>, gated: bool) -> Result<()> {
        let Weight::Stored(weight) = &self.weight else { return Ok(()) };
        if !matches!(weight.device(), Device::Cpu) {
            return match compute {
                Compute::F32 => Ok(()),
                Compute::Int8 => Err(Error::invalid("compute", "f32 on this device: int8 is for the CPU", "int8")),
            };
        }
        if !compute.has_own_products() {
            return Ok(());
        }
        let weight = weight.contiguous()?;
        let ((mut columns, d_in), (storage, layout)) = (weight.dims2()?, weight.storage_and_layout());
        let Storage::Cpu(storage) = &*storage else { unreachable!("the device is the CPU") };
        let mut values = Cow::Borrowed(contiguous(storage, layout)?);
        let mut bias = self.bias.as_ref().map(|bias| bias.to_vec1::<f32>()).transpose()?;
        if gated {
            columns /= 2;
            values = by_turns(&values, d_in).into();
            bias = bias.map(|bias| by_turns(&bias, 1));
        }
        let matrix = match compute {
            Compute::F32 => Matrix::F32(PackedMatrix::new(Instructions::of_this_machine(), &values, d_in)),
            Compute::Int8 => Matrix::Int8(Int8Matrix::new(&values, d_in)),
        };
        self.bias = None;
        self.weight =
            Weight::Packed(Arc::new(Packed { matrix, epilogue: Epilogue { columns, bias, activation, gated } }));
        Ok(())
    }

    /// True if [`Self::forward`] applies the activation.
    pub(crate) fn activates(&self) -> bool {
        matches!(&self.weight, Weight::Packed(packed) if packed.epilogue.activation.is_some())
    }

    /// # Shapes
    /// `x`: `[rows, d_in]` -> `[rows, d_out]`, or half of `d_out` if gated
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(packed) => Ok(x.contiguous()?.apply_op1_no_bwd(packed.as_ref())?),
            Weight::Stored(weight) => stored_product(x, weight, self.bias.as_ref()),
        }
    }

    /// Rows of the matrix, as stored in the checkpoint.
    ///
    /// # Shapes
    /// -> `[rows, d_in]`
    pub(crate) fn rows(&self, rows: &[u32]) -> Result<Tensor> {
        match &self.weight {
            Weight::Stored(weight) => Ok(weight.index_select(&Tensor::new(rows, weight.device())?, 0)?),
            Weight::Packed(packed) => match &packed.matrix {
                Matrix::F32(matrix) if !packed.epilogue.gated => {
                    Ok(Tensor::from_vec(matrix.rows(rows)?, (rows.len(), matrix.d_in()), &Device::Cpu)?)
                }
                _ => Err(Error::invalid("rows of a matrix", "a matrix in its stored order", "another")),
            },
        }
    }

    /// `resid + y`, without a second pass over memory for the sum.
    ///
    /// # Shapes
    /// `x`: `[rows, d_in]`; `resid`: `[rows, d_out]` -> the same; `resid` is repeated if `x` has more variants
    pub(crate) fn forward_onto(&self, resid: &Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.weight {
            Weight::Packed(packed) if resid.dims()[0] == x.dims()[0] => {
                Ok(x.contiguous()?.apply_op2_no_bwd(&resid.contiguous()?, packed.as_ref())?)
            }
            _ => residual::add(resid, &self.forward(x)?),
        }
    }
}

fn stored_product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = x.matmul(&weight.t()?)?; // [rows, d_out]
    match bias {
        Some(bias) => Ok(y.broadcast_add(bias)?),
        None => Ok(y),
    }
}

/// A matrix and the epilogue of its product, packed for this processor.
#[derive(Debug)]
struct Packed {
    matrix: Matrix,
    epilogue: Epilogue,
}

#[derive(Debug)]
enum Matrix {
    F32(PackedMatrix),
    Int8(Int8Matrix),
}

impl Matrix {
    fn d_in(&self) -> usize {
        match self {
            Self::F32(matrix) => matrix.d_in(),
            Self::Int8(matrix) => matrix.d_in(),
        }
    }
}

impl Packed {
    /// `x`: `[rows, d_in]`; `onto`: `[rows, d_out]` -> the same
    fn product(
        &self,
        (x, x_layout): (&CpuStorage, &Layout),
        onto: Option<&[f32]>,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let x = contiguous(x, x_layout)?;
        let (rows, d_in) = x_layout.shape().dims2()?;
        if d_in != self.matrix.d_in() {
            bail!("a product of {:?} with a matrix of {} columns", x_layout.shape(), self.matrix.d_in());
        }
        let shape = Shape::from((rows, self.epilogue.columns));
        if onto.is_some_and(|onto| onto.len() != shape.elem_count()) {
            bail!("a product of shape {shape:?} added to another");
        }
        let y = match &self.matrix {
            Matrix::F32(matrix) => matrix.product(x, &self.epilogue, onto),
            Matrix::Int8(matrix) => matrix.product(x, &self.epilogue, onto),
        };
        Ok((CpuStorage::F32(y), shape))
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let CpuStorage::F32(values) = storage else { bail!("a product with packed weights needs f32") };
    let Some((from, to)) = layout.contiguous_offsets() else {
        bail!("a product with packed weights needs contiguous tensors")
    };
    Ok(&values[from..to])
}

impl CustomOp1 for Packed {
    fn name(&self) -> &'static str {
        "packed-product"
    }

    fn cpu_fwd(&self, x: &CpuStorage, x_layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        self.product((x, x_layout), None)
    }
}

/// For `x` and the tensor to which the product is added.
impl CustomOp2 for Packed {
    fn name(&self) -> &'static str {
        "packed-product-onto"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        onto: &CpuStorage,
        onto_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        self.product((x, x_layout), Some(contiguous(onto, onto_layout)?))
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
            let x = Tensor::randn(0f32, 1., (18, 36), &Device::Cpu).unwrap();
            let mut linear = Linear::new(weight, bias);
            let want = linear.forward(&x).unwrap();
            linear.pack(Compute::F32).unwrap();
            let is_stored = matches!(linear.weight, Weight::Stored(_));
            assert_eq!(is_stored, Instructions::of_this_machine() == Instructions::Plain);
            let diff = (linear.forward(&x).unwrap() - want).unwrap().abs().unwrap().max_all().unwrap();
            assert!(diff.to_scalar::<f32>().unwrap() < 2e-5);
            assert!(is_stored || linear.forward(&x.narrow(1, 0, 35).unwrap()).is_err());
            let resid = Tensor::randn(0f32, 1., (18, 70), &Device::Cpu).unwrap();
            let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let apart = residual::add(&resid, &linear.forward(&x).unwrap()).unwrap();
            assert_eq!(values(linear.forward_onto(&resid, &x).unwrap()), values(apart));
            assert!(linear.forward_onto(&resid.narrow(0, 0, 7).unwrap(), &x).is_err());
        }
    }
}
