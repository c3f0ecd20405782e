//! How near its floor the forward pass runs: tokens/s and GFLOP/s up to `blocks.14`, beside the rate of the GEMMs it is
//! made of, in the same run. `cargo bench -p harvester -- [MODEL]`

#![expect(clippy::print_stdout, reason = "a benchmark reports on standard output")]

use std::{path::PathBuf, time::Instant};

use candle_core::{Device, Tensor};
use harvester::{Capture, Checkpoint, HookPoint, Transformer};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Median of `n` timings after a warm-up, in seconds.
fn median(n: usize, mut run: impl FnMut()) -> f64 {
    run();
    let mut times: Vec<f64> = (0..n)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[n / 2]
}

fn gemm_rate(m: usize, k: usize, n: usize) -> f64 {
    let a = Tensor::randn(0f32, 1., (m, k), &Device::Cpu).expect("allocation");
    let b = Tensor::randn(0f32, 1., (n, k), &Device::Cpu).expect("allocation");
    let seconds = median(7, || drop(a.matmul(&b.t().expect("2-d")).expect("shapes fit")));
    2.0 * (m * k * n) as f64 / seconds / 1e9
}

fn main() {
    let model = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let path = PathBuf::from(model.expect("usage: cargo bench -p harvester -- MODEL"));
    let checkpoint = Checkpoint::open(&path).expect("a model");
    let model = Transformer::load(&checkpoint, &Device::Cpu).expect("weights");
    for (m, k, n) in [(2048, 576, 960), (2048, 576, 576), (2048, 576, 3072), (2048, 1536, 576)] {
        println!("gemm {m} x {k} x {n}: {:.0} GFLOP/s", gemm_rate(m, k, n));
    }
    for (batch, ctx) in [(8, 128), (8, 256), (4, 512), (2, 1024)] {
        let ids: Vec<u32> = (0..batch * ctx).map(|i| (i * 7919 % 49_000) as u32).collect();
        let tokens = Tensor::from_vec(ids, (batch, ctx), &Device::Cpu).expect("shape");
        let seconds = median(3, || {
            model.run(&tokens, &mut Capture::new(vec![HookPoint::resid_post(14)])).expect("a pass");
        });
        let rate = (batch * ctx) as f64 / seconds;
        let gflops = rate * model.config().flop_per_token(15, ctx) as f64 / 1e9;
        println!("forward {batch} x {ctx}: {rate:.0} tokens/s, {gflops:.0} GFLOP/s");
    }
}
