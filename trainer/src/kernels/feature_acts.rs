//! [`FeatureActs`]: the active latents of each row and their activations. Everything after the encoder's matrix product
//! works on this and costs k, not d_sae, per token. `ByLatent` holds the same entries sorted by latent.

use std::ops::Range;

/// The active latents of `n` rows (compressed sparse rows). Latents ascend within a row. Values are positive, except
/// for a `dense` SAE, whose latents are all active.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureActs {
    /// Index of each row's first entry, then the number of entries. `[n + 1]`
    pub offsets: Vec<usize>,
    /// Latent of each entry.
    pub latents: Vec<u32>,
    /// Activation of each entry.
    pub values: Vec<f32>,
}

impl Default for FeatureActs {
    fn default() -> Self {
        Self { offsets: vec![0], latents: Vec::new(), values: Vec::new() }
    }
}

impl FeatureActs {
    /// Number of rows (tokens).
    pub fn n_rows(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Number of active latents over all rows.
    pub fn n_active(&self) -> usize {
        self.latents.len()
    }

    /// Range of row `row`'s entries in `latents` and `values`.
    pub(crate) fn range(&self, row: usize) -> Range<usize> {
        self.offsets[row]..self.offsets[row + 1]
    }

    /// The latents and the activations of one row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.range(row);
        (&self.latents[range.clone()], &self.values[range])
    }

    /// Activation of `latent` on `row`; 0 if it is not active.
    pub fn get(&self, row: usize, latent: u32) -> f32 {
        let (latents, values) = self.row(row);
        latents.binary_search(&latent).map_or(0.0, |at| values[at])
    }

    /// Mean number of active latents per row.
    pub fn l0(&self) -> f64 {
        self.n_active() as f64 / self.n_rows().max(1) as f64
    }

    pub(crate) fn clear(&mut self) {
        self.offsets.truncate(1);
        self.latents.clear();
        self.values.clear();
    }

    /// Ends a row whose entries were pushed onto `latents` and `values`.
    pub(crate) fn end_row(&mut self) {
        self.offsets.push(self.latents.len());
    }

    /// Appends the rows of `other`.
    pub(crate) fn append(&mut self, other: &Self) {
        let base = self.n_active();
        self.offsets.extend(other.offsets[1..].iter().map(|offset| base + offset));
        self.latents.extend_from_slice(&other.latents);
        self.values.extend_from_slice(&other.values);
    }

    /// Keeps the entries for which `keep(entry number)` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = 0;
        for row in 0..self.n_rows() {
            let range = self.offsets[row]..self.offsets[row + 1];
            self.offsets[row] = kept;
            for entry in range.filter(|&entry| keep(entry)) {
                self.latents[kept] = self.latents[entry];
                self.values[kept] = self.values[entry];
                kept += 1;
            }
        }
        let last = self.n_rows();
        self.offsets[last] = kept;
        self.latents.truncate(kept);
        self.values.truncate(kept);
    }
}

/// The entries of a [`FeatureActs`] sorted by latent (compressed sparse columns), rows ascending within a latent. So
/// one thread can compute the whole gradient of a latent, and the order of additions does not depend on the number of
/// threads.
#[derive(Debug, Default)]
pub(crate) struct ByLatent {
    /// Index of each latent's first entry, then the number of entries. `[d_sae + 1]`
    pub(crate) offsets: Vec<usize>,
    /// Row of each entry.
    pub(crate) rows: Vec<u32>,
    /// Index of each entry in the [`FeatureActs`].
    pub(crate) entries: Vec<u32>,
}

impl ByLatent {
    /// Fills this with the entries of `acts` by a counting sort.
    pub(crate) fn rebuild(&mut self, acts: &FeatureActs, d_sae: usize) {
        self.offsets.clear();
        self.offsets.resize(d_sae + 1, 0);
        for &latent in &acts.latents {
            self.offsets[latent as usize + 1] += 1;
        }
        for latent in 0..d_sae {
            self.offsets[latent + 1] += self.offsets[latent];
        }
        self.rows.resize(acts.n_active(), 0);
        self.entries.resize(acts.n_active(), 0);
        let mut next = self.offsets.clone();
        for row in 0..acts.n_rows() {
            for entry in acts.range(row) {
                let at = &mut next[acts.latents[entry] as usize];
                self.rows[*at] = row as u32;
                self.entries[*at] = entry as u32;
                *at += 1;
            }
        }
    }

    pub(crate) fn range(&self, latent: usize) -> Range<usize> {
        self.offsets[latent]..self.offsets[latent + 1]
    }

    /// The entries of `latent`, rows ascending.
    pub(crate) fn entries(&self, latent: usize) -> &[u32] {
        &self.entries[self.range(latent)]
    }

    /// Number of rows on which `latent` is active.
    pub(crate) fn n_active(&self, latent: usize) -> usize {
        self.range(latent).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row 0: latents 1 and 4; row 1: none; row 2: latents 0 and 1.
    fn three_rows() -> FeatureActs {
        FeatureActs { offsets: vec![0, 2, 2, 4], latents: vec![1, 4, 0, 1], values: vec![0.5, 2.0, 1.0, 3.0] }
    }

    #[test]
    fn a_row_is_found_and_absent_latents_are_zero() {
        let acts = three_rows();
        assert_eq!(acts.row(2), ([0, 1].as_slice(), [1.0, 3.0].as_slice()));
        assert_eq!((acts.get(0, 4), acts.get(0, 3), acts.get(1, 0)), (2.0, 0.0, 0.0));
        assert_eq!(acts.l0(), 4.0 / 3.0);
    }

    #[test]
    fn by_latent_lists_rows_in_order() {
        let mut by_latent = ByLatent::default();
        by_latent.rebuild(&three_rows(), 5);
        assert_eq!(by_latent.offsets, [0, 1, 3, 3, 3, 4]);
        assert_eq!(by_latent.rows, [2, 0, 2, 0]);
        assert_eq!(by_latent.entries, [2, 0, 3, 1]);
    }

    #[test]
    fn retain_keeps_row_boundaries() {
        let mut acts = three_rows();
        acts.retain(|entry| entry != 1 && entry != 2);
        assert_eq!(acts, FeatureActs { offsets: vec![0, 1, 1, 2], latents: vec![1, 1], values: vec![0.5, 3.0] });
    }

    #[test]
    fn appended_rows_follow() {
        let (mut acts, more) = (three_rows(), three_rows());
        acts.append(&more);
        assert_eq!(acts.n_rows(), 6);
        assert_eq!(acts.row(5), more.row(2));
    }
}
