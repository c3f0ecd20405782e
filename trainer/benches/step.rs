//! Speed of the training step beside the encoder product alone: `cargo bench --workspace --bench step`.
//! Arguments: `[ARCHITECTURE ..] [d_in d_sae k batch]`; without them, three architectures at three widths.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use trainer::{
    TrainArchitecture,
    speed::{StepShape, measure_step},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Until the weight of a sparsity loss has brought L0 near k.
const WARMUP_STEPS: usize = 60;

fn main() -> Result<(), String> {
    let (named, given) = arguments()?;
    let cases: Vec<_> = match &named[..] {
        [] => vec![
            (TrainArchitecture::TopK, 0.0),
            (TrainArchitecture::BatchTopK, 0.0),
            (TrainArchitecture::BatchTopK, 0.3),
        ],
        named => named.iter().map(|architecture| (*architecture, 0.0)).collect(),
    };
    let shapes = match given[..] {
        [d_in, d_sae, k, batch] => vec![(d_in, d_sae, k, batch)],
        [] => vec![(576, 2304, 32, 4096), (576, 4608, 32, 4096), (576, 9216, 32, 4096)],
        _ => return Err(format!("expected four numbers, d_in d_sae k batch, or none, found {}", given.len())),
    };
    println!("threads {}", rayon::current_num_threads());
    println!(
        "architecture   d_in  d_sae   k batch  dead     L0  tokens/s  product alone  share  GFLOP/s  \
         ms: encode select decode aux gradients update"
    );
    for (d_in, d_sae, k, batch) in shapes {
        for &(architecture, dead) in &cases {
            let n_steps = 7;
            let warmup_steps = if architecture.has_sparsity_loss() { WARMUP_STEPS } else { 2 };
            let shape = StepShape { architecture, d_in, d_sae, k, batch, dead, warmup_steps };
            let speed = measure_step(shape, n_steps);
            let ms = |time: std::time::Duration| time.as_secs_f64() * 1e3 / n_steps as f64;
            let t = speed.times;
            println!(
                "{:12} {d_in:6} {d_sae:6} {k:3} {batch:5} {:4.0}% {:6.1} {:9.0} {:14.0} {:5.0}% {:8.0}   \
                 {:10.1} {:6.1} {:6.1} {:5.1} {:5.1} {:5.1}",
                format!("{architecture:?}"),
                dead * 100.0,
                speed.l0,
                speed.tokens_per_second,
                speed.product_tokens_per_second,
                100.0 * speed.tokens_per_second / speed.product_tokens_per_second,
                speed.product_gflops,
                ms(t.encode),
                ms(t.select),
                ms(t.decode),
                ms(t.auxiliary),
                ms(t.gradients),
                ms(t.update),
            );
        }
    }
    println!("peak memory {} MiB", harvester::machine::peak_mib());
    Ok(())
}

/// The architectures named, and the numbers.
fn arguments() -> Result<(Vec<TrainArchitecture>, Vec<usize>), String> {
    let (mut named, mut numbers) = (vec![], vec![]);
    // `cargo bench` adds an argument of its own.
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        match argument.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => named.push(argument.parse().map_err(|error: trainer::Error| error.to_string())?),
        }
    }
    Ok((named, numbers))
}
