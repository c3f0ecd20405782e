//! Speed of the training step, compared with the encoder product alone: `cargo bench --workspace --bench step`.
//! Arguments: `[ARCHITECTURE ..] [d_in d_sae k batch]`; without them, the rows of the documentation's table. The peak
//! memory includes the output of the product alone, `[batch, d_sae]`, which training does not need.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../harvester/benches/memory/mod.rs"]
mod memory;

use trainer::{
    TrainArchitecture,
    speed::{StepShape, measure_step},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTHS: [usize; 6] = [2304, 4608, 9216, 16_384, 32_768, 65_536];

/// Steps until the weight of a sparsity loss has brought L0 near k.
const SPARSITY_WARMUP_STEPS: usize = 60;

/// Measured steps of each shape.
const N_STEPS: usize = 7;

fn main() -> Result<(), String> {
    let (named, given) = arguments()?;
    let architectures = if named.is_empty() { vec![TrainArchitecture::BatchTopK] } else { named.clone() };
    let of_each = |d_in, d_sae, k, batch| {
        architectures.iter().map(move |&architecture| shape(architecture, d_in, d_sae, k, batch, 0.0))
    };
    let shapes: Vec<_> = match given[..] {
        [d_in, d_sae, k, batch] => of_each(d_in, d_sae, k, batch).collect(),
        [] if named.is_empty() => documented(),
        [] => WIDTHS.iter().flat_map(|&d_sae| of_each(576, d_sae, 32, 4096)).collect(),
        _ => return Err(format!("expected four numbers, d_in d_sae k batch, or none, found {}", given.len())),
    };
    println!("threads {}", rayon::current_num_threads());
    println!(
        "architecture   d_in  d_sae   k batch  dead     L0  tokens/s  product alone  share  GFLOP/s  peak MiB so far  \
         ms: encode select decode aux gradients update"
    );
    shapes.into_iter().for_each(measure);
    Ok(())
}

/// The shapes of the documentation's table: batch-topk at several widths, and topk and dead latents at a usual width.
fn documented() -> Vec<StepShape> {
    let mut shapes = WIDTHS.map(|d_sae| shape(TrainArchitecture::BatchTopK, 576, d_sae, 32, 4096, 0.0)).to_vec();
    shapes.insert(3, shape(TrainArchitecture::TopK, 576, 9216, 32, 4096, 0.0));
    shapes.insert(4, shape(TrainArchitecture::BatchTopK, 576, 9216, 32, 4096, 0.3));
    shapes
}

fn shape(architecture: TrainArchitecture, d_in: usize, d_sae: usize, k: usize, batch: usize, dead: f64) -> StepShape {
    let warmup_steps = if architecture.has_sparsity_loss() { SPARSITY_WARMUP_STEPS } else { 2 };
    StepShape { architecture, d_in, d_sae, k, batch, dead, warmup_steps }
}

fn measure(shape: StepShape) {
    let StepShape { architecture, d_in, d_sae, k, batch, dead, .. } = shape;
    let speed = measure_step(shape, N_STEPS);
    let t = speed.times;
    let ms = [t.encode, t.select, t.decode, t.auxiliary, t.gradients, t.update]
        .map(|time| format!("{:7.1}", time.as_secs_f64() * 1e3 / N_STEPS as f64));
    println!(
        "{:12} {d_in:6} {d_sae:6} {k:3} {batch:5} {:4.0}% {:6.1} {:9.0} {:14.0} {:5.0}% {:8.0} {:16}     {}",
        architecture.to_string(),
        dead * 100.0,
        speed.l0,
        speed.tokens_per_second,
        speed.product_tokens_per_second,
        100.0 * speed.tokens_per_second / speed.product_tokens_per_second,
        speed.product_gflops,
        memory::peak_mib(),
        ms.join(" "),
    );
}

/// The named architectures and the numbers.
fn arguments() -> Result<(Vec<TrainArchitecture>, Vec<usize>), String> {
    let (mut named, mut numbers) = (vec![], vec![]);
    // `cargo bench` adds the argument `--bench`.
    for argument in std::env::args().skip(1).filter(|argument| argument != "--bench") {
        match argument.parse() {
            Ok(number) => numbers.push(number),
            Err(_) => named.push(argument.parse().map_err(|error: trainer::Error| error.to_string())?),
        }
    }
    Ok((named, numbers))
}
