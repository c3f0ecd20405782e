//! A folder of activations with known features: each token is a sum of a few directions from a fixed set, plus a little
//! noise and a common mean. A harvest's own writer writes the folder. Also, the small runs on it that several tests
//! use.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test that includes this file uses only a part of it")]

use std::path::Path;

use harvester::{
    ActivationDataset, Context, ContextCursor, CorpusOptions, CorpusSource, Counts, Family, HarvestConfig,
    HarvestManifest, HookPoint, HookPointSummary, Manifest, ModelIdentity, NormQuantiles, ShardWriter, Site,
    SpecialToken, StorageDtype,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use trainer::{TrainArchitecture, TrainConfig};

/// The directions and the noise that the activations are made of.
pub(crate) struct Dictionary {
    pub d_in: usize,
    pub n_features: usize,
    /// Mean number of active features per token.
    pub active: f64,
    pub noise: f32,
    /// Width of [`EARLIER`], the second hook point of [`Dictionary::write_two`].
    pub earlier_width: usize,
}

pub(crate) const CTX_LEN: usize = 32;

/// The activations of tests that train a whole run in a second.
pub(crate) const SMALL: Dictionary =
    Dictionary { d_in: 16, n_features: 24, active: 2.0, noise: 0.02, earlier_width: 20 };

/// The hook point of the activations.
pub(crate) const LATER: HookPoint = HookPoint::Block { layer: 1, site: Site::ResidPost };
/// The second hook point of [`Dictionary::write_two`].
pub(crate) const EARLIER: HookPoint = HookPoint::Embed;

impl Dictionary {
    /// Directions of norm 1. `[n_features, d_in]`
    pub(crate) fn directions(&self) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(77);
        let mut directions: Vec<f32> = (0..self.n_features * self.d_in).map(|_| normal(&mut random)).collect();
        for row in directions.chunks_mut(self.d_in) {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter_mut().for_each(|value| *value /= norm);
        }
        directions
    }

    /// Writes `n_contexts` contexts. Position 0 of each is a sink of huge norm, as in a real model.
    pub(crate) fn write(&self, dir: &Path, n_contexts: u64) -> HarvestManifest {
        self.write_places(dir, n_contexts, &[LATER])
    }

    /// The same at two hook points. The activations at [`EARLIER`] are a linear map of those at [`LATER`], of another
    /// width and scale.
    pub(crate) fn write_two(&self, dir: &Path, n_contexts: u64) -> HarvestManifest {
        self.write_places(dir, n_contexts, &[EARLIER, LATER])
    }

    fn write_places(&self, dir: &Path, n_contexts: u64, places: &[HookPoint]) -> HarvestManifest {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let directions = self.directions();
        let mut writer = ShardWriter::open(dir, self.manifest(places)).unwrap();
        for index in 0..n_contexts {
            let mut values = vec![0.0; CTX_LEN * self.d_in];
            for (position, x) in values.chunks_mut(self.d_in).enumerate() {
                self.token(&mut random, &directions, x);
                if position == 0 {
                    x.iter_mut().for_each(|value| *value = 1000.0);
                }
            }
            let mut next = ContextCursor::default();
            (next.contexts, next.documents) = (index + 1, index + 1);
            let context =
                Context { index, tokens: vec![1; CTX_LEN], documents: vec![index; CTX_LEN], roles: vec![], next };
            let at = |place: &HookPoint| if *place == EARLIER { self.mapped(&values) } else { values.clone() };
            writer.write(&[context], &places.iter().map(at).collect::<Vec<_>>()).unwrap();
        }
        writer.finish().unwrap()
    }

    /// A fixed random map of each row. `[n, d_in]` -> `[n, earlier_width]`
    fn mapped(&self, values: &[f32]) -> Vec<f32> {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let map: Vec<f32> = (0..self.earlier_width * self.d_in).map(|_| 3.0 * normal(&mut random)).collect();
        let product = |x: &[f32], row: &[f32]| x.iter().zip(row).map(|(x, m)| x * m).sum::<f32>();
        values.chunks(self.d_in).flat_map(|x| map.chunks(self.d_in).map(move |row| product(x, row))).collect()
    }

    fn token(&self, random: &mut ChaCha8Rng, directions: &[f32], x: &mut [f32]) {
        for (i, value) in x.iter_mut().enumerate() {
            *value = 0.5 * ((i % 3) as f32 - 1.0) + self.noise * normal(random);
        }
        for direction in directions.chunks(self.d_in) {
            if random.random::<f64>() < self.active / self.n_features as f64 {
                let strength = random.random_range(0.5..1.5);
                x.iter_mut().zip(direction).for_each(|(x, d)| *x += strength * d);
            }
        }
    }

    fn manifest(&self, places: &[HookPoint]) -> HarvestManifest {
        let width = |place: &HookPoint| if *place == EARLIER { self.earlier_width } else { self.d_in };
        let config = HarvestConfig {
            hook_points: places.to_vec(),
            ctx_len: CTX_LEN,
            dtype: StorageDtype::F32,
            separator: SpecialToken::None,
            bos: SpecialToken::None,
            part_tokens: 16 * CTX_LEN * 8,
            ..HarvestConfig::default()
        };
        manifest(config, &places.iter().map(width).collect::<Vec<_>>())
    }
}

/// The manifest of a harvest of `config` from a model that does not exist; `widths` are those of the hook points.
pub(crate) fn manifest(config: HarvestConfig, widths: &[usize]) -> HarvestManifest {
    let places = config.hook_points.iter().zip(widths);
    let hook_points = places.map(|(place, width)| summary(*place, *width)).collect();
    HarvestManifest {
        format: HarvestManifest::FORMAT.into(),
        version: HarvestManifest::VERSION,
        refract_version: "0.0.0".into(),
        complete: false,
        model: ModelIdentity {
            source: "synthetic".into(),
            relative: None,
            recorded: None,
            family: Family::Llama,
            sha256: "00".into(),
            tokenizer_sha256: "00".into(),
            n_layers: 2,
            d_model: widths.last().copied().unwrap_or_default(),
            d_vocab: 2,
        },
        corpus: vec![CorpusSource {
            named: None,
            name: "synthetic".into(),
            path: "none".into(),
            sha256: "00".into(),
            bytes: 1,
            first_document: 0,
            documents: 1,
            duplicates: 0,
            skipped_files: 0,
            malformed_lines: 0,
        }],
        sources: vec![],
        corpus_options: CorpusOptions::default(),
        config,
        merged_from: None,
        layers_run: 2,
        flop_per_token: 1,
        counts: Counts::default(),
        hook_points,
        parts: vec![],
        documents: None,
        roles: false,
    }
}

/// The part of a hook point's summary that the writer does not compute itself.
fn summary(place: HookPoint, width: usize) -> HookPointSummary {
    HookPointSummary {
        name: place,
        d_model: width,
        sink_norm: 100.0,
        sinks: 0,
        mean_to_spread: 0.0,
        norm_quantiles: NormQuantiles { p01: 0.0, p50: 0.0, p99: 0.0, p999: 0.0, max: 0.0 },
        mean: vec![0.0; width],
        std: vec![0.0; width],
    }
}

/// 30 steps: about three passes over 200 contexts of [`SMALL`], with several blocks per epoch.
pub(crate) fn small_config(architecture: TrainArchitecture) -> TrainConfig {
    TrainConfig {
        architecture,
        d_sae: Some(32),
        k: 3,
        tokens: 30 * 512,
        batch: 512,
        dead_after_tokens: 2000,
        buffer_bytes: 2 * 16 * 8 * CTX_LEN as u64 * 16 * 4,
        checkpoint_every: 7,
        log_every: 4,
        ..TrainConfig::default()
    }
}

/// [`SMALL`] at [`LATER`].
pub(crate) fn dataset(n_contexts: u64) -> (tempfile::TempDir, ActivationDataset) {
    written(|dir| SMALL.write(dir, n_contexts))
}

/// [`SMALL`] at [`EARLIER`] and [`LATER`].
pub(crate) fn dataset_of_two(n_contexts: u64) -> (tempfile::TempDir, ActivationDataset) {
    written(|dir| SMALL.write_two(dir, n_contexts))
}

fn written(write: impl FnOnce(&Path) -> HarvestManifest) -> (tempfile::TempDir, ActivationDataset) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let dataset = ActivationDataset::open(dir.path()).unwrap();
    (dir, dataset)
}

/// The default recipe in batches of 1,024, with as many latents as the default expansion gives, on one and a half
/// million tokens.
pub(crate) fn recipe() -> TrainConfig {
    TrainConfig { tokens: 1_500_000, batch: 1024, ..TrainConfig::default() }
}

/// For each row of `directions`, takes the largest cosine with a row of `rows`. Returns their mean and the share above
/// 0.9.
pub(crate) fn mean_max_cosine(directions: &[f32], rows: &[f32], width: usize) -> (f32, f32) {
    let norm = |v: &[f32]| v.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / norm(a) / norm(b);
    let best: Vec<f32> = directions
        .chunks(width)
        .map(|direction| rows.chunks(width).map(|row| cosine(direction, row)).fold(-1.0, f32::max))
        .collect();
    let n = best.len() as f32;
    (best.iter().sum::<f32>() / n, best.iter().filter(|&&cosine| cosine > 0.9).count() as f32 / n)
}

fn normal(random: &mut ChaCha8Rng) -> f32 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    (radius * (std::f64::consts::TAU * random.random::<f64>()).cos()) as f32
}
