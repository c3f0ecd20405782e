//! [`measure_step`]: the speed of a training step, compared with its floor, the encoder's matrix product alone.
//! [`measure_loading`]: the speed of loading rows. `just bench`, `benches/step.rs` and `benches/loading.rs` print them.

use std::time::Instant;

use harvester::{ActivationDataset, HookPoint};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    Result,
    data::{
        activations::Activations,
        rows::RowSource,
        shard_source::ShardSource,
        shuffle_buffer::{Cursor, ShuffleBuffer},
    },
    kernels::product::product_transposed,
    step::{Learner, architecture::TrainArchitecture, config::StepConfig, times::StepTimes, weights::Weights},
};

/// The training step to measure.
#[derive(Debug, Clone, Copy)]
pub struct StepShape {
    /// Architecture.
    pub architecture: TrainArchitecture,
    /// Width of the activations.
    pub d_in: usize,
    /// Number of latents.
    pub d_sae: usize,
    /// Active latents per token.
    pub k: usize,
    /// Tokens per step.
    pub batch: usize,
    /// Share of latents that count as dead, so that the auxiliary loss runs.
    pub dead: f64,
    /// Steps before the measured ones: a sparsity loss needs some until L0 has fallen.
    pub warmup_steps: usize,
}

/// Measured speeds: medians over steps.
#[derive(Debug, Clone, Copy)]
pub struct StepSpeed {
    /// Tokens per second of the whole step.
    pub tokens_per_second: f64,
    /// Tokens per second of the encoder's product alone, measured between the steps.
    pub product_tokens_per_second: f64,
    /// GFLOP/s of that product.
    pub product_gflops: f64,
    /// Active latents per token in the last step.
    pub l0: f64,
    /// Time of each part, summed over the measured steps.
    pub times: StepTimes,
}

/// Runs `n_steps` steps (at least one) on synthetic activations, and one plain encoder product after each.
///
/// # Panics
/// If `n_steps` is 0.
pub fn measure_step(shape: StepShape, n_steps: usize) -> StepSpeed {
    assert!(n_steps > 0, "nothing to measure");
    let StepShape { d_in, d_sae, batch, .. } = shape;
    let config = step_config(shape);
    let row_width = config.row_width(d_in);
    let mut learner = Learner::start(d_sae, vec![0.0; row_width], 0, config);
    let n_dead = (shape.dead * d_sae as f64) as usize;
    let mut hidden = vec![0.0; batch * d_sae];
    let (mut steps, mut products, mut l0) = (Vec::new(), Vec::new(), 0.0);
    let batches: Vec<_> = (0..3).map(|seed| synthetic_batch(batch, row_width, seed)).collect();
    for step in 0..n_steps + shape.warmup_steps {
        let x = &batches[step % 3];
        learner.dead_latents.tokens_since_fired[..n_dead].fill(u64::MAX / 2);
        if step == shape.warmup_steps {
            learner.times = StepTimes::default();
            steps.clear();
        }
        let begin = Instant::now();
        l0 = learner.step(x, 1e-3).l0;
        steps.push(begin.elapsed().as_secs_f64());
        if step >= shape.warmup_steps {
            let begin = Instant::now();
            product_transposed(&x[..batch * d_in], &learner.weights.w_enc, d_in, &mut hidden);
            products.push(begin.elapsed().as_secs_f64());
        }
    }
    let product_rate = batch as f64 / median(&mut products);
    StepSpeed {
        tokens_per_second: batch as f64 / median(&mut steps),
        product_tokens_per_second: product_rate,
        product_gflops: product_rate * (2 * d_in * d_sae) as f64 / 1e9,
        l0,
        times: learner.times,
    }
}

/// Seconds per batch that loading rows of `dataset` takes, with a buffer of `buffer_bytes`: the mean over `n_batches`,
/// including the loading of blocks.
///
/// # Errors
/// If the dataset does not have the hook point or cannot be read.
pub fn measure_loading(
    dataset: &ActivationDataset,
    hook_point: HookPoint,
    buffer_bytes: u64,
    batch: usize,
    n_batches: usize,
) -> Result<f64> {
    let rows = Activations::all(dataset, &[hook_point])?;
    let mut x = vec![0.0; batch * rows.widths().iter().sum::<usize>()];
    let mut buffer = ShuffleBuffer::new(ShardSource::new(&rows, 0, buffer_bytes), 0, Cursor::default());
    buffer.next_batch(&[1.0], &mut x)?; // touches every page of memory
    let begin = Instant::now();
    for _ in 0..n_batches {
        buffer.next_batch(&[1.0], &mut x)?;
    }
    Ok(begin.elapsed().as_secs_f64() / n_batches as f64)
}

fn step_config(shape: StepShape) -> StepConfig {
    let StepShape { architecture, d_in, d_sae, k, .. } = shape;
    StepConfig {
        auxk_alpha: if shape.dead > 0.0 { 1.0 / 32.0 } else { 0.0 },
        dead_after_tokens: 10_000_000,
        // The same prefixes as in the Python benchmark of SAELens.
        prefixes: vec![d_sae / 16, d_sae / 4, d_sae / 2, d_sae],
        skip: false,
        ..StepConfig::example(architecture, k, d_in, d_sae)
    }
}

/// Tokens that are sums of a few of 2,000 fixed directions plus noise. Some directions are more frequent than others.
fn synthetic_batch(batch: usize, d_in: usize, seed: u64) -> Vec<f32> {
    const N_DIRECTIONS: usize = 2000;
    let directions = Weights::random(N_DIRECTIONS, vec![0.0; d_in], 99).w_dec;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut x: Vec<f32> = (0..batch * d_in).map(|_| random.random_range(-0.3..0.3)).collect();
    for x in x.chunks_exact_mut(d_in) {
        for _ in 0..20 {
            let direction = (random.random::<f64>().powi(2) * N_DIRECTIONS as f64) as usize;
            let strength = random.random_range(2.0..8.0);
            x.iter_mut().zip(&directions[direction * d_in..]).for_each(|(x, d)| *x += strength * d);
        }
    }
    x
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
