//! How near its floor harvesting runs: tokens/s, GFLOP/s and peak memory up to the middle layer, bare forward and with
//! shards written, beside the rate of the matrix products they are made of, in the same run.
//!
//! `cargo bench -p harvester --bench harvest -- [--only BATCHxCTX] [MODEL]`

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use candle_core::{Device, Tensor};
use harvester::{
    Capture, Checkpoint, Corpus, CorpusOptions, HarvestConfig, HookPoint, Monitor, Silent, Transformer, harvest,
    machine::gemm_flops, model_source::ModelSource,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPES: [(usize, usize); 4] = [(8, 128), (8, 256), (4, 512), (2, 1024)];

/// Median of three timings after a warm-up, in seconds.
fn median(mut run: impl FnMut() -> Duration) -> f64 {
    run();
    let mut times = [run(), run(), run()];
    times.sort();
    times[1].as_secs_f64()
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

/// Highest resident memory of this process so far, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Times a harvest from its first token to its last, the model being loaded.
#[derive(Default)]
struct Stopwatch(Mutex<Option<Instant>>);

impl Monitor for Stopwatch {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {
        *self.0.lock().expect("one thread") = Some(Instant::now());
    }
    fn advance(&self, _n: u64) {}
    fn note(&self, _text: &str) {}
    fn finish(&self) {}
    fn cancelled(&self) -> bool {
        false
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let only = args.iter().position(|arg| arg == "--only").map(|at| args[at + 1].clone());
    let named = args.iter().enumerate().find(|(i, arg)| !arg.starts_with("--") && (*i == 0 || args[i - 1] != "--only"));
    let source: ModelSource = named.map_or("default", |(_, arg)| arg).parse().expect("a model");
    let resolved = source.resolve(&Silent).expect("the model");
    let model = Transformer::load(&Checkpoint::open(&resolved.path).expect("a model"), &Device::Cpu).expect("weights");
    let layer = model.config().n_layers / 2 - 1;
    let point = HookPoint::resid_post(layer);
    println!("hook point {point}");
    for (batch, ctx_len) in SHAPES.into_iter().filter(|(b, c)| only.as_ref().is_none_or(|o| *o == format!("{b}x{c}"))) {
        let gemm = gemm_flops() / 1e9;
        let flop = model.config().flop_per_token(layer + 1, ctx_len) as f64;
        let report = |what: &str, tokens: usize, seconds: f64| {
            let rate = tokens as f64 / seconds;
            let (gflops, peak) = (rate * flop / 1e9, peak_mib());
            let share = 100.0 * gflops / gemm;
            println!(
                "{what} {batch} x {ctx_len}: {rate:.0} tokens/s, {gflops:.0} of {gemm:.0} GFLOP/s ({share:.0} %), peak {peak} MiB"
            );
        };
        let ids: Vec<u32> = (0..batch * ctx_len).map(|i| (i * 7919 % 49_000) as u32).collect();
        let tokens = Tensor::from_vec(ids, (batch, ctx_len), &Device::Cpu).expect("shape");
        let seconds = median(|| timed(|| model.run(&tokens, &mut Capture::new(vec![point])).expect("a pass")));
        report("forward", batch * ctx_len, seconds);
        let n = 8 * batch * ctx_len;
        report("harvest", n, median(|| harvest_once(&resolved, point, batch, ctx_len, n)));
    }
}

fn harvest_once(
    model: &harvester::model_source::ResolvedModel,
    point: HookPoint,
    batch: usize,
    ctx_len: usize,
    n: usize,
) -> Duration {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/corpora/speeches.jsonl");
    let corpus = Corpus::open(&[corpora], &CorpusOptions::default()).expect("the bundled corpus");
    let out = tempfile::tempdir().expect("a temporary folder");
    let config =
        HarvestConfig { hook_points: vec![point], batch, ctx_len, tokens: Some(n as u64), ..Default::default() };
    let stopwatch = Stopwatch::default();
    harvest(model, &corpus, &config, out.path().join("activations"), &stopwatch).expect("a harvest");
    stopwatch.0.into_inner().expect("one thread").expect("it started").elapsed()
}
