//! Which architecture finds known features? Trains each one on synthetic activations: sums of a few of 256 directions
//! in 64 dimensions (`tests/synthetic`). Prints a table of the mean maximum cosine similarity (MMCS) between the
//! directions and the decoder rows nearest to them, with L0, FVU and dead latents. A transcoder and a crosscoder have a
//! second hook point, whose activations are a linear map of the first one's.
//!
//!   cargo run --release -p trainer --example recovery -- [ARCHITECTURE ..]
#![expect(clippy::print_stdout, reason = "a program that prints its table")]
#![expect(clippy::unwrap_used, reason = "a program for measurements")]

#[path = "../tests/synthetic/mod.rs"]
mod synthetic;

use harvester::{ActivationDataset, Silent};
use synthetic::{Dictionary, EARLIER, LATER, mean_max_cosine};
use trainer::{Sae, TrainArchitecture, TrainConfig, train};

const D_IN: usize = 64;
const N_FEATURES: usize = 256;

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let architectures: Vec<TrainArchitecture> = match names.is_empty() {
        true => TrainArchitecture::ALL.to_vec(),
        false => names.iter().map(|name| name.parse().unwrap()).collect(),
    };
    println!("architecture   active  noise   MMCS  found    L0    FVU  dead");
    for (active, noise) in [(3.0, 0.02), (3.0, 0.1), (6.0, 0.02), (6.0, 0.1), (12.0, 0.02)] {
        let dictionary = Dictionary { d_in: D_IN, n_features: N_FEATURES, active, noise, earlier_width: D_IN };
        let dir = tempfile::tempdir().unwrap();
        dictionary.write_two(dir.path(), 12_000);
        let dataset = ActivationDataset::open(dir.path()).unwrap();
        for &architecture in &architectures {
            measure(&dictionary, &dataset, architecture);
        }
    }
}

fn measure(dictionary: &Dictionary, dataset: &ActivationDataset, architecture: TrainArchitecture) {
    let out = tempfile::tempdir().unwrap();
    let places = match architecture {
        TrainArchitecture::Transcoder => {
            TrainConfig { hook_points: vec![EARLIER], target_hook_point: Some(LATER), ..synthetic::recipe() }
        }
        TrainArchitecture::Crosscoder => TrainConfig { hook_points: vec![EARLIER, LATER], ..synthetic::recipe() },
        _ => TrainConfig { hook_points: vec![LATER], ..synthetic::recipe() },
    };
    let config = TrainConfig { architecture, k: dictionary.active as usize, ..places };
    let manifest = train(dataset, &config, out.path(), &Silent).unwrap();
    let results = manifest.results.unwrap();
    let held_out = results.held_out.unwrap();
    let sae = Sae::load(out.path()).unwrap();
    // The directions are at LATER, which has the last columns of the decoder.
    let rows: Vec<f32> = sae.w_dec().chunks(sae.d_out()).flat_map(|row| &row[sae.d_out() - D_IN..]).copied().collect();
    let (mmcs, found) = mean_max_cosine(&dictionary.directions(), &rows, D_IN);
    println!(
        "{architecture:14} {:5.0} {:6.2} {mmcs:6.3} {:5.1}% {:5.1} {:6.3} {:5}",
        dictionary.active,
        dictionary.noise,
        100.0 * found,
        held_out.l0,
        held_out.fvu,
        results.dead
    );
}
