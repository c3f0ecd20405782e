//! `refract find`: the latents that tell two groups of texts apart; `refract search`: those about some words.

use analyzer::{ContrastConfig, Contrasts, FeatureIndex, TextGroup};
use harvester::{LanguageModel, Monitor};

use crate::{
    cli::{FindArgs, ListArgs, SearchArgs, usage},
    terminal::{DIM, Terminal, lit},
};

/// `model` is the model of the SAE if it is open already.
pub(crate) fn run(args: &FindArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<Contrasts> {
    let FindArgs { list: ListArgs { features, top, max_density }, rank, .. } = args;
    let index = FeatureIndex::open(features)?;
    let groups = TextGroup::both(&args.positive, &args.negative, &index)?;
    let bench = || index.workbench(args.sae.sae.as_deref(), args.sae.activations.as_deref(), model, terminal);
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
    let index = FeatureIndex::open(features)?;
    if let Some(text) = &args.text {
        let bench = index.workbench(args.sae.sae.as_deref(), args.sae.activations.as_deref(), None, terminal)?;
        let hits = index.search_text(&bench, text, *top, *max_density, terminal)?;
        if hits.is_empty() {
            terminal.say("no latent fires on this text, apart from those above `max_density`");
        }
        for hit in &hits {
            terminal.latent(hit.latent, &hit.label.to_string(), &hit.facts());
            let (example, part) = (&hit.strongest, hit.strongest.around_peak(terminal.width() - 2));
            terminal.line(format!("  {}", lit(example, part, example.activation).trim()));
        }
        return terminal.json(&hits);
    }
    anyhow::ensure!(!args.words.is_empty(), usage("search needs words to look for, or a `text`"));
    let hits = index.search(&args.words.join(" "), *top, *max_density)?;
    if hits.is_empty() {
        terminal.say("no latent is about these words; `text` finds those that fire on a text");
    }
    hits.iter().for_each(|hit| terminal.latent(hit.latent, &hit.label.to_string(), &hit.facts()));
    terminal.json(&hits)
}
