//! Latents with similar decoder directions: duplicates, and the parts into which a feature was split.
//!
//! `cosine_ij = W_dec[i] . W_dec[j] / (|W_dec[i]| |W_dec[j]|)`

use candle_core::{Device, Tensor};
use rayon::prelude::*;
use trainer::Sae;

use crate::Result;

/// Number of latents that are compared with all others at the same time.
const BLOCK: usize = 512;

/// For each latent, the `n` nearest other latents with their cosine, nearest first.
pub(crate) fn nearest(sae: &Sae, n: usize) -> Result<Vec<Vec<(u32, f32)>>> {
    let (d_sae, d_out) = (sae.d_sae(), sae.d_out());
    let w_dec = Tensor::from_slice(sae.w_dec(), (d_sae, d_out), &Device::Cpu)?;
    let norms = (w_dec.sqr()?.sum_keepdim(1)?.sqrt()? + 1e-30)?; // [d_sae, 1]
    let unit = w_dec.broadcast_div(&norms)?;
    let columns = unit.t()?;
    let mut all = Vec::with_capacity(d_sae);
    for first in (0..d_sae).step_by(BLOCK) {
        let rows = unit.narrow(0, first, BLOCK.min(d_sae - first))?;
        let cosines: Vec<Vec<f32>> = rows.matmul(&columns)?.to_vec2()?; // [block, d_sae]
        all.par_extend(cosines.par_iter().enumerate().map(|(row, cosines)| closest(cosines, first + row, n)));
    }
    Ok(all)
}

fn closest(cosines: &[f32], latent: usize, n: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = vec![];
    for (other, &cosine) in cosines.iter().enumerate().filter(|(other, _)| *other != latent) {
        if best.len() == n && best.last().is_some_and(|last| last.1 >= cosine) {
            continue;
        }
        let place = best.partition_point(|(_, kept)| *kept >= cosine);
        best.insert(place, (other as u32, cosine));
        best.truncate(n);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latent_is_not_its_own_neighbor() {
        assert_eq!(closest(&[0.1, 1.0, 0.9, -0.5], 1, 2), [(2, 0.9), (0, 0.1)]);
    }
}
