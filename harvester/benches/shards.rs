//! Cost of writing and reading activations, for each dtype and layout: nanoseconds per token to write (rounding,
//! journal, statistics, parquet, SHA-256 and the disk), the processor time in it, and nanoseconds per token to read.
//!
//! `cargo bench --workspace --bench shards -- [TOKENS]`

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use harvester::{
    ActivationDataset, Context, ContextCursor, CorpusOptions, Counts, Family, HarvestConfig, HarvestManifest,
    HookPoint, HookPointSummary, Layout, Manifest, ModelIdentity, NormQuantiles, ShardWriter, StorageDtype,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const D_MODEL: usize = 576;
const CTX_LEN: usize = 256;
const BATCH: usize = 8;

fn manifest(dtype: StorageDtype, layout: Layout) -> HarvestManifest {
    HarvestManifest {
        format: HarvestManifest::FORMAT.into(),
        version: HarvestManifest::VERSION,
        refract_version: "0.0.0".into(),
        complete: false,
        model: ModelIdentity {
            source: "made up".into(),
            relative: None,
            recorded: None,
            family: Family::Llama,
            sha256: "00".into(),
            tokenizer_sha256: "00".into(),
            n_layers: 1,
            d_model: D_MODEL,
            d_vocab: 1,
        },
        corpus: vec![],
        sources: vec![],
        corpus_options: CorpusOptions::default(),
        config: HarvestConfig {
            hook_points: vec![HookPoint::Embed],
            ctx_len: CTX_LEN,
            dtype,
            layout,
            ..Default::default()
        },
        merged_from: None,
        layers_run: 1,
        flop_per_token: 1,
        counts: Counts::default(),
        hook_points: vec![HookPointSummary {
            name: HookPoint::Embed,
            d_model: D_MODEL,
            sink_norm: 1.0,
            sinks: 0,
            mean_to_spread: 0.0,
            norm_quantiles: NormQuantiles { p01: 0.0, p50: 0.0, p99: 0.0, p999: 0.0, max: 0.0 },
            mean: vec![],
            std: vec![],
        }],
        parts: vec![],
        documents: None,
        roles: false,
    }
}

/// A batch of contexts, starting at context `first`.
fn contexts(first: u64) -> Vec<Context> {
    let context = |index| {
        let mut next = ContextCursor::default();
        (next.contexts, next.documents) = (index + 1, index / 3);
        let tokens = (0..CTX_LEN as u32).map(|i| (i * 7919 + index as u32) % 49_000).collect();
        Context { roles: vec![], index, tokens, documents: vec![index / 3; CTX_LEN], next }
    };
    (first..first + BATCH as u64).map(context).collect()
}

/// Writes `tokens` tokens and returns the time taken.
fn write(dir: &Path, dtype: StorageDtype, layout: Layout, values: &[f32], tokens: usize) -> Duration {
    let mut writer = ShardWriter::open(dir, manifest(dtype, layout)).expect("a writer");
    let batches: Vec<_> = (0..tokens / (BATCH * CTX_LEN)).map(|i| contexts((i * BATCH) as u64)).collect();
    let values = [values.to_vec()];
    let start = Instant::now();
    for batch in &batches {
        writer.write(batch, &values).expect("a batch");
    }
    writer.finish().expect("a dataset");
    start.elapsed()
}

/// Processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|i| fields.get(*i)?.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

fn main() {
    let tokens = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(131_072);
    // Values vary as much as activations do: a sum of sines, with outliers in a few dimensions.
    let value = |i: usize| {
        let outlier = if i % D_MODEL < 4 { 40.0 } else { 1.0 };
        ((i as f32 * 0.37).sin() + (i as f32 * 0.011).cos() * 0.5) * outlier
    };
    let values: Vec<f32> = (0..BATCH * CTX_LEN * D_MODEL).map(value).collect();
    println!("{tokens} tokens of {D_MODEL} values, ns per token");
    println!("dtype layout   write   of it processor   read   MB/s   bytes per token");
    for dtype in [StorageDtype::F32, StorageDtype::F16, StorageDtype::I8] {
        for layout in [Layout::List, Layout::Binary] {
            let dir = tempfile::tempdir().expect("a temporary folder");
            write(&dir.path().join("warm"), dtype, layout, &values, BATCH * CTX_LEN);
            let (out, before) = (dir.path().join("out"), cpu());
            let written = write(&out, dtype, layout, &values, tokens);
            let processor = cpu() - before;
            let dataset = ActivationDataset::open(&out).expect("a dataset");
            let bytes: u64 = dataset.manifest.parts.iter().map(|part| part.bytes).sum();
            let read_all = || {
                let start = Instant::now();
                for group in &dataset.row_groups {
                    std::hint::black_box(dataset.read(*group, HookPoint::Embed).expect("rows"));
                }
                start.elapsed()
            };
            read_all();
            let read = read_all();
            let per_token = |time: Duration| time.as_nanos() as f64 / tokens as f64;
            println!(
                "{:5} {:6} {:8.0} {:14.0} {:10.0} {:6.0} {:12.0}",
                dtype.to_string(),
                layout.to_string(),
                per_token(written),
                per_token(processor),
                per_token(read),
                bytes as f64 / 1e6 / read.as_secs_f64(),
                bytes as f64 / tokens as f64,
            );
        }
    }
}
