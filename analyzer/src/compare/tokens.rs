//! [`PairCounts`]: the activity of paired latents on the same tokens.

use harvester::{ActivationDataset, ActivationRows, Monitor, is_ordinary};

use super::matching::Matching;
use crate::{EncodedRows, Error, PlacedSae, Result, index::keep_contexts};

/// Similarity of the activations of two latents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pair {
    pub(crate) correlation: f64,
    pub(crate) jaccard: f64,
}

/// Sums over the activations of each latent.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    fires: u64,
    sum: f64,
    squares: f64,
}

/// Sums over the tokens on which both latents of a pair fire.
#[derive(Debug, Clone, Copy, Default)]
struct Joint {
    fires: u64,
    product: f64,
}

/// Tokens on which at least one of a latent's parts fires, and those of them on which the latent fires too.
#[derive(Debug, Clone, Copy, Default)]
struct Union {
    fires: u64,
    with: u64,
}

/// What is counted over the tokens.
#[derive(Debug, Clone)]
pub(crate) struct PairCounts {
    pub(crate) tokens: u64,
    sums: [Vec<Sums>; 2],
    /// Counts of each latent of the first SAE and its partner.
    joint: Vec<Joint>,
    unions: [Vec<Union>; 2],
}

impl PairCounts {
    pub(crate) fn count(
        saes: [&PlacedSae; 2],
        matching: &Matching,
        dataset: &ActivationDataset,
        tokens: u64,
        monitor: &dyn Monitor,
    ) -> Result<Self> {
        let d_sae = saes.map(|placed| placed.sae.d_sae());
        let mut counts = Self {
            tokens: 0,
            sums: d_sae.map(|n| vec![Sums::default(); n]),
            joint: vec![Joint::default(); d_sae[0]],
            unions: d_sae.map(|n| vec![Union::default(); n]),
        };
        let mut rows = Rows::new(d_sae, matching);
        monitor.start("comparing", dataset.manifest.counts.tokens.min(tokens), "tokens");
        for &group in &dataset.row_groups {
            if monitor.cancelled() {
                return Err(Error::Stopped);
            }
            if counts.tokens >= tokens {
                break;
            }
            let mut activations = dataset.read(group, saes[0].hook_point)?;
            let sink_norm = saes[0].sink_norm.min(saes[1].sink_norm);
            keep_enough(&mut activations, sink_norm, tokens - counts.tokens);
            let before = counts.tokens;
            let encoded = [
                EncodedRows::encode(&saes[0].sae, activations.clone(), saes[0].sink_norm)?,
                EncodedRows::encode(&saes[1].sae, activations, saes[1].sink_norm)?,
            ];
            for row in 0..encoded[0].rows.token.len() {
                if encoded.iter().all(|encoded| encoded.ordinary[row]) {
                    rows.add(&mut counts, matching, [encoded[0].acts.row(row), encoded[1].acts.row(row)]);
                }
            }
            monitor.advance((counts.tokens - before).min(tokens));
        }
        monitor.finish();
        Ok(counts)
    }

    /// Share of the tokens on which a latent fires.
    pub(crate) fn density(&self, side: usize, latent: usize) -> f64 {
        self.sums[side][latent].fires as f64 / self.tokens.max(1) as f64
    }

    /// A latent of the first SAE with its partner.
    pub(crate) fn pair(&self, first: usize, second: usize) -> Pair {
        let (a, b, joint) = (self.sums[0][first], self.sums[1][second], self.joint[first]);
        let n = self.tokens as f64;
        let spread = |of: Sums| n * of.squares - of.sum * of.sum;
        let scale = (spread(a) * spread(b)).sqrt();
        let covariance = n * joint.product - a.sum * b.sum;
        let either = a.fires + b.fires - joint.fires;
        Pair {
            correlation: if scale > 0.0 { covariance / scale } else { 0.0 },
            jaccard: if either > 0 { joint.fires as f64 / either as f64 } else { 0.0 },
        }
    }

    /// Jaccard index of the tokens of a latent and those of its parts together.
    pub(crate) fn jaccard_of_union(&self, side: usize, latent: usize) -> f64 {
        let (own, union) = (self.sums[side][latent].fires, self.unions[side][latent]);
        let either = own + union.fires - union.with;
        if either > 0 { union.with as f64 / either as f64 } else { 0.0 }
    }
}

/// Drops the contexts after those that together have `tokens` tokens that count.
fn keep_enough(activations: &mut ActivationRows, sink_norm: f32, tokens: u64) {
    let (mut n_contexts, mut n) = (0, 0);
    for context in activations.rows.contexts() {
        if n >= tokens {
            break;
        }
        n_contexts += 1;
        let counts = |row: &usize| is_ordinary(activations.rows.position[*row], activations.norm[*row], sink_norm);
        n += context.filter(counts).count() as u64;
    }
    keep_contexts(activations, n_contexts);
}

/// Space to look up the activations of a token.
struct Rows {
    /// Activation of each latent on the present token.
    values: [Vec<f32>; 2],
    /// For each latent of one SAE, the latents of the other of which it is a part.
    part_of: [Vec<Vec<u32>>; 2],
}

impl Rows {
    fn new(d_sae: [usize; 2], matching: &Matching) -> Self {
        let part_of = [0, 1].map(|side: usize| {
            let mut part_of = vec![vec![]; d_sae[side]];
            for (latent, parts) in (0..).zip(&matching.parts[1 - side]) {
                parts.latents.iter().for_each(|part| part_of[*part as usize].push(latent));
            }
            part_of
        });
        Self { values: d_sae.map(|n| vec![0.0; n]), part_of }
    }

    fn add(&mut self, counts: &mut PairCounts, matching: &Matching, active: [(&[u32], &[f32]); 2]) {
        counts.tokens += 1;
        for (side, (latents, values)) in active.into_iter().enumerate() {
            for (&latent, &value) in latents.iter().zip(values) {
                self.values[side][latent as usize] = value;
                let sums = &mut counts.sums[side][latent as usize];
                sums.fires += 1;
                sums.sum += f64::from(value);
                sums.squares += f64::from(value).powi(2);
            }
        }
        for (&latent, &value) in active[0].0.iter().zip(active[0].1) {
            let Some(partner) = matching.partners[0][latent as usize] else { continue };
            let other = self.values[1][partner as usize];
            if other != 0.0 {
                let joint = &mut counts.joint[latent as usize];
                joint.fires += 1;
                joint.product += f64::from(value) * f64::from(other);
            }
        }
        for side in [0, 1] {
            // The latents of the other SAE of which an active latent of this one is a part.
            let mut touched: Vec<u32> =
                active[side].0.iter().flat_map(|&latent| &self.part_of[side][latent as usize]).copied().collect();
            touched.sort_unstable();
            touched.dedup();
            for latent in touched {
                let union = &mut counts.unions[1 - side][latent as usize];
                union.fires += 1;
                union.with += u64::from(self.values[1 - side][latent as usize] != 0.0);
            }
        }
        for (side, (latents, _)) in active.into_iter().enumerate() {
            latents.iter().for_each(|&latent| self.values[side][latent as usize] = 0.0);
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::{super::matching::Directions, *};
    use crate::halves::mixed;

    /// The activations of 4 latents of each SAE on 500 tokens, about half of them 0; those of the second are like those
    /// of the first.
    fn activations() -> [Vec<[f32; 4]>; 2] {
        let value = |row: u64, latent: u64, salt: u64| {
            let random = mixed(row * 8 + latent + salt);
            if random.is_multiple_of(2) { 0.0 } else { (random % 100) as f32 / 10.0 }
        };
        let first: Vec<[f32; 4]> = (0..500).map(|row| [0, 1, 2, 3].map(|latent| value(row, latent, 0))).collect();
        let noisy = |(row, values): (usize, &[f32; 4])| {
            [0, 1, 2, 3].map(|latent| match mixed(row as u64 + 7) % 3 {
                0 => value(row as u64, latent, 5000),
                _ => values[latent as usize] * 2.0,
            })
        };
        let second = first.iter().enumerate().map(noisy).collect();
        [first, second]
    }

    #[test]
    fn correlations_and_overlaps_are_those_of_the_formulas() {
        let unit = |d: usize| -> Vec<f32> { (0..d * d).map(|at| if at % (d + 1) == 0 { 1.0 } else { 0.0 }).collect() };
        // Each latent of the first SAE has two parts in the second, its partner and the next one.
        let next = |at: usize| if at % 4 == (at / 4 + 1) % 4 { 0.9 } else { 0.0 };
        let sums: Vec<f32> = unit(4).iter().enumerate().map(|(at, one)| one + next(at)).collect();
        let matching = Matching::of(&[Directions::new(sums, 4), Directions::new(unit(4), 4)]).unwrap();
        let activations = activations();
        let mut counts = PairCounts {
            tokens: 0,
            sums: [vec![Sums::default(); 4], vec![Sums::default(); 4]],
            joint: vec![Joint::default(); 4],
            unions: [vec![Union::default(); 4], vec![Union::default(); 4]],
        };
        let mut rows = Rows::new([4, 4], &matching);
        for row in 0..500 {
            let active = activations.each_ref().map(|side| -> (Vec<u32>, Vec<f32>) {
                (0..4).zip(side[row]).filter(|(_, value)| *value != 0.0).unzip()
            });
            rows.add(&mut counts, &matching, active.each_ref().map(|(latents, values)| (&latents[..], &values[..])));
        }
        for latent in 0..4 {
            let column = |side: usize| activations[side].iter().map(|row| f64::from(row[latent])).collect::<Vec<f64>>();
            let (a, b) = (column(0), column(1));
            let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
            let (mean_a, mean_b) = (mean(&a), mean(&b));
            let covariance: f64 = a.iter().zip(&b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum();
            let spread = |values: &[f64], mean: f64| values.iter().map(|x| (x - mean).powi(2)).sum::<f64>();
            let correlation = covariance / (spread(&a, mean_a) * spread(&b, mean_b)).sqrt();
            let both = a.iter().zip(&b).filter(|(a, b)| **a != 0.0 && **b != 0.0).count() as f64;
            let either = a.iter().zip(&b).filter(|(a, b)| **a != 0.0 || **b != 0.0).count() as f64;
            let found = counts.pair(latent, latent);
            assert!((found.correlation - correlation).abs() < 1e-9 && correlation > 0.3, "{found:?} {correlation}");
            assert_eq!(found.jaccard, both / either);
            let parts = [latent, (latent + 1) % 4];
            assert_eq!(matching.parts[0][latent].latents, parts.map(|part| part as u32));
            // The third of the nearest latents is none of them, so it does not count.
            let any = |row: usize| parts.iter().any(|&other| activations[1][row][other] != 0.0);
            let with = (0..500).filter(|&row| any(row) && a[row] != 0.0).count() as f64;
            let one = (0..500).filter(|&row| any(row) || a[row] != 0.0).count() as f64;
            assert_eq!(counts.jaccard_of_union(0, latent), with / one);
        }
    }
}
