//! Speed and memory of `refract index`, beside its floor, the encoder's matrix product alone, and beside the tools that
//! do the same. Every measurement runs in its own process, in turns, so that its peak memory is its own too.
//!
//! `cargo bench --workspace --bench index [-- ROUNDS]`, 3 rounds unless told otherwise. The first run harvests 300,000
//! tokens of the default model and trains an SAE of 9,216 latents on them; later runs find both in the target folder.
//!
//! The tools take part if these variables are set: `PEERS_DIR`, the folder of `08_topacts.py` and `11_dashboard.py`;
//! `PEERS_MODELS_DIR`, the model and activations they read; `PY`, a Python with PyTorch; `PY_DASHBOARD`, one with
//! SAEDashboard. The PyTorch loops keep only the 20 strongest tokens of each latent, of activations that are in memory.
//! SAEDashboard's work is proportional to its latents times its tokens; its rate is that of 9,216 latents.
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../harvester/benches/memory/mod.rs"]
mod memory;

use std::{
    env,
    error::Error,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Instant,
};

use analyzer::{IndexConfig, SaeSource};
use harvester::{
    ActivationDataset, Compute, Corpus, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, ModelSource, Monitor,
    Silent, harvest,
};
use serde_json::{Value, json};
use trainer::{
    TrainArchitecture, TrainConfig,
    speed::{StepShape, measure_step},
    train,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Two lengths of text: the peak memory must not grow with it.
const TOKENS: [u64; 2] = [100_000, 300_000];
const D_SAE: usize = 9216;
const K: usize = 32;

/// The floor: 4,096 rows through the encoder's product.
const FLOOR: StepShape = StepShape {
    architecture: TrainArchitecture::TopK,
    d_in: 576,
    d_sae: D_SAE,
    k: K,
    batch: 4096,
    dead: 0.0,
    warmup_steps: 1,
};

/// The tools' programs, their arguments, their rate's name, and the variable that names their Python.
const TOOLS: [(&str, &[&str], &str, &str); 4] = [
    ("08_topacts.py", &["--impl", "topk", "--repeats", "1"], "tok_s", "PY"),
    ("08_topacts.py", &["--impl", "topk-pruned", "--repeats", "1"], "tok_s", "PY"),
    ("08_topacts.py", &["--impl", "dense", "--repeats", "1"], "tok_s", "PY"),
    ("11_dashboard.py", &["--repeats", "1"], "equivalent_tok_s_for_9216", "PY_DASHBOARD"),
];

fn main() -> Result<()> {
    // `cargo bench` adds the argument `--bench`.
    let arguments: Vec<_> = env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments[..] {
        [what, tokens] if what == "--index" => println!("{}", index(tokens.parse()?)?),
        [what] if what == "--product" => println!("{}", product()),
        [] => compare(3)?,
        [rounds] => compare(rounds.parse()?)?,
        _ => return Err(format!("expected a number of rounds or nothing, found {arguments:?}").into()),
    }
    Ok(())
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("index-bench").join(name)
}

fn activations(tokens: u64) -> PathBuf {
    folder(&format!("activations-{tokens}"))
}

/// Harvests and trains; what an earlier run finished is found.
fn prepare() -> Result<()> {
    let model = LanguageModel::open(&ModelSource::Default, Compute::Int8, &Silent)?;
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/corpora");
    let corpus = Corpus::open(&[corpora], &CorpusOptions::default())?;
    let hook_point = HookPoint::resid_post(model.config().n_layers / 2 - 1);
    for tokens in TOKENS {
        let config = HarvestConfig {
            compute: Compute::Int8,
            hook_points: vec![hook_point],
            tokens: Some(tokens),
            ..HarvestConfig::default()
        };
        harvest(&model, &corpus, &config, activations(tokens), &Silent)?;
    }
    let dataset = ActivationDataset::open(activations(TOKENS[1]))?;
    let config = TrainConfig { d_sae: Some(D_SAE), k: K, tokens: TOKENS[1], ..TrainConfig::default() };
    train(&dataset, &config, &folder("sae"), &Silent)?;
    Ok(())
}

/// Times the pass over the rows: the piece of work called "indexing".
#[derive(Default)]
struct Stopwatch(Mutex<(Option<Instant>, Option<f64>)>);

impl Monitor for Stopwatch {
    fn start(&self, what: &str, _total: u64, _unit: &str) {
        if what == "indexing" {
            self.0.lock().expect("not poisoned").0 = Some(Instant::now());
        }
    }

    fn finish(&self) {
        let mut times = self.0.lock().expect("not poisoned");
        times.1 = times.1.or(times.0.map(|began| began.elapsed().as_secs_f64()));
    }
}

/// Indexes without effects, which no tool here measures.
fn index(tokens: u64) -> Result<Value> {
    let source = SaeSource { activations: Some(activations(tokens)), ..SaeSource::trained(folder("sae")) };
    let out = tempfile::tempdir()?;
    let stopwatch = Stopwatch::default();
    let began = Instant::now();
    let (bench, dataset) = source.open(None, &Silent)?;
    let config = IndexConfig { effects: false, ..IndexConfig::default() };
    let manifest = analyzer::index(&bench, &dataset, &config, &out.path().join("features"), &stopwatch)?;
    let whole = began.elapsed().as_secs_f64();
    let pass = stopwatch.0.lock().expect("not poisoned").1.ok_or("no pass was made")?;
    let n = manifest.tokens as f64;
    Ok(json!({ "tok_s": n / whole, "pass_tok_s": n / pass, "peak_rss_mib": memory::peak_mib() }))
}

fn product() -> Value {
    json!({ "tok_s": measure_step(FLOOR, 5).product_tokens_per_second })
}

/// Runs everything `rounds` times in turns, and prints the medians.
fn compare(rounds: usize) -> Result<()> {
    prepare()?;
    let tools: Vec<_> = TOOLS.iter().filter(|(program, .., python)| has_tool(program, python)).collect();
    let (mut floors, mut ours, mut theirs) = (vec![], [vec![], vec![]], vec![vec![]; tools.len()]);
    for round in 1..=rounds {
        println!("round {round} of {rounds}");
        for ((program, arguments, _, python), results) in tools.iter().zip(&mut theirs) {
            let mut command = Command::new(env::var(python)?);
            results.push(last_json(command.current_dir(env::var("PEERS_DIR")?).arg(program).args(*arguments))?);
        }
        floors.push(last_json(Command::new(env::current_exe()?).arg("--product"))?);
        for (tokens, results) in TOKENS.iter().zip(&mut ours) {
            results.push(last_json(Command::new(env::current_exe()?).args(["--index", &tokens.to_string()]))?);
        }
    }
    let floor = median(&floors, "tok_s");
    println!("d_in 576, d_sae {D_SAE}, k {K}; medians of {rounds} rounds in turns; effects are left out");
    println!("encoder's product alone: {floor:.0} tokens/s");
    for (tokens, results) in TOKENS.iter().zip(&ours) {
        let (whole, pass) = (median(results, "tok_s"), median(results, "pass_tok_s"));
        let (share, peak) = (100.0 * pass / floor, median(results, "peak_rss_mib"));
        println!(
            "refract index, {tokens} tokens: pass {pass:.0} tokens/s, {share:.0} % of the product; \
             whole {whole:.0} tokens/s; peak {peak:.0} MiB"
        );
    }
    let (whole, pass) = (median(&ours[1], "tok_s"), median(&ours[1], "pass_tok_s"));
    for ((program, arguments, rate, _), results) in tools.iter().zip(&theirs) {
        let (their_rate, peak) = (median(results, rate), median(results, "peak_rss_mib"));
        let (of_pass, of_whole) = (pass / their_rate, whole / their_rate);
        println!(
            "{program} {}: {their_rate:.1} tokens/s, peak {peak:.0} MiB; pass {of_pass:.1} times, whole {of_whole:.1}",
            arguments.join(" ")
        );
    }
    Ok(())
}

/// True if the tool can take part; otherwise says what is missing.
fn has_tool(program: &str, python: &str) -> bool {
    let variables = ["PEERS_DIR", "PEERS_MODELS_DIR", python];
    let missing = variables.into_iter().find(|name| env::var_os(name).is_none());
    missing.inspect(|name| println!("without {program}: {name} is not set")).is_none()
}

/// The last line that a command prints, as JSON.
fn last_json(command: &mut Command) -> Result<Value> {
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rfind(|line| line.starts_with('{')).filter(|_| output.status.success());
    let failed = || format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_str(line.ok_or_else(failed)?)?)
}

/// The median of one number over all results; NaN if a result lacks it.
fn median(results: &[Value], key: &str) -> f64 {
    let mut values: Vec<f64> = results.iter().map(|result| result[key].as_f64().unwrap_or(f64::NAN)).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
