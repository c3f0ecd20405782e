//! `refract compare`: the latents that two SAEs share.

use analyzer::{CompareConfig, Comparison, Fate, PlacedSae, SaeSource};
use harvester::ActivationDataset;

use crate::{cli::CompareArgs, terminal::Terminal};

pub(crate) fn run(args: &CompareArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let open = |place: usize| -> anyhow::Result<(PlacedSae, ActivationDataset)> {
        let source = SaeSource { activations: args.activations.clone(), ..SaeSource::trained(&args.saes[place]) };
        let (bench, dataset) = source.open(None, terminal)?;
        Ok((bench.sae().clone(), dataset))
    };
    let ((first, dataset), (second, _)) = (open(0)?, open(1)?);
    let config = CompareConfig { tokens: args.tokens };
    let comparison = analyzer::compare(&first, &second, &dataset, &config, terminal)?;
    terminal.facts(comparison.facts().iter());
    [0, 1].into_iter().for_each(|sae| only_here(&comparison, sae, args, terminal));
    terminal.json(&comparison)
}

/// The most active latents of an SAE that the other one does not have.
fn only_here(comparison: &Comparison, sae: usize, args: &CompareArgs, terminal: &Terminal) {
    let mut latents: Vec<_> = comparison.latents[sae].iter().filter(|latent| latent.fate == Fate::OnlyHere).collect();
    latents.sort_by(|a, b| b.density.total_cmp(&a.density));
    latents.truncate(args.top);
    if latents.is_empty() {
        return;
    }
    let shown = latents.iter().map(|latent| format!("{} ({:.2} %)", latent.latent, 100.0 * latent.density));
    terminal.heading(&format!("Only in {}, with their share of the tokens", args.saes[sae].display()));
    terminal.line(format!("  {}", shown.collect::<Vec<_>>().join("  ")));
}
