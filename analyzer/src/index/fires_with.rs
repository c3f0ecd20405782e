//! Latents that fire on the same tokens of the sample.
//!
//! ```text
//! share_ij = n_ij / n_j        lift_ij = n_ij T / (n_i n_j)        of T ordinary tokens, latent i fires on n_i
//! phi_ij   = (n_ij T - n_i n_j) / sqrt(n_i (T - n_i) n_j (T - n_j)),   the correlation by which they are ranked: the
//!            share alone would put the densest latents first everywhere
//! ```

use rayon::prelude::*;

use crate::features::{ByLatent, FiresWith, Sample};

/// Joint firings below which a pair is left out.
const AT_LEAST: u32 = 3;

/// For each latent, the `n` others that fire most on the same tokens.
pub(crate) fn fires_with(sample: &Sample, by_latent: &ByLatent, d_sae: usize, n: usize) -> Vec<Vec<FiresWith>> {
    let tokens = sample.encoded.ordinary.iter().filter(|ordinary| **ordinary).count() as f64;
    let count = |latent: usize| by_latent.of(latent).0.len() as f64;
    let of_latent = |(joint, met): &mut (Vec<u32>, Vec<u32>), latent: usize| {
        for &row in by_latent.of(latent).0 {
            for &other in sample.encoded.acts.row(row as usize).0 {
                if joint[other as usize] == 0 {
                    met.push(other);
                }
                joint[other as usize] += 1;
            }
        }
        let mut ranked: Vec<(f64, FiresWith)> = vec![];
        for other in met.drain(..) {
            let n_joint = std::mem::take(&mut joint[other as usize]);
            if n_joint < AT_LEAST || other as usize == latent {
                continue;
            }
            let (n_joint, n_i, n_j) = (f64::from(n_joint), count(other as usize), count(latent));
            let spread = (n_i * (tokens - n_i) * n_j * (tokens - n_j)).sqrt();
            let phi = if spread > 0.0 { (n_joint * tokens - n_i * n_j) / spread } else { 0.0 };
            let (share, lift) = (n_joint / n_j, n_joint * tokens / (n_i * n_j));
            ranked.push((phi, FiresWith { latent: other, share: share as f32, lift: lift as f32 }));
        }
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.latent.cmp(&b.1.latent)));
        ranked.into_iter().take(n).map(|(_, other)| other).collect()
    };
    (0..d_sae).into_par_iter().map_init(|| (vec![0; d_sae], vec![]), of_latent).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::SampleRow;

    #[test]
    fn shares_and_lifts_on_paper() {
        let mut sample = Sample::default();
        // Latents 0 and 1 fire together on 4 of 20 tokens, 0 on 5, 1 on 4, and 2 on all.
        for row in 0..20 {
            let mut latents = vec![2];
            if row < 4 {
                latents.insert(0, 1);
            }
            if row < 5 {
                latents.insert(0, 0);
            }
            let activations = vec![1.0; latents.len()];
            sample.push(SampleRow { latents, activations, ordinary: true, ..SampleRow::default() });
        }
        let found = fires_with(&sample, &sample.by_latent(3), 3, 5);
        assert_eq!(
            found[0],
            [FiresWith { latent: 1, share: 0.8, lift: 4.0 }, FiresWith { latent: 2, share: 1.0, lift: 1.0 },]
        );
        assert_eq!(found[1][0], FiresWith { latent: 0, share: 1.0, lift: 4.0 });
    }
}
