//! Speed of the training step beside the encoder product alone: `cargo bench --workspace --bench step`.
//! Arguments: `[ARCHITECTURE ..] [d_in d_sae k batch]`; without them, what the documentation's table shows. The peak
//! memory has in it what the product alone is written to, `[batch, d_sae]`, which training does not need.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use trainer::{
    TrainArchitecture,
    speed::{StepShape, measure_step},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTHS: [usize; 6] = [2304, 4608, 9216, 16_384, 32_768, 65_536];

/// Until the weight of a sparsity loss has brought L0 near k.
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

/// Those of the documentation: the scaling of batch-topk, and topk and dead latents at a usual width.
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
        harvester::machine::peak_mib(),
        ms.join(" "),
    );
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
