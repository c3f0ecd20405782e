//! `refract compare`: the latents that two SAEs share.

use analyzer::{CompareConfig, PlacedSae, SaeSource};
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
    terminal.facts(&comparison.facts());
    for (sae, path) in args.saes.iter().enumerate() {
        if let Some(latents) = comparison.only_here(sae, args.top) {
            terminal.heading(&format!("Only in {}, with their share of the tokens", path.display()));
            terminal.line(format!("  {latents}"));
        }
    }
    terminal.json(&comparison)
}
