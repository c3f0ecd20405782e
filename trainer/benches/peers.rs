//! Compares the training step with those of SAELens and sparsify on this machine. The tools take turns, and each
//! measurement runs in its own process, so that its peak memory is its own too. Prints medians over the rounds and the
//! speed ratio.
//!
//! Run `cargo bench --workspace --bench peers [-- ROUNDS]` with these variables set: `PEERS_DIR`, the folder of
//! `06_sae_speed.py`, which times the tools; `PEERS_MODELS_DIR`, the activations it reads; `PY`, a Python with the
//! tools installed.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../harvester/benches/memory/mod.rs"]
mod memory;

use std::{env, path::PathBuf, process::Command};

use serde_json::{Value, json};
use trainer::{
    TrainArchitecture,
    speed::{StepShape, measure_step},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: StepShape = StepShape {
    architecture: TrainArchitecture::TopK,
    d_in: 576,
    d_sae: 9216,
    k: 32,
    batch: 4096,
    dead: 0.0,
    warmup_steps: 2,
};

/// Measured steps of ours per round. A tool's program measures 9, after 3 warm-up steps.
const N_STEPS: usize = 9;

/// Steps until the weight of a sparsity loss has brought L0 near k.
const SPARSITY_WARMUP_STEPS: usize = 60;

/// Our architecture, its share of dead latents, and the tools' programs that do the same.
const ROWS: [(TrainArchitecture, f64, &[&str]); 7] = [
    (TrainArchitecture::TopK, 0.0, &["sl-topk", "sparsify-adam"]),
    (TrainArchitecture::BatchTopK, 0.0, &["sl-batchtopk"]),
    (TrainArchitecture::Matryoshka, 0.0, &["sl-matryoshka"]),
    (TrainArchitecture::TopK, 0.3, &["sl-topk"]),
    (TrainArchitecture::Relu, 0.0, &["sl-standard"]),
    (TrainArchitecture::JumpRelu, 0.0, &["sl-jumprelu"]),
    (TrainArchitecture::Gated, 0.0, &["sl-gated"]),
];

fn main() -> Result<(), String> {
    // `cargo bench` adds the argument `--bench`.
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [ours, row] if ours == "--ours" => {
            println!("{}", measure_ours(row.parse().map_err(|error| format!("{row}: {error}"))?));
            Ok(())
        }
        [] => compare(3),
        [rounds] => compare(rounds.parse().map_err(|error| format!("rounds `{rounds}`: {error}"))?),
        _ => Err(format!("expected a number of rounds or nothing, found {arguments:?}")),
    }
}

/// Measures our step in this process; the result is JSON.
fn measure_ours(row: usize) -> Value {
    let (architecture, dead, _) = ROWS[row];
    let warmup_steps = if architecture.has_sparsity_loss() { SPARSITY_WARMUP_STEPS } else { SHAPE.warmup_steps };
    let speed = measure_step(StepShape { architecture, dead, warmup_steps, ..SHAPE }, N_STEPS);
    json!({
        "tok_s": speed.tokens_per_second,
        "share": speed.tokens_per_second / speed.product_tokens_per_second,
        "l0": speed.l0,
        "peak_rss_mib": memory::peak_mib(),
    })
}

/// Runs every row `rounds` times, tools and ours in turns, and prints the table.
fn compare(rounds: usize) -> Result<(), String> {
    let peers = match Peers::from_env() {
        Ok(peers) => peers,
        Err(what) => {
            println!("skipped, no tools to compare with: {what}");
            return Ok(());
        }
    };
    let StepShape { d_in, d_sae, k, batch, .. } = SHAPE;
    println!("d_in {d_in}, d_sae {d_sae}, k {k}, batch {batch}; medians of {rounds} rounds in turns");
    println!(
        "architecture  dead     L0  tokens/s  of product  peak MiB   beside             tokens/s  peak MiB  times"
    );
    for (row, (architecture, dead, programs)) in ROWS.into_iter().enumerate() {
        let mut ours = vec![];
        let mut theirs = vec![vec![]; programs.len()];
        for _ in 0..rounds {
            for (program, results) in programs.iter().zip(&mut theirs) {
                results.push(peers.measure(program, dead)?);
            }
            let itself = env::current_exe().map_err(|error| error.to_string())?;
            ours.push(last_json(Command::new(itself).args(["--ours", &row.to_string()]))?);
        }
        let rate = median(&ours, "tok_s");
        for (program, results) in programs.iter().zip(&theirs) {
            let their_rate = median(results, "tok_s");
            println!(
                "{:12} {:4.0}% {:6.1} {rate:9.0} {:10.0}% {:9.0}   {program:16} {their_rate:10.0} {:9.0} {:6.1}",
                architecture.to_string(),
                dead * 100.0,
                median(&ours, "l0"),
                median(&ours, "share") * 100.0,
                median(&ours, "peak_rss_mib"),
                median(results, "peak_rss_mib"),
                rate / their_rate,
            );
        }
    }
    Ok(())
}

/// Paths of the tools' programs.
struct Peers {
    dir: PathBuf,
    python: String,
}

impl Peers {
    fn from_env() -> Result<Self, String> {
        let variable = |name: &str| env::var(name).map_err(|_| format!("set {name} (see the file's first lines)"));
        let dir = PathBuf::from(variable("PEERS_DIR")?);
        variable("PEERS_MODELS_DIR")?;
        if !dir.join("06_sae_speed.py").is_file() {
            return Err(format!("PEERS_DIR, {}, has no 06_sae_speed.py", dir.display()));
        }
        Ok(Self { dir, python: variable("PY")? })
    }

    fn measure(&self, program: &str, dead: f64) -> Result<Value, String> {
        let StepShape { d_sae, k, batch, .. } = SHAPE;
        let (d_sae, k, batch) = (d_sae.to_string(), k.to_string(), batch.to_string());
        let mut command = Command::new(&self.python);
        command.current_dir(&self.dir).env("SPARSIFY_DISABLE_TRITON", "1").arg("06_sae_speed.py");
        command.args(["--impl", program, "--d-sae", &d_sae, "--k", &k, "--batch", &batch]);
        last_json(command.args(["--force-dead", &dead.to_string()]))
    }
}

/// The last line that a command prints, as JSON.
fn last_json(command: &mut Command) -> Result<Value, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with('{')).filter(|_| output.status.success());
    let line =
        line.ok_or_else(|| format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))?;
    serde_json::from_str(line).map_err(|error| format!("{command:?} printed `{line}`: {error}"))
}

/// The median of one number over all results; NaN if a result lacks it.
fn median(results: &[Value], key: &str) -> f64 {
    let mut values: Vec<f64> = results.iter().map(|result| result[key].as_f64().unwrap_or(f64::NAN)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
