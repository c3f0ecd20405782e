//! [`contrast`]: finds the latents that distinguish two groups of text, by how often they fire in each.
//!
//! `separation = (p - q) / sqrt(m (1 - m))`, `m = (p + q) / 2`, with `p` and `q` a latent's density in the two groups:
//! twice the phi coefficient of "fires" and "is in the first group" for groups of equal size. A latent that fires on a
//! third of one group's tokens and on none of the other's ranks above one that fires on a thousandth and none.

use serde::Serialize;

use crate::{FeatureIndex, Result};

/// A latent and its densities in two groups.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contrast {
    /// The latent.
    pub latent: u32,
    /// Its density in the first group.
    pub positive: f32,
    /// Its density in the second group.
    pub negative: f32,
    /// From -2 to 2; positive if it fires more often in the first group.
    pub separation: f32,
}

/// Every latent's contrast between two sets of corpus sources, sorted by separation, largest first.
///
/// # Errors
/// A source that is not in the index, of which the message lists the sources; or one that is on both sides.
pub fn contrast(index: &FeatureIndex, positive: &[String], negative: &[String]) -> Result<Vec<Contrast>> {
    if let Some(both) = positive.iter().find(|name| negative.contains(name)) {
        let expected = "sources that are not in `positive`: a source cannot be told apart from itself";
        return Err(harvester::Error::invalid("`negative`", expected, format!("`{both}`")).into());
    }
    let (positive, negative) = (index.source_places(positive)?, index.source_places(negative)?);
    let tokens: Vec<u64> = index.manifest().sources.iter().map(|source| source.tokens).collect();
    let densities = index.column::<Vec<f32>>("density_by_source")?;
    let mut contrasts: Vec<_> = (0..)
        .zip(&densities)
        .map(|(latent, densities)| {
            let (p, q) = (density(densities, &positive, &tokens), density(densities, &negative, &tokens));
            Contrast { latent, positive: p, negative: q, separation: separation(p, q) }
        })
        .collect();
    contrasts.sort_by(|a, b| b.separation.total_cmp(&a.separation).then(a.latent.cmp(&b.latent)));
    Ok(contrasts)
}

/// Density over several sources combined.
fn density(by_source: &[f32], places: &[usize], tokens: &[u64]) -> f32 {
    let total: u64 = places.iter().map(|&place| tokens[place]).sum();
    let active: f64 = places.iter().map(|&p| f64::from(by_source[p]) * tokens[p] as f64).sum();
    if total == 0 { 0.0 } else { (active / total as f64) as f32 }
}

fn separation(p: f32, q: f32) -> f32 {
    let m = (p + q) / 2.0;
    if m <= 0.0 || m >= 1.0 { 0.0 } else { (p - q) / (m * (1.0 - m)).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separation_has_its_sign_and_its_extremes() {
        assert_eq!(separation(1.0, 0.0), 2.0);
        assert_eq!(separation(0.0, 1.0), -2.0);
        assert_eq!(separation(0.3, 0.3), 0.0);
        assert_eq!(separation(0.0, 0.0), 0.0);
        assert!(separation(0.3, 0.0) > separation(0.001, 0.0));
    }
}
