//! [`Matching`]: the latents of two SAEs paired by the cosine of their directions.

use candle_core::{Device, Tensor};
use lapjv::Matrix;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use trainer::Sae;

use crate::Result;

/// Up to this number of latents the best assignment is computed: its cosines and costs take 536 MB.
const BEST_UP_TO: usize = 8_192;
/// Nearest latents kept of each latent.
const NEAREST: usize = 8;
/// Latents that may do together what one does in the other SAE.
const PARTS: usize = 3;
/// Latents whose cosines with all others are computed together.
const BLOCK: usize = 512;

/// Directions of length 1, one row per latent.
#[derive(Debug, Clone)]
pub(crate) struct Directions {
    /// `[n, d]`
    rows: Vec<f32>,
    d: usize,
}

impl Directions {
    pub(crate) fn of_decoder(sae: &Sae) -> Self {
        Self::new(sae.w_dec().to_vec(), sae.d_out())
    }

    pub(crate) fn of_encoder(sae: &Sae) -> Self {
        let rows = (0..sae.d_sae()).flat_map(|latent| sae.encoder_row(latent).iter().copied()).collect();
        Self::new(rows, sae.d_in())
    }

    pub(super) fn new(mut rows: Vec<f32>, d: usize) -> Self {
        rows.par_chunks_mut(d).for_each(|row| {
            let norm = harvester::norm(row).max(f32::MIN_POSITIVE);
            row.iter_mut().for_each(|x| *x /= norm);
        });
        Self { rows, d }
    }

    fn len(&self) -> usize {
        self.rows.len() / self.d
    }

    fn row(&self, latent: usize) -> &[f32] {
        &self.rows[latent * self.d..][..self.d]
    }

    pub(crate) fn cosine(&self, latent: usize, others: &Self, other: usize) -> f32 {
        dot(self.row(latent), others.row(other))
    }

    fn tensor(&self) -> Result<Tensor> {
        Ok(Tensor::from_slice(&self.rows, (self.len(), self.d), &Device::Cpu)?)
    }

    /// The same directions turned by a random rotation, always the same one.
    pub(crate) fn turned(&self) -> Result<Self> {
        let rotation = Tensor::from_vec(rotation(self.d), (self.d, self.d), &Device::Cpu)?;
        let rows = self.tensor()?.matmul(&rotation)?.flatten_all()?.to_vec1()?;
        Ok(Self { rows, d: self.d })
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A random orthogonal matrix: Gaussian rows, each made orthogonal to the ones before. `[d, d]`
fn rotation(d: usize) -> Vec<f32> {
    let mut random = ChaCha8Rng::seed_from_u64(0);
    // Sums of uniform numbers are close enough to Gaussian for a random direction.
    let mut gaussian = || (0..12).map(|_| random.random::<f32>()).sum::<f32>() - 6.0;
    let mut rows: Vec<f32> = (0..d * d).map(|_| gaussian()).collect();
    for row in 0..d {
        let (before, rest) = rows.split_at_mut(row * d);
        let row = &mut rest[..d];
        for _ in 0..2 {
            let shares: Vec<f32> = before.par_chunks(d).map(|other| dot(row, other)).collect();
            for (share, other) in shares.into_iter().zip(before.chunks(d)) {
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= share * y);
            }
        }
        let norm = harvester::norm(row);
        row.iter_mut().for_each(|x| *x /= norm);
    }
    rows
}

/// The nearest latents of the other SAE for each latent of one, nearest first, with their cosines.
#[derive(Debug, Clone)]
pub(crate) struct Cosines(Vec<Vec<(u32, f32)>>);

impl Cosines {
    pub(crate) fn nearest(&self, latent: usize) -> &[(u32, f32)] {
        &self.0[latent]
    }

    pub(crate) fn max(&self, latent: usize) -> f32 {
        self.0[latent].first().map_or(0.0, |nearest| nearest.1)
    }

    fn mean_max(&self) -> f64 {
        let sum: f64 = (0..self.0.len()).map(|latent| f64::from(self.max(latent))).sum();
        sum / self.0.len() as f64
    }

    fn of(rows: &Directions, others: &Directions) -> Result<Self> {
        let columns = others.tensor()?.t()?;
        let rows = rows.tensor()?;
        let n = rows.dim(0)?;
        let mut all = Vec::with_capacity(n);
        for first in (0..n).step_by(BLOCK) {
            let block: Vec<Vec<f32>> = rows.narrow(0, first, BLOCK.min(n - first))?.matmul(&columns)?.to_vec2()?;
            all.par_extend(block.par_iter().map(|cosines| largest(cosines)));
        }
        Ok(Self(all))
    }
}

/// The largest cosines, largest first; among equals, the first latent.
fn largest(cosines: &[f32]) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(NEAREST + 1);
    for (other, &cosine) in (0..).zip(cosines) {
        if best.len() == NEAREST && best.last().is_some_and(|last| last.1 >= cosine) {
            continue;
        }
        let place = best.partition_point(|(_, kept)| *kept >= cosine);
        best.insert(place, (other, cosine));
        best.truncate(NEAREST);
    }
    best
}

/// Two SAEs' latents in pairs.
#[derive(Debug, Clone)]
pub(crate) struct Matching {
    /// Each SAE's nearest latents in the other.
    pub(crate) cosines: [Cosines; 2],
    /// The latents of the other SAE that together are closest to each latent.
    pub(crate) parts: [Vec<Parts>; 2],
    /// Each latent's partner; `None` if none is left.
    pub(crate) partners: [Vec<Option<u32>>; 2],
    /// True if no other assignment has a larger sum of cosines.
    pub(crate) is_best: bool,
    /// Number of pairs.
    pub(crate) pairs: usize,
    /// Mean cosine of the pairs.
    mean: f64,
}

impl Matching {
    pub(crate) fn of(decoders: &[Directions; 2]) -> Result<Self> {
        let [a, b] = decoders;
        let cosines = [Cosines::of(a, b)?, Cosines::of(b, a)?];
        let is_best = a.len().max(b.len()) <= BEST_UP_TO;
        let pairs = if is_best { best_assignment(a, b)? } else { greedy_assignment(&cosines[0]) };
        let mut partners = [vec![None; a.len()], vec![None; b.len()]];
        for &(i, j) in &pairs {
            partners[0][i] = Some(j as u32);
            partners[1][j] = Some(i as u32);
        }
        let sum: f64 = pairs.iter().map(|&(i, j)| f64::from(a.cosine(i, b, j))).sum();
        let parts = [0, 1].map(|side: usize| {
            let [rows, others] = [&decoders[side], &decoders[1 - side]];
            let of = |latent| parts(rows, latent, others, cosines[side].nearest(latent));
            (0..rows.len()).into_par_iter().map(of).collect()
        });
        let mean = sum / pairs.len().max(1) as f64;
        Ok(Self { cosines, parts, partners, is_best, pairs: pairs.len(), mean })
    }

    pub(crate) fn mean_max_cosine(&self) -> [f64; 2] {
        [self.cosines[0].mean_max(), self.cosines[1].mean_max()]
    }

    pub(crate) fn matched_cosine(&self) -> f64 {
        self.mean
    }

    pub(crate) fn mutual_nearest(&self) -> usize {
        let first = |side: usize, latent: usize| self.cosines[side].nearest(latent).first().map(|nearest| nearest.0);
        let of_first = (0..self.cosines[0].0.len()).filter_map(|latent| Some((latent, first(0, latent)? as usize)));
        of_first.filter(|&(latent, other)| first(1, other) == Some(latent as u32)).count()
    }
}

/// The pairs with the largest sum of cosines.
fn best_assignment(a: &Directions, b: &Directions) -> Result<Vec<(usize, usize)>> {
    let n = a.len().max(b.len());
    let cosines: Vec<Vec<f32>> = a.tensor()?.matmul(&b.tensor()?.t()?)?.to_vec2()?;
    // The smaller SAE is filled up with latents without a direction, whose partners are none.
    let cost = |(i, j): (usize, usize)| 1.0 - cosines.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0.0);
    let costs = Matrix::from_shape_fn((n, n), cost);
    let (partners, _) = lapjv::lapjv(&costs)
        .map_err(|error| harvester::Error::invalid("decoder rows", "numbers", error.to_string()))?;
    let pairs = partners.into_iter().enumerate();
    Ok(pairs.filter(|&(i, j)| i < a.len() && j < b.len()).collect())
}

/// Pairs in the order of their cosines, among the nearest latents of each.
fn greedy_assignment(cosines: &Cosines) -> Vec<(usize, usize)> {
    let of_latent = |(i, nearest): (usize, &Vec<(u32, f32)>)| {
        nearest.iter().map(move |&(j, cosine)| (cosine, i, j as usize)).collect::<Vec<_>>()
    };
    let mut pairs: Vec<(f32, usize, usize)> = cosines.0.iter().enumerate().flat_map(of_latent).collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let (mut used_a, mut used_b) = (std::collections::HashSet::new(), std::collections::HashSet::new());
    pairs.retain(|&(_, i, j)| {
        let is_free = !used_a.contains(&i) && !used_b.contains(&j);
        if is_free {
            used_a.insert(i);
            used_b.insert(j);
        }
        is_free
    });
    pairs.into_iter().map(|(_, i, j)| (i, j)).collect()
}

/// Latents whose directions add up to another one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parts {
    pub(crate) latents: Vec<u32>,
    /// Squared length of what they leave of the direction.
    pub(crate) unexplained: f64,
}

/// The at most three of the nearest latents that explain a direction best, with factors that are not negative (NNLS by
/// trying all subsets).
fn parts(rows: &Directions, latent: usize, others: &Directions, nearest: &[(u32, f32)]) -> Parts {
    let nearest = &nearest[..PARTS.min(nearest.len())];
    let mut best = Parts { latents: vec![], unexplained: 1.0 };
    for subset in 1usize..1 << nearest.len() {
        let chosen: Vec<&(u32, f32)> =
            nearest.iter().enumerate().filter(|(at, _)| subset >> at & 1 == 1).map(|(_, n)| n).collect();
        let latents: Vec<u32> = chosen.iter().map(|nearest| nearest.0).collect();
        let gram = |i: usize, j: usize| f64::from(others.cosine(latents[i] as usize, others, latents[j] as usize));
        let target: Vec<f64> =
            latents.iter().map(|&other| f64::from(rows.cosine(latent, others, other as usize))).collect();
        let Some(factors) = solve(latents.len(), gram, &target) else { continue };
        if factors.iter().any(|factor| *factor < 0.0) {
            continue;
        }
        let unexplained = 1.0 - factors.iter().zip(&target).map(|(factor, target)| factor * target).sum::<f64>();
        // One more latent always explains a little more.
        if unexplained < best.unexplained - 0.02 {
            best = Parts { latents, unexplained };
        }
    }
    best
}

/// Solves `G c = t` by elimination; `None` if the directions are dependent. `G` is positive definite otherwise, so no
/// pivoting is needed.
fn solve(n: usize, gram: impl Fn(usize, usize) -> f64, target: &[f64]) -> Option<Vec<f64>> {
    let mut rows: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| gram(i, j)).chain([target[i]]).collect()).collect();
    for pivot in 0..n {
        if rows[pivot][pivot] < 1e-6 {
            return None;
        }
        let (above, below) = rows.split_at_mut(pivot + 1);
        for row in below {
            let factor = row[pivot] / above[pivot][pivot];
            row.iter_mut().zip(&above[pivot]).for_each(|(x, y)| *x -= factor * y);
        }
    }
    let mut solution = vec![0.0; n];
    for row in (0..n).rev() {
        let known: f64 = (row + 1..n).map(|column| rows[row][column] * solution[column]).sum();
        solution[row] = (rows[row][n] - known) / rows[row][row];
    }
    Some(solution)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn random(n: usize, d: usize, seed: u64) -> Directions {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        Directions::new((0..n * d).map(|_| random.random::<f32>() - 0.5).collect(), d)
    }

    #[test]
    fn a_permutation_is_found_and_a_rotation_keeps_lengths_and_angles() {
        let a = random(40, 16, 1);
        let order: Vec<usize> = (0..40).map(|i| i * 7 % 40).collect();
        let b = Directions { rows: order.iter().flat_map(|&i| a.row(i).to_vec()).collect(), d: 16 };
        let matching = Matching::of(&[a.clone(), b.clone()]).unwrap();
        assert!((matching.matched_cosine() - 1.0).abs() < 1e-6 && matching.mutual_nearest() == 40);
        assert!(order.iter().enumerate().all(|(place, &i)| matching.partners[1][place] == Some(i as u32)));
        let turned = a.turned().unwrap();
        for (i, j) in [(0, 0), (0, 1), (5, 30)] {
            assert!((turned.cosine(i, &turned, j) - a.cosine(i, &a, j)).abs() < 1e-5);
        }
        assert!(Matching::of(&[a, turned]).unwrap().matched_cosine() < 0.8);
    }

    #[test]
    fn the_assignment_is_the_best_of_all_and_greedy_is_not_better() {
        let [a, b] = [random(6, 3, 2), random(5, 3, 3)];
        let matching = Matching::of(&[a.clone(), b.clone()]).unwrap();
        // All assignments of the 5 latents of the smaller SAE.
        fn best(a: &Directions, b: &Directions, j: usize, free: &mut Vec<usize>) -> f32 {
            if j == b.len() {
                return 0.0;
            }
            let mut most = f32::MIN;
            for place in 0..free.len() {
                let i = free.remove(place);
                most = most.max(a.cosine(i, b, j) + best(a, b, j + 1, free));
                free.insert(place, i);
            }
            most
        }
        let wanted = f64::from(best(&a, &b, 0, &mut (0..6).collect())) / 5.0;
        assert!((matching.matched_cosine() - wanted).abs() < 1e-6, "{} {wanted}", matching.matched_cosine());
        let greedy = greedy_assignment(&matching.cosines[0]);
        let sum: f64 = greedy.iter().map(|&(i, j)| f64::from(a.cosine(i, &b, j))).sum();
        assert!(greedy.len() == 5 && sum / 5.0 <= wanted + 1e-6);
    }

    #[test]
    fn a_sum_of_two_directions_has_them_as_its_parts() {
        let others = Directions::new([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]].concat(), 4);
        let sum = Directions::new(vec![1.0, 2.0, 0.0, 0.0], 4);
        let nearest = [(1, 0.894), (0, 0.447), (2, 0.0)];
        let parts = parts(&sum, 0, &others, &nearest);
        assert_eq!(parts.latents, [1, 0]);
        assert!(parts.unexplained.abs() < 1e-6);
        assert!(solve(2, |_, _| 1.0, &[1.0, 1.0]).is_none());
    }
}
