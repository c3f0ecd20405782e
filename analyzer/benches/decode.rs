//! Measures generation: tokens/s of reading a prompt and of writing after it, one text and eight at once, for each number
//! type of the products, and how much longer a token takes if a latent is clamped on it; beside the floor of writing one
//! text, which is to read every weight once per token.
//!
//! `cargo bench --workspace --bench decode -- [--compute f32|int8] [--model MODEL]`

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

#[path = "../../harvester/benches/memory/mod.rs"]
mod memory;

use std::{hint::black_box, time::Instant};

use analyzer::{GenerateConfig, Generation, Intervention, Interventions, SaeSite};
use harvester::{
    Batch, Compute, Hook, HookPoint, KvCache, LanguageModel, ModelConfig, ModelSource, NoHook, Silent, SpecialToken,
};
use rayon::prelude::*;
use trainer::{Nonlinearity, Sae, SaeConfig, SaeWeights};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PROMPT: &str = "The old lighthouse keeper had seen many storms, but the one that came that winter was unlike \
    anything he had known. He wrote in his diary that the sea itself";

const NEW_TOKENS: usize = 128;

/// Texts written at once.
const STREAMS: usize = 8;

const LONG_PROMPT: usize = 512;

const ROUNDS: usize = 5;
/// A difference of a few percent needs more.
const STEERED_ROUNDS: usize = 9;
/// Every token is edited: no activation has this value by itself.
const CLAMPED: f32 = 2.5;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).map(|place| args[place + 1].as_str());
    let source: ModelSource = option("--model").unwrap_or("default").parse().expect("a model");
    let only: Option<Compute> = option("--compute").map(|name| name.parse().expect("f32 or int8"));
    let bytes_per_second = read_rate();
    println!("this machine reads {:.1} GB/s", bytes_per_second / 1e9);
    for compute in [Compute::F32, Compute::Int8].into_iter().filter(|it| only.is_none_or(|only| only == *it)) {
        let model = LanguageModel::open(&source, compute, &Silent).expect("a model");
        let prompt = model.tokenizer().prompt(SpecialToken::None, PROMPT).expect("tokens");
        let bytes = weight_bytes(model.config(), compute);
        let floor = bytes_per_second / bytes;
        println!("{compute}: {:.0} MB of weights, at most {floor:.0} tokens/s of one text", bytes / 1e6);
        let (sae, hook_point) = random_sae(model.config());
        let site = SaeSite { sae: &sae, hook_point, sink_norm: f32::INFINITY };
        let edits = [Intervention::clamp(7, CLAMPED).into()];
        let hook = || Interventions::new(&model, &[site.into()], &edits).expect("edits");
        // In turns, so that both meet the same machine.
        let rounds: Vec<[f64; 2]> = (0..=STEERED_ROUNDS)
            .map(|_| [write(&model, &prompt, 1, &mut NoHook), write(&model, &prompt, 1, &mut hook())])
            .skip(1) // a warm-up
            .collect();
        let [one, steered] = [0, 1].map(|side| middle(rounds.iter().map(|round| round[side]).collect()));
        report("one text", one, &format!(", {:.0} % of the floor", 100.0 * one / floor));
        let slower = middle(rounds.iter().map(|[plain, steered]| plain / steered - 1.0).collect());
        report("one text, a latent clamped", steered, &format!(", {:+.1} % time", 100.0 * slower));
        report(&format!("{STREAMS} texts at once"), median(|| write(&model, &prompt, STREAMS, &mut NoHook)), "");
        report(&format!("a prompt of {LONG_PROMPT} tokens"), median(|| read(&model)), "");
        println!("  peak memory {} MiB", memory::peak_mib());
    }
}

fn report(what: &str, rate: f64, more: &str) {
    println!("  {what}: {rate:.1} tokens/s{more}");
}

/// The median rate of some rounds, after a warm-up.
fn median(mut rate: impl FnMut() -> f64) -> f64 {
    rate();
    middle((0..ROUNDS).map(|_| rate()).collect())
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// New tokens/s after the prompt has been read.
fn write(model: &LanguageModel, prompt: &[u32], texts: usize, hook: &mut dyn Hook) -> f64 {
    let mut generation = Generation::new(model).expect("weights");
    let config = GenerateConfig { max_new_tokens: NEW_TOKENS, ..Default::default() };
    for text in 0..texts {
        // Each begins elsewhere, so that they differ.
        generation.add(&prompt[text % prompt.len()..], &config).expect("a prompt that fits");
    }
    generation.step(hook).expect("a step");
    let (mut written, start) = (0, Instant::now());
    while !generation.is_done() {
        written += generation.step(hook).expect("a step").len();
    }
    written as f64 / start.elapsed().as_secs_f64()
}

/// Prompt tokens/s up to the first new token.
fn read(model: &LanguageModel) -> f64 {
    let tokens: Vec<u32> = (0..LONG_PROMPT).map(|i| (1000 + 7 * i % 40_000) as u32).collect();
    let mut cache = KvCache::new(model.config());
    let mut batch = Batch::default();
    batch.push(cache.add(LONG_PROMPT).expect("a prompt that fits"), &tokens);
    let start = Instant::now();
    let resid = model.resid_final(&batch, Some(&mut cache), &mut NoHook).expect("a pass");
    let last = resid.narrow(0, LONG_PROMPT - 1, 1).expect("the last row");
    black_box(model.unembed(&last).expect("logits"));
    LONG_PROMPT as f64 / start.elapsed().as_secs_f64()
}

/// Bytes/s of reading memory on all cores.
fn read_rate() -> f64 {
    let values = vec![1u64; 1 << 25]; // 256 MB
    let seconds = |values: &[u64]| {
        let start = Instant::now();
        black_box(values.par_chunks(1 << 16).map(|part| part.iter().sum::<u64>()).sum::<u64>());
        start.elapsed().as_secs_f64()
    };
    let best = (0..10).map(|_| seconds(&values)).fold(f64::INFINITY, f64::min);
    (8 * values.len()) as f64 / best
}

/// Bytes of the matrices that a token is multiplied by.
fn weight_bytes(config: &ModelConfig, compute: Compute) -> f64 {
    let weights = config.flop_per_token(config.n_layers, 0) as f64 / 2.0 + (config.d_vocab * config.d_model) as f64;
    weights
        * match compute {
            Compute::F32 => 4.0,
            Compute::Int8 => 1.0 + 4.0 / 64.0, // a scale for each 64
        }
}

/// An SAE of the size that the demo trains, at the middle layer.
fn random_sae(config: &ModelConfig) -> (Sae, HookPoint) {
    let (d_in, d_sae) = (config.d_model, 8 * config.d_model);
    let values = |n: usize| (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.5 - 1.0) / 24.0).collect::<Vec<f32>>();
    let weights = SaeWeights {
        w_enc: values(d_sae * d_in),
        b_enc: vec![0.0; d_sae],
        nonlinearity: Nonlinearity::JumpRelu { threshold: vec![1.0; d_sae] },
        w_dec: values(d_sae * d_in),
        b_dec: vec![0.0; d_in],
        w_skip: None,
    };
    let sae = Sae::new(SaeConfig::new(d_in, d_sae), weights).expect("an SAE");
    (sae, HookPoint::resid_post(config.n_layers / 2 - 1))
}
