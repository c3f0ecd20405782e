//! Time of the effects of every live latent, on a finished index. `cargo run --release --example effects_speed -- SAE
//! FEATURES [LATENTS] [f32|int8]`

#![expect(clippy::print_stdout, reason = "a program that prints")]

use std::time::Instant;

use analyzer::{Dose, Effect, EffectsConfig, FeatureIndex, PlacedSae, Workbench, effects};
use harvester::{Compute, LanguageModel, ModelSource, Silent};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [sae, features, rest @ ..] = &args[..] else { return Err("usage: SAE FEATURES [LATENTS] [COMPUTE]".into()) };
    let placed = PlacedSae::trained(sae.as_ref())?;
    let index = FeatureIndex::open(features.as_ref())?;
    let latents = rest.first().map_or(Ok(placed.sae.d_sae()), |n| n.parse())?;
    let compute: Compute = rest.get(1).map_or(Ok(Compute::F32), |compute| compute.parse())?;
    let dose = |latent: usize| {
        let feature = index.feature(latent as u32)?;
        Ok(Dose { latent: latent as u32, activation: 0.8 * feature.max, max: feature.max })
    };
    let step = placed.sae.d_sae() / latents;
    let doses: Vec<Dose> = (0..latents)
        .map(|i| dose(i * step))
        .filter(|dose: &analyzer::Result<Dose>| dose.as_ref().is_ok_and(|it| it.max > 0.0))
        .collect::<Result<_, _>>()?;
    let open = |compute| LanguageModel::open(&placed.model.source.parse::<ModelSource>()?.resolve(&Silent)?, compute);
    let of = |compute| -> Result<Vec<Effect>, Box<dyn std::error::Error>> {
        let model = open(compute)?;
        let bench = Workbench::new(placed.clone(), Some(&model))?;
        let config = EffectsConfig::default();
        effects(&bench, &doses[..1], &config, &Silent)?; // reads the weights
        let started = Instant::now();
        let found = effects(&bench, &doses, &config, &Silent)?;
        println!("{compute}: {} latents in {:.1} s", doses.len(), started.elapsed().as_secs_f64());
        Ok(found)
    };
    let found = of(compute)?;
    for share in [0.1, 0.5, 0.9] {
        let mut kls: Vec<f32> = found.iter().map(|it| it.kl).collect();
        let mut doses: Vec<f32> = found.iter().map(|it| it.dose_kl25 / it.dose).collect();
        kls.sort_by(f32::total_cmp);
        doses.sort_by(f32::total_cmp);
        let at = (share * (found.len() - 1) as f64) as usize;
        println!("quantile {share}: kl {:.4}, dose_kl25 / dose {:.2}", kls[at], doses[at]);
    }
    Ok(())
}
