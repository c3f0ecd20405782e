//! Time of the effects of every live latent, on a finished index, and the KL divergence at the doses that were found for
//! 0.25 nats. `cargo run --release --example effects_speed -- SAE FEATURES [LATENTS]`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::time::Instant;

use analyzer::{Dose, EffectsConfig, FeatureIndex, PlacedSae, Workbench, effects};
use harvester::{LanguageModel, Silent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sae, features, rest @ ..] = &args[..] else { return Err("usage: SAE FEATURES [LATENTS]".into()) };
    let placed = PlacedSae::trained(sae.as_ref())?;
    let index = FeatureIndex::open(features.as_ref())?;
    let latents = rest.first().map_or(Ok(placed.sae.d_sae()), |n| n.parse())?;
    let dose = |latent: usize| {
        let feature = index.feature(latent as u32)?;
        Ok(Dose { latent: latent as u32, activation: 0.8 * feature.max, max: feature.max })
    };
    let step = placed.sae.d_sae() / latents;
    let doses: Vec<Dose> = (0..latents)
        .map(|i| dose(i * step))
        .filter(|dose: &analyzer::Result<Dose>| dose.as_ref().is_ok_and(|it| it.max > 0.0))
        .collect::<Result<_, _>>()?;
    let model = LanguageModel::find(&placed.model, &Silent)?;
    let bench = Workbench::new(placed, Some(&model))?;
    let config = EffectsConfig::default();
    effects(&bench, &doses[..1], &config, &Silent)?; // reads the weights
    let started = Instant::now();
    let found = effects(&bench, &doses, &config, &Silent)?;
    println!("{} latents in {:.1} s", doses.len(), started.elapsed().as_secs_f64());
    print("kl", found.iter().map(|it| it.kl));
    print("dose_kl25 / dose", found.iter().map(|it| it.dose_kl25 / it.dose));
    let at_doses: Vec<Dose> = found
        .iter()
        .filter(|it| it.dose_kl25.is_finite())
        .map(|it| Dose { latent: it.latent, activation: it.dose_kl25, max: it.dose_kl25 })
        .step_by(20)
        .collect();
    print("kl at dose_kl25", effects(&bench, &at_doses, &config, &Silent)?.iter().map(|it| it.kl));
    Ok(())
}

/// Prints quantiles.
fn print(what: &str, values: impl Iterator<Item = f32>) {
    let mut values: Vec<f32> = values.collect();
    values.sort_by(f32::total_cmp);
    let at = |share: f64| values[(share * (values.len() - 1) as f64) as usize];
    println!("{what}: {:.4?} at 0, 10, 50, 90 and 100 %", [0.0, 0.1, 0.5, 0.9, 1.0].map(at));
}
