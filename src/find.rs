//! `refract find`: the latents that tell two groups of texts apart; `refract search`: those about some words.

use analyzer::{ContrastConfig, Contrasts, FeatureIndex, SaeSource, TextGroup, Workbench};
use harvester::{LanguageModel, Monitor};

use crate::{
    cli::{FindArgs, ListArgs, SearchArgs},
    terminal::{DIM, Terminal},
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &FindArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<Contrasts> {
    let FindArgs { list: ListArgs { features, top, max_density }, rank, .. } = args;
    let index = FeatureIndex::open(features)?;
    let groups = [TextGroup::named(&args.positive, &index)?, TextGroup::named(&args.negative, &index)?];
    let bench = || -> analyzer::Result<Workbench> {
        let sae = args.sae.clone().unwrap_or_else(|| index.sae_path());
        SaeSource { activations: args.activations.clone(), ..SaeSource::trained(sae) }.workbench(model, terminal)
    };
    let config = ContrastConfig { max_density: *max_density, rank: *rank };
    let mut found = analyzer::find(&index, [&groups[0], &groups[1]], bench, &config, terminal)?;
    found.summary().iter().for_each(|line| terminal.line(format!("{DIM}{line}{DIM:#}")));
    found.latents.truncate(*top);
    terminal.table(&found.table(&index)?);
    terminal.json(&found)?;
    Ok(found)
}

pub(crate) fn search(args: &SearchArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let ListArgs { features, top, max_density } = &args.list;
    let hits = FeatureIndex::open(features)?.search(&args.words.join(" "), *top, *max_density)?;
    if hits.is_empty() {
        terminal.say("no latent is about these words; `refract explain` finds those that fire on a text");
    }
    hits.iter().for_each(|hit| terminal.latent(hit.latent, &hit.label.to_string(), &hit.facts()));
    terminal.json(&hits)
}
