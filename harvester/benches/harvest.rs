//! Measures how close harvesting gets to its floor: tokens/s, GFLOP/s and peak memory up to the middle layer, for the
//! bare forward pass and with shards written, compared with the rate of matrix products measured in the same run.
//!
//! `cargo bench --workspace --bench harvest -- [--only BATCHxCTX] [--compute f32|int8] [--model MODEL]`

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

mod memory;

use std::{
    path::PathBuf,
    sync::Mutex,
    time::{Duration, Instant},
};

use candle_core::Tensor;
use harvester::{
    Batch, Compute, Corpus, CorpusOptions, Edit, HarvestConfig, Hook, HookPoint, LanguageModel, ModelSource, Monitor,
    Rows, Silent, Site, gemm_flops, harvest,
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

/// Measures a harvest from its first token to its last; loading the model is not included.
#[derive(Default)]
struct Stopwatch(Mutex<Option<Instant>>);

impl Monitor for Stopwatch {
    fn start(&self, _what: &str, _total: u64, _unit: &str) {
        *self.0.lock().expect("one thread") = Some(Instant::now());
    }
}

/// Hooks every point of every block and records the time since the previous point: the cost of each stage.
struct StageClock {
    last: HookPoint,
    began: Instant,
    stages: Vec<(Site, Duration)>,
}

impl StageClock {
    fn new(last: HookPoint) -> Self {
        Self { last, began: Instant::now(), stages: vec![] }
    }
}

impl Hook for StageClock {
    fn wants(&self, point: HookPoint) -> bool {
        match (point, self.last) {
            (HookPoint::Block { layer, .. }, HookPoint::Block { layer: last, .. }) => layer <= last,
            _ => false,
        }
    }

    fn apply(&mut self, point: HookPoint, _rows: &Rows, _activation: &Tensor) -> harvester::Result<Edit> {
        if let HookPoint::Block { site, .. } = point {
            match self.stages.iter_mut().find(|(seen, _)| *seen == site) {
                Some((_, time)) => *time += self.began.elapsed(),
                None => self.stages.push((site, self.began.elapsed())),
            }
        }
        self.began = Instant::now();
        Ok(Edit::Keep)
    }
}

/// Options from the command line.
struct Asked {
    model: ModelSource,
    only: Option<String>,
    compute: Vec<Compute>,
}

impl Asked {
    fn read() -> Self {
        let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
        let option = |name: &str| args.iter().position(|arg| arg == name).map(|place| args[place + 1].clone());
        let source: ModelSource = option("--model").as_deref().unwrap_or("default").parse().expect("a model");
        let compute = option("--compute").map(|name| name.parse().expect("f32 or int8"));
        Self {
            model: source,
            only: option("--only"),
            compute: compute.map_or(vec![Compute::F32, Compute::Int8], |compute| vec![compute]),
        }
    }

    fn shapes(&self) -> impl Iterator<Item = (usize, usize)> {
        SHAPES.into_iter().filter(|(b, c)| self.only.as_ref().is_none_or(|only| *only == format!("{b}x{c}")))
    }
}

fn main() {
    let asked = Asked::read();
    for (compute, (batch, ctx_len)) in asked.compute.iter().flat_map(|c| asked.shapes().map(move |shape| (c, shape))) {
        let gemm = gemm_flops() / 1e9;
        let model = LanguageModel::open(&asked.model, *compute, &Silent).expect("a model");
        let layer = model.config().n_layers / 2 - 1;
        let flop = model.config().flop_per_token(layer + 1, ctx_len) as f64;
        let point = HookPoint::resid_post(layer);
        let report = |what: &str, tokens: usize, seconds: f64| {
            let rate = tokens as f64 / seconds;
            let (gflops, peak) = (rate * flop / 1e9, memory::peak_mib());
            let share = 100.0 * gflops / gemm;
            println!(
                "{what} {compute} {batch} x {ctx_len}: {rate:.0} tokens/s, {gflops:.0} of {gemm:.0} GFLOP/s \
                 ({share:.0} %), peak {peak} MiB"
            );
        };
        forward(&model, point, batch, ctx_len, &report);
        let n = 16 * batch * ctx_len; // writing the last batch overlaps no computation
        report("harvest", n, median(|| harvest_once(&model, point, batch, ctx_len, n)));
    }
}

/// Ends the pass after its hook point.
struct UpTo(HookPoint);

impl Hook for UpTo {
    fn wants(&self, point: HookPoint) -> bool {
        point == self.0
    }

    fn apply(&mut self, _point: HookPoint, _rows: &Rows, _activation: &Tensor) -> harvester::Result<Edit> {
        Ok(Edit::Keep)
    }
}

/// The bare forward pass, and the share of each stage.
fn forward(model: &LanguageModel, point: HookPoint, batch: usize, ctx_len: usize, report: &impl Fn(&str, usize, f64)) {
    let ids: Vec<u32> = (0..batch * ctx_len).map(|i| (i * 7919 % 49_000) as u32).collect();
    let tokens = Batch::of(ids.chunks(ctx_len));
    let seconds = median(|| timed(|| model.run(&tokens, &mut UpTo(point)).expect("a pass")));
    report("forward", batch * ctx_len, seconds);
    let mut clock = StageClock::new(point);
    model.run(&tokens, &mut clock).expect("a pass");
    let whole: f64 = clock.stages.iter().map(|(_, time)| time.as_secs_f64()).sum();
    let shares =
        clock.stages.iter().map(|(site, time)| format!("{site:?} {:.1} %", 100.0 * time.as_secs_f64() / whole));
    println!("  up to each hook of a block: {}", shares.collect::<Vec<_>>().join(", "));
}

fn harvest_once(model: &LanguageModel, point: HookPoint, batch: usize, ctx_len: usize, n: usize) -> Duration {
    let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data/corpora/speeches.jsonl");
    let corpus = Corpus::open(&[corpora], &CorpusOptions::default()).expect("the bundled corpus");
    let out = tempfile::tempdir().expect("a temporary folder");
    let config = HarvestConfig {
        compute: model.compute(),
        hook_points: vec![point],
        batch,
        ctx_len,
        tokens: Some(n as u64),
        ..Default::default()
    };
    let stopwatch = Stopwatch::default();
    harvest(model, &corpus, &config, out.path().join("activations"), &stopwatch).expect("a harvest");
    stopwatch.0.into_inner().expect("one thread").expect("it started").elapsed()
}
