//! [`IndexState`]: everything that the pass collects. States of two texts merge, and neither the order of the contexts
//! nor the cut into parts matters: a state is a function of the set of contexts.

use super::{
    context_sample::{Budget, ContextSample},
    counts::Counts,
    top_examples::{ContextRows, TopExamples},
};
use crate::{
    EncodedRows,
    features::{FeaturesManifest, NO_SOURCE, Sample, part_of},
};

/// Share of the contexts that may be in the control sample: 1 in 16, so that it costs no more than that of the time.
const CONTROL_SHARE: u64 = 16;
/// Tokens in the control sample at most.
const CONTROL_TOKENS: u64 = 65_536;

/// Facts of the contexts seen so far.
#[derive(Debug, PartialEq)]
pub(crate) struct IndexState {
    pub(crate) counts: Counts,
    /// Tokens of each source. `[n_sources]`
    pub(crate) source_tokens: Vec<u64>,
    /// Number of tokens.
    pub(crate) tokens: u64,
    /// How often each token of the vocabulary occurs. `[d_vocab]`
    pub(crate) token_counts: Vec<u64>,
    pub(crate) top: TopExamples,
    pub(crate) sample: ContextSample,
    /// Contexts of the sample, encoded with a random dictionary.
    pub(crate) control: ContextSample,
}

impl IndexState {
    /// The state of no text.
    pub(crate) fn new(manifest: &FeaturesManifest) -> Self {
        let (d_sae, n_sources, config) = (manifest.d_sae, manifest.sources.len(), &manifest.config);
        Self {
            counts: Counts::new(d_sae, n_sources),
            source_tokens: vec![0; n_sources],
            tokens: 0,
            token_counts: vec![0; manifest.model.d_vocab],
            top: TopExamples::new(d_sae, config.examples, config.reach),
            sample: ContextSample::new(Budget::Entries(config.sample), u64::MAX),
            control: ContextSample::new(Budget::Tokens(CONTROL_TOKENS), u64::MAX / CONTROL_SHARE),
        }
    }

    /// The contexts that are both in the sample and in the control sample, encoded with each dictionary.
    pub(crate) fn same_text(&self) -> [Sample; 2] {
        // Each holds every context with a hash below its cut.
        let cut = self.sample.cut().min(self.control.cut());
        [&self.sample, &self.control].map(|sample| sample.below(cut))
    }

    /// Adds whole contexts. `source`: the source of each row, [`NO_SOURCE`] for none.
    pub(crate) fn add(&mut self, encoded: &EncodedRows, source: &[u32]) {
        let EncodedRows { rows, ordinary, acts } = encoded;
        for context in rows.contexts() {
            for row in context.clone().filter(|&row| ordinary[row]) {
                self.tokens += 1;
                if let Some(count) = self.token_counts.get_mut(rows.token[row] as usize) {
                    *count += 1;
                }
                let place = Some(source[row]).filter(|source| *source != NO_SOURCE).map(|source| source as usize);
                if let Some(source) = place {
                    self.source_tokens[source] += 1;
                }
                let (latents, activations) = acts.row(row);
                self.counts.add(latents, activations, place);
            }
            self.top.add(ContextRows { tokens: rows, acts, start: context.start, end: context.end });
            if self.sample.wants(rows.document[context.start], rows.context[context.start]) {
                self.sample.add(part_of(encoded, source, context));
            }
        }
    }

    /// Adds contexts that were encoded with the random dictionary.
    pub(crate) fn add_control(&mut self, contexts: &Sample) {
        self.control.restore(contexts);
    }

    /// Sets the counts of a manifest.
    pub(crate) fn describe(&self, manifest: &mut FeaturesManifest) {
        manifest.tokens = self.tokens;
        manifest.never_active = self.counts.latents.iter().filter(|counts| counts.n_active == 0).count() as u64;
        for (source, tokens) in manifest.sources.iter_mut().zip(&self.source_tokens) {
            source.tokens = *tokens;
        }
        manifest.sample_cuts = [self.sample.cut(), self.control.cut()];
    }

    /// Adds the state of another text.
    pub(crate) fn merge(&mut self, other: Self) {
        self.counts.merge(&other.counts);
        self.source_tokens.iter_mut().zip(other.source_tokens).for_each(|(tokens, other)| *tokens += other);
        self.tokens += other.tokens;
        self.token_counts.iter_mut().zip(other.token_counts).for_each(|(count, other)| *count += other);
        self.top.merge(other.top);
        self.sample.merge(other.sample);
        self.control.merge(other.control);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use harvester::TokenRows;

    use super::*;
    use crate::{
        features::{IndexConfig, tests::manifest},
        index::{context_sample::mixed, tables},
    };

    const D_SAE: usize = 12;

    /// Context `number`: up to 40 tokens of 9, so that texts repeat, with random latents and few activations, so that
    /// they tie.
    fn context(number: u64) -> (EncodedRows, Vec<u32>) {
        let random = |stream: u64, n: u64| mixed(mixed(number) ^ mixed(stream)) % n;
        let len = 1 + random(0, 40) as usize;
        let mut sample = Sample::default();
        for position in 0..len as u64 {
            let mut latents: Vec<u32> =
                (0..random(position + 50, 5)).map(|i| random(60 * i + position, D_SAE as u64) as u32).collect();
            latents.sort_unstable();
            latents.dedup();
            let activations = latents
                .iter()
                .map(|latent| (1 + random(u64::from(*latent) + 99 * position, 6)) as f32 * 0.37)
                .collect();
            sample.push(crate::features::SampleRow {
                document: number / 3,
                context: number,
                position: position as u32,
                token: random(position + 7, 9) as u32,
                source: [None, Some(0), Some(1)][(number % 3) as usize],
                ordinary: position > 0,
                latents: if position > 0 { latents } else { vec![] },
                activations: if position > 0 { activations } else { vec![] },
            });
        }
        (sample.encoded, sample.source)
    }

    fn run() -> FeaturesManifest {
        let config = IndexConfig { examples: 6, reach: 4, sample: 900, ..IndexConfig::default() };
        let sources = ["a", "b"].map(|name| crate::features::IndexedSource {
            name: name.into(),
            tokens: 0,
            first_document: 0,
            documents: 0,
        });
        FeaturesManifest { d_sae: D_SAE, config, sources: sources.to_vec(), ..manifest() }
    }

    fn state(numbers: impl IntoIterator<Item = u64>) -> IndexState {
        let mut state = IndexState::new(&run());
        for number in numbers {
            let (encoded, source) = context(number);
            state.add(&encoded, &source);
            state.add_control(&part_of(&encoded, &source, 0..source.len()));
        }
        state
    }

    #[test]
    fn neither_the_order_of_the_contexts_nor_the_cut_into_parts_matters() {
        let whole = state(0..300);
        assert!(whole.sample.cut() < u64::MAX, "the budget of the sample is full");
        assert!(whole.top.latents.iter().all(|top| top.len() == 6));
        assert!(!whole.control.joined().is_empty());
        for seed in 0..20 {
            let mut numbers: Vec<u64> = (0..300).collect();
            numbers.sort_by_key(|number| mixed(number ^ mixed(seed)));
            let n_parts = 1 + seed as usize % 5;
            let mut parts: Vec<IndexState> =
                numbers.chunks(300 / n_parts + 1).map(|part| state(part.iter().copied())).collect();
            // Merged in any order: now to the front, now to the back.
            while parts.len() > 1 {
                let last = parts.pop().unwrap();
                let at = mixed(seed ^ parts.len() as u64) as usize % parts.len();
                parts[at].merge(last);
            }
            assert_eq!(parts[0], whole, "seed {seed}");
        }
    }

    #[test]
    fn the_control_is_compared_on_the_same_text_whichever_sample_is_smaller() {
        for sample in [300, 100_000] {
            let mut run = run();
            run.config.sample = sample;
            let mut state = IndexState::new(&run);
            for number in 0..300 {
                let (encoded, source) = context(number);
                state.add(&encoded, &source);
                state.add_control(&part_of(&encoded, &source, 0..source.len()));
            }
            assert_eq!(state.sample.cut() < state.control.cut(), sample == 300);
            let [of_sae, of_control] = state.same_text();
            assert!(!of_sae.is_empty());
            assert_eq!(of_sae.encoded.rows, of_control.encoded.rows);
        }
    }

    #[test]
    fn what_is_counted_is_what_a_second_count_finds() {
        let state = state(0..300);
        let mut counts = vec![(0u64, 0f64, 0f32); D_SAE];
        for number in 0..300 {
            let acts = context(number).0.acts;
            for (&latent, &value) in acts.latents.iter().zip(&acts.values) {
                let (n, sum, max) = &mut counts[latent as usize];
                (*n, *sum, *max) = (*n + 1, *sum + f64::from(value), max.max(value));
            }
        }
        for (latent, (n, sum, max)) in counts.into_iter().enumerate() {
            let found = state.counts.latents[latent];
            assert_eq!((found.n_active, found.max), (n, max));
            assert!((found.sum as f64 / super::super::counts::UNITS - sum).abs() < 1e-3);
            let histogram = state.counts.histogram(latent);
            assert_eq!(histogram.counts.iter().map(|count| u64::from(*count)).sum::<u64>(), n);
        }
    }

    #[test]
    fn a_saved_state_is_read_back_and_goes_on() {
        let (whole, mut first) = (state(0..300), state(0..170));
        for (n, next) in [(170, 240), (240, 300)] {
            let (dir, mut run) = (tempfile::tempdir().unwrap(), run());
            first.describe(&mut run);
            tables::write(&first, &run, None, dir.path()).unwrap();
            let mut read = tables::read(dir.path(), &run).unwrap();
            assert_eq!(read, first);
            read.merge(state(n..next));
            first = read;
        }
        assert_eq!(first, whole);
        let rows = TokenRows::default();
        first.add(&EncodedRows { rows, ..EncodedRows::default() }, &[]);
        assert_eq!(first, whole, "no rows change nothing");
    }
}
