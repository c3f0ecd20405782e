//! [`TopExamples`]: per latent, the contexts in which it fires most strongly. It keeps at most `capacity` examples per
//! latent for any length of the corpus, and one example per context, so that a repeated phrase does not fill the list.

use harvester::TokenRows;
use trainer::FeatureActs;

/// An example without its texts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) activation: f32,
    pub(crate) document: u64,
    pub(crate) context: u64,
    pub(crate) position: u32,
    pub(crate) peak: u32,
    pub(crate) tokens: Vec<u32>,
    pub(crate) activations: Vec<f32>,
}

/// The strongest examples of every latent so far.
#[derive(Debug)]
pub(crate) struct TopExamples {
    capacity: usize,
    /// Tokens shown on each side of the peak.
    reach: usize,
    /// Per latent, strongest first; ties by context, so that the order of reading does not matter.
    latents: Vec<Vec<Candidate>>,
    /// Buffer: `(latent, activation, row)` of one context.
    active: Vec<(u32, f32, usize)>,
}

/// The rows of one context: `start..end` of `tokens`, and the active latents of the same rows.
#[derive(Clone, Copy)]
pub(crate) struct ContextRows<'a> {
    pub(crate) tokens: &'a TokenRows,
    pub(crate) acts: &'a FeatureActs,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl TopExamples {
    pub(crate) fn new(d_sae: usize, capacity: usize, reach: usize) -> Self {
        Self { capacity, reach, latents: vec![vec![]; d_sae], active: vec![] }
    }

    /// Adds one context. Contexts may come in any order.
    pub(crate) fn add(&mut self, context: ContextRows<'_>) {
        self.active.clear();
        for row in context.start..context.end {
            let (latents, values) = context.acts.row(row);
            self.active.extend(latents.iter().zip(values).map(|(&latent, &value)| (latent, value, row)));
        }
        // Sorts by latent, then strongest first, then earliest.
        self.active.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
        let active = std::mem::take(&mut self.active);
        for of_latent in active.chunk_by(|a, b| a.0 == b.0) {
            let (latent, activation, row) = of_latent[0];
            self.offer(latent, activation, row, context);
        }
        self.active = active;
    }

    fn offer(&mut self, latent: u32, activation: f32, row: usize, context: ContextRows<'_>) {
        let number = context.tokens.context[row];
        let best = &mut self.latents[latent as usize];
        let stronger = |other: &Candidate| {
            other.activation > activation || (other.activation == activation && other.context < number)
        };
        let place = best.partition_point(stronger);
        if place >= self.capacity {
            return;
        }
        best.truncate(self.capacity - 1);
        let from = context.start.max(row.saturating_sub(self.reach));
        let to = context.end.min(row + self.reach + 1);
        let candidate = Candidate {
            activation,
            document: context.tokens.document[row],
            context: number,
            position: context.tokens.position[row],
            peak: (row - from) as u32,
            tokens: context.tokens.token[from..to].to_vec(),
            activations: (from..to).map(|row| context.acts.get(row, latent)).collect(),
        };
        best.insert(place, candidate);
    }

    /// Per latent, strongest first.
    pub(crate) fn finish(self) -> Vec<Vec<Candidate>> {
        self.latents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four contexts of two tokens; latent 0 fires on the second token of each with the given strength.
    fn run(order: &[usize], strengths: [f32; 4]) -> Vec<Candidate> {
        let mut top = TopExamples::new(1, 3, 4);
        for &c in order {
            let tokens = TokenRows {
                document: vec![9; 2],
                context: vec![c as u64; 2],
                position: vec![0, 1],
                token: vec![10 * c as u32, 10 * c as u32 + 1],
                role: vec![],
            };
            let acts = FeatureActs { offsets: vec![0, 0, 1], latents: vec![0], values: vec![strengths[c]] };
            top.add(ContextRows { tokens: &tokens, acts: &acts, start: 0, end: 2 });
        }
        top.finish().remove(0)
    }

    #[test]
    fn the_strongest_are_kept_with_their_window() {
        let best = run(&[0, 1, 2, 3], [1.0, 4.0, 2.0, 3.0]);
        assert_eq!(best.iter().map(|e| e.activation).collect::<Vec<_>>(), [4.0, 3.0, 2.0]);
        assert_eq!((best[0].tokens.as_slice(), best[0].peak), ([10, 11].as_slice(), 1));
        assert_eq!(best[0].activations, [0.0, 4.0]);
    }

    #[test]
    fn ties_and_the_order_of_reading_change_nothing() {
        let strengths = [2.0, 2.0, 2.0, 2.0];
        let want = run(&[0, 1, 2, 3], strengths);
        assert_eq!(want.iter().map(|e| e.context).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(run(&[3, 1, 0, 2], strengths), want);
    }
}
