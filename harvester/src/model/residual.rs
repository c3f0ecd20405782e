//! [`add`]: `resid + out`, on all cores. candle adds on one core, which at the width of a small model costs as much as
//! a norm.

use candle_core::{CpuStorage, CustomOp2, Device, Layout, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::Result;

/// Values per task: a pass over memory needs few tasks.
const CHUNK: usize = 1 << 15;

/// The stream plus the output of attention or the MLP.
///
/// # Shapes
/// `resid`, `out`: `[rows, d_model]` -> the same. If a hook made variants of one of them, the other is the same for
/// each.
pub(crate) fn add(resid: &Tensor, out: &Tensor) -> Result<Tensor> {
    let rows = resid.dim(0)?.max(out.dim(0)?);
    let (resid, out) = (&repeated(resid, rows)?, &repeated(out, rows)?);
    if matches!(resid.device(), Device::Cpu) && resid.dims() == out.dims() {
        return Ok(resid.contiguous()?.apply_op2_no_bwd(&out.contiguous()?, &Add)?);
    }
    Ok((resid + out)?)
}

/// Repeats `x` to fill `rows`.
fn repeated(x: &Tensor, rows: usize) -> Result<Tensor> {
    match rows / x.dim(0)?.max(1) {
        0 | 1 => Ok(x.clone()),
        times => Ok(x.repeat((times, 1))?),
    }
}

struct Add;

impl CustomOp2 for Add {
    fn name(&self) -> &'static str {
        "residual-add"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(a), CpuStorage::F32(b)) = (a, b) else { bail!("residual-add needs f32") };
        let (Some(a_range), Some(b_range)) = (a_layout.contiguous_offsets(), b_layout.contiguous_offsets()) else {
            bail!("residual-add needs contiguous tensors")
        };
        let (a, b) = (&a[a_range.0..a_range.1], &b[b_range.0..b_range.1]);
        let mut sums = vec![0f32; a.len()];
        let chunks = sums.par_chunks_mut(CHUNK).zip(a.par_chunks(CHUNK)).zip(b.par_chunks(CHUNK));
        chunks.for_each(|((sums, a), b)| {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum = a + b;
            }
        });
        Ok((CpuStorage::F32(sums), a_layout.shape().clone()))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn adds_as_candle_does_bit_for_bit() {
        let random = || Tensor::randn(0f32, 1., (120, 577), &Device::Cpu).unwrap();
        let (resid, out) = (random(), random().t().unwrap().contiguous().unwrap().t().unwrap());
        let values = |x: Tensor| x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values(add(&resid, &out).unwrap()), values((&resid + &out).unwrap()));
        assert!(add(&resid, &out.narrow(0, 0, 80).unwrap()).is_err());
        let one = out.narrow(0, 40, 40).unwrap();
        let stacked = Tensor::cat(&[&one, &one, &one], 0).unwrap();
        assert_eq!(values(add(&resid, &one).unwrap()), values((&resid + &stacked).unwrap()));
        assert_eq!(values(add(&one, &resid).unwrap()), values((&resid + &stacked).unwrap()));
    }
}
