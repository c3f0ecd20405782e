//! Examples over the whole range of a latent's activations, and rows where it is silent, both drawn from the sample.
//! The draw depends only on the sample and the latent.

use super::{
    context_sample::mixed,
    top_examples::{Candidate, ContextRows},
};
use crate::features::{ByLatent, Sample};

/// Sampled examples per latent: one of each tenth of its activations.
const TENTHS: usize = 10;
/// Silent rows per latent.
const SILENT: usize = 10;
/// Rows tried for each of them: a dense latent is silent almost nowhere.
const TRIES: u64 = 20;

/// The sample, prepared for drawing.
pub(crate) struct Draw<'a> {
    pub(crate) sample: &'a Sample,
    pub(crate) by_latent: &'a ByLatent,
    /// First row of the context of each row, and the row after its last.
    contexts: Vec<(u32, u32)>,
    reach: usize,
}

impl<'a> Draw<'a> {
    pub(crate) fn new(sample: &'a Sample, by_latent: &'a ByLatent, reach: usize) -> Self {
        let contexts = sample.encoded.rows.contexts().into_iter();
        let contexts = contexts.flat_map(|rows| vec![(rows.start as u32, rows.end as u32); rows.len()]).collect();
        Self { sample, by_latent, contexts, reach }
    }

    /// One example of each tenth of a latent's activations, strongest first, with the share of its activations that are
    /// smaller. A latent with fewer activations has one example for each.
    pub(crate) fn examples(&self, latent: u32) -> Vec<(f32, Candidate)> {
        let (rows, values) = self.by_latent.of(latent as usize);
        let n = rows.len();
        let mut ascending: Vec<usize> = (0..n).collect();
        ascending.sort_by(|&a, &b| values[a].total_cmp(&values[b]).then(rows[a].cmp(&rows[b])));
        let tenths = TENTHS.min(n);
        let drawn = (0..tenths).rev().map(|tenth| {
            let (start, end) = (tenth * n / tenths, (tenth + 1) * n / tenths);
            start + (mixed(mixed(u64::from(latent)) ^ tenth as u64) % (end - start) as u64) as usize
        });
        drawn.map(|rank| (rank as f32 / n as f32, self.example(latent, rows, values, ascending[rank]))).collect()
    }

    fn example(&self, latent: u32, rows: &[u32], values: &[f32], at: usize) -> Candidate {
        let encoded = &self.sample.encoded;
        let (start, end) = self.contexts[rows[at] as usize];
        let (start, end) = (start as usize, end as usize);
        let context = ContextRows { tokens: &encoded.rows, acts: &encoded.acts, start, end };
        context.example(latent, values[at], rows[at] as usize, self.reach)
    }

    /// Ordinary rows in whose window a latent never fires, in the order of drawing.
    pub(crate) fn silent(&self, latent: u32) -> Vec<u32> {
        let (rows, n) = (self.by_latent.of(latent as usize).0, self.sample.len() as u64);
        let mut silent = vec![];
        for at in 0..(SILENT as u64 * TRIES).min(n) {
            let row = (mixed(mixed(u64::from(latent) | 1 << 32) ^ at) % n) as u32;
            let (start, end) = self.contexts[row as usize];
            let window = start.max(row.saturating_sub(self.reach as u32))..end.min(row + self.reach as u32 + 1);
            let fires =
                rows.partition_point(|row| *row < window.start) != rows.partition_point(|row| *row < window.end);
            if !fires && self.sample.encoded.ordinary[row as usize] && !silent.contains(&row) {
                silent.push(row);
                if silent.len() == SILENT {
                    break;
                }
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::SampleRow;

    /// Five contexts of 100 tokens; latent 0 fires on every fourth token of the first three, ever more strongly.
    fn sample() -> Sample {
        let mut sample = Sample::default();
        for row in 0..500u32 {
            let fires = row < 300 && row % 4 == 1;
            let (latents, activations) = if fires { (vec![0], vec![row as f32]) } else { (vec![], vec![]) };
            let (context, position) = (u64::from(row / 100), row % 100);
            let ordinary = position > 0;
            sample.push(SampleRow { context, position, ordinary, latents, activations, ..SampleRow::default() });
        }
        sample
    }

    #[test]
    fn each_tenth_of_the_activations_gives_one_example() {
        let sample = sample();
        let by_latent = sample.by_latent(2);
        let examples = Draw::new(&sample, &by_latent, 5).examples(0);
        assert_eq!(examples.len(), 10);
        for ((quantile, example), tenth) in examples.iter().zip((0..10).rev()) {
            assert!((tenth as f32 / 10.0 - 0.014..(tenth + 1) as f32 / 10.0).contains(quantile), "{quantile} {tenth}");
            assert_eq!(example.activations[example.peak as usize], example.activation);
            let row = example.context as usize * 100 + example.position as usize;
            assert_eq!(example.activation, row as f32);
        }
        assert!(Draw::new(&sample, &by_latent, 5).examples(1).is_empty(), "it never fires");
    }

    #[test]
    fn a_latent_is_silent_around_its_silent_rows() {
        let sample = sample();
        let by_latent = sample.by_latent(2);
        let silent = Draw::new(&sample, &by_latent, 5).silent(0);
        assert_eq!(silent.len(), 10);
        assert!(silent.iter().all(|row| *row >= 300 && row % 100 > 0), "{silent:?}");
        assert_eq!(Draw::new(&Sample::default(), &Sample::default().by_latent(1), 5).silent(0), [0u32; 0]);
    }
}
