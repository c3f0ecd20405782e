//! [`TopExamples`]: per latent, the contexts in which it fires most strongly.
//!
//! It keeps at most `capacity` examples per latent for any length of the corpus: one per context, and of examples with
//! the same tokens around the peak only the strongest, so that neither a repeated phrase nor a repeated text fills the
//! list. Which ones are kept does not depend on the order of the contexts: an example leaves only for one that is
//! stronger and has the same text, or for `capacity` stronger ones with other texts.

use harvester::TokenRows;
use trainer::FeatureActs;

/// Tokens around the peak that make two examples copies of each other.
const BEFORE: usize = 6;
const AFTER: usize = 3;

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

impl Candidate {
    /// Tokens around the peak, and the place of the peak in them.
    fn text(&self) -> (&[u32], usize) {
        let peak = self.peak as usize;
        let start = peak.saturating_sub(BEFORE);
        (&self.tokens[start..(peak + AFTER + 1).min(self.tokens.len())], peak - start)
    }

    /// True if it comes before `other`: it is stronger; among equals, in an earlier document or context.
    fn is_before(&self, other: &Self) -> bool {
        let place = |c: &Self| (c.document, c.context);
        other.activation.total_cmp(&self.activation).then(place(self).cmp(&place(other))).is_lt()
    }
}

/// The rows of one context: `start..end` of `tokens`, and the active latents of the same rows.
#[derive(Clone, Copy)]
pub(crate) struct ContextRows<'a> {
    pub(crate) tokens: &'a TokenRows,
    pub(crate) acts: &'a FeatureActs,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl ContextRows<'_> {
    /// The example of `latent` with its peak at `row`, with `reach` tokens on each side.
    pub(crate) fn example(&self, latent: u32, activation: f32, row: usize, reach: usize) -> Candidate {
        let from = self.start.max(row.saturating_sub(reach));
        let to = self.end.min(row + reach + 1);
        Candidate {
            activation,
            document: self.tokens.document[row],
            context: self.tokens.context[row],
            position: self.tokens.position[row],
            peak: (row - from) as u32,
            tokens: self.tokens.token[from..to].to_vec(),
            activations: (from..to).map(|row| self.acts.get(row, latent)).collect(),
        }
    }
}

/// The strongest examples of every latent so far.
#[derive(Debug)]
pub(crate) struct TopExamples {
    capacity: usize,
    /// Tokens kept on each side of the peak.
    reach: usize,
    /// Per latent, strongest first.
    pub(crate) latents: Vec<Vec<Candidate>>,
    /// Per latent, the activation below which no example can enter: that of its weakest once the list is full.
    floor: Vec<f32>,
    /// Buffer: the strongest activation of each latent in a context, and its row. `[d_sae]`
    strongest: Vec<(f32, u32)>,
    /// Buffer: the latents that are active in a context.
    active: Vec<u32>,
}

/// Buffers do not count.
impl PartialEq for TopExamples {
    fn eq(&self, other: &Self) -> bool {
        (self.capacity, self.reach, &self.latents) == (other.capacity, other.reach, &other.latents)
    }
}

impl TopExamples {
    pub(crate) fn new(d_sae: usize, capacity: usize, reach: usize) -> Self {
        let floor = if capacity == 0 { f32::INFINITY } else { 0.0 };
        Self {
            capacity,
            reach,
            latents: vec![vec![]; d_sae],
            floor: vec![floor; d_sae],
            strongest: vec![(0.0, 0); d_sae],
            active: vec![],
        }
    }

    /// Adds one context. Contexts may come in any order.
    pub(crate) fn add(&mut self, context: ContextRows<'_>) {
        for row in context.start..context.end {
            let (latents, activations) = context.acts.row(row);
            for (&latent, &activation) in latents.iter().zip(activations) {
                let strongest = &mut self.strongest[latent as usize];
                if strongest.0 == 0.0 {
                    self.active.push(latent);
                }
                if activation > strongest.0 {
                    *strongest = (activation, row as u32);
                }
            }
        }
        for latent in std::mem::take(&mut self.active) {
            let (activation, row) = std::mem::take(&mut self.strongest[latent as usize]);
            if activation >= self.floor[latent as usize] {
                self.offer(latent as usize, context.example(latent, activation, row as usize, self.reach));
            }
        }
    }

    /// Adds an example of a latent, if it is one of the strongest.
    pub(crate) fn offer(&mut self, latent: usize, candidate: Candidate) {
        let best = &mut self.latents[latent];
        // Most differ in the token at the peak, which is cheaper to compare.
        let peak = |candidate: &Candidate| candidate.tokens[candidate.peak as usize];
        let is_copy = |kept: &Candidate| peak(kept) == peak(&candidate) && kept.text() == candidate.text();
        if let Some(copy) = best.iter().position(is_copy) {
            if best[copy].is_before(&candidate) {
                return;
            }
            best.remove(copy);
        }
        let place = best.partition_point(|kept| kept.is_before(&candidate));
        if place >= self.capacity {
            return;
        }
        best.truncate(self.capacity - 1);
        best.insert(place, candidate);
        if best.len() == self.capacity {
            self.floor[latent] = best[self.capacity - 1].activation;
        }
    }

    /// Adds the examples of another text.
    pub(crate) fn merge(&mut self, other: Self) {
        for (latent, candidates) in other.latents.into_iter().enumerate() {
            candidates.into_iter().for_each(|candidate| self.offer(latent, candidate));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four contexts of two tokens; latent 0 fires on the second token of each with the given strength.
    fn run(order: &[usize], strengths: [f32; 4], texts: [u32; 4]) -> Vec<Candidate> {
        let mut top = TopExamples::new(1, 3, 4);
        for &c in order {
            let tokens = TokenRows {
                document: vec![9; 2],
                context: vec![c as u64; 2],
                position: vec![0, 1],
                token: vec![10 * texts[c], 10 * texts[c] + 1],
                role: vec![],
            };
            let acts = FeatureActs { offsets: vec![0, 0, 1], latents: vec![0], values: vec![strengths[c]] };
            top.add(ContextRows { tokens: &tokens, acts: &acts, start: 0, end: 2 });
        }
        top.latents.remove(0)
    }

    #[test]
    fn the_strongest_are_kept_with_their_window() {
        let best = run(&[0, 1, 2, 3], [1.0, 4.0, 2.0, 3.0], [0, 1, 2, 3]);
        assert_eq!(best.iter().map(|e| e.activation).collect::<Vec<_>>(), [4.0, 3.0, 2.0]);
        assert_eq!((best[0].tokens.as_slice(), best[0].peak), ([10, 11].as_slice(), 1));
        assert_eq!(best[0].activations, [0.0, 4.0]);
    }

    #[test]
    fn ties_and_the_order_of_reading_change_nothing() {
        let (strengths, texts) = ([2.0, 2.0, 2.0, 2.0], [0, 1, 2, 3]);
        let want = run(&[0, 1, 2, 3], strengths, texts);
        assert_eq!(want.iter().map(|e| e.context).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(run(&[3, 1, 0, 2], strengths, texts), want);
    }

    #[test]
    fn repeated_text_is_kept_once_where_it_is_strongest() {
        let (strengths, texts) = ([1.0, 4.0, 2.0, 4.0], [7, 7, 3, 7]);
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]] {
            let best = run(&order, strengths, texts);
            assert_eq!(best.iter().map(|e| e.context).collect::<Vec<_>>(), [1, 2]);
        }
    }
}
