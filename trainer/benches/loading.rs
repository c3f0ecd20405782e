//! The time to load rows, compared with the step that learns from them: `cargo bench --workspace --bench loading`. The
//! activations have 576 values and are in f16 or int8 shards. The buffer holds a quarter of them, so every row is read
//! from its file once per epoch. The step is the one with 9,216 latents.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use std::path::Path;

use harvester::{ActivationDataset, Context, ContextCursor, HarvestConfig, HookPoint, ShardWriter, StorageDtype};
use trainer::{
    TrainArchitecture,
    speed::{StepShape, measure_loading, measure_step},
};

/// The program's allocator: with the system's, the pages of every block are faulted in again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const D_IN: usize = 576;
const CTX_LEN: usize = 256;
const BATCH: usize = 4096;
const N_ROWS: usize = 1 << 18;

fn main() {
    let shape = StepShape {
        architecture: TrainArchitecture::BatchTopK,
        d_in: D_IN,
        d_sae: 9216,
        k: 32,
        batch: BATCH,
        dead: 0.0,
        warmup_steps: 0,
    };
    let step = BATCH as f64 / measure_step(shape, 5).tokens_per_second;
    println!("step of {BATCH} tokens: {:.0} ms, {:.0} tokens/s", step * 1e3, BATCH as f64 / step);
    println!("dtype     ms/batch    rows/s  share of the step");
    for dtype in [StorageDtype::F16, StorageDtype::I8] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), dtype);
        let dataset = ActivationDataset::open(folder.path()).expect("what was written");
        let buffer = (N_ROWS / 4 * dtype.row_bytes(D_IN)) as u64;
        let n_batches = 2 * N_ROWS / BATCH;
        let seconds = measure_loading(&dataset, HookPoint::Embed, buffer, BATCH, n_batches).expect("readable rows");
        println!(
            "{:6} {:11.1} {:9.0} {:17.1}%",
            dtype.to_string(),
            seconds * 1e3,
            BATCH as f64 / seconds,
            100.0 * seconds / step
        );
    }
}

/// Writes a harvest of synthetic values.
fn write(dir: &Path, dtype: StorageDtype) {
    let config =
        HarvestConfig { hook_points: vec![HookPoint::Embed], ctx_len: CTX_LEN, dtype, ..HarvestConfig::default() };
    let mut writer = ShardWriter::open(dir, synthetic::manifest(config, &[D_IN])).expect("a new folder");
    for index in 0..(N_ROWS / CTX_LEN) as u64 {
        let values = (0..CTX_LEN * D_IN).map(|i| ((i as u64 * 2_654_435_761 + index * 97) % 1009) as f32 / 500.0 - 1.0);
        let mut next = ContextCursor::default();
        (next.contexts, next.documents) = (index + 1, index + 1);
        let context = Context { index, tokens: vec![0; CTX_LEN], documents: vec![index; CTX_LEN], roles: vec![], next };
        writer.write(&[context], &[values.collect()]).expect("room on the disk");
    }
    writer.finish().expect("room on the disk");
}
