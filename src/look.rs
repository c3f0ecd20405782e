//! The commands that look at latents: `refract show`, `find`, `search` and `compare`.

use std::collections::BTreeSet;

use analyzer::{CompareConfig, ContrastConfig, Contrasts, Example, FeatureIndex, TextGroup};
use harvester::{LanguageModel, Monitor};

use crate::{
    cli::{CompareArgs, FindArgs, ListArgs, SearchArgs, ShowArgs, usage},
    terminal::{DIM, Terminal, lit},
};

pub(crate) fn show(args: &ShowArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    let are_named = !args.latents.is_empty();
    let latents = if are_named { args.latents.clone() } else { index.best_labeled(args.top)? };
    if latents.is_empty() {
        terminal.say("no latent has a label that predicts it: index more text, or train longer");
    }
    let mut shown = BTreeSet::new();
    for latent in latents.into_iter().filter(|latent| shown.insert(*latent)) {
        let portrait = index.portrait(latent, args.examples)?;
        let facts = if are_named { portrait.facts(&index.source_names()) } else { portrait.summary() };
        terminal.latent(latent, &portrait.label.to_string(), &facts);
        show_examples(&index, &portrait.examples, are_named, terminal);
        terminal.json(&portrait)?;
    }
    Ok(())
}

/// Characters before the text of an example.
const BEFORE: usize = 33;

/// Examples, strongest first, highlighted by activation, with file and line: each on one line, or `whole`.
fn show_examples(index: &FeatureIndex, examples: &[Example], whole: bool, terminal: &Terminal) {
    let max = examples.first().map_or(0.0, |example| example.activation);
    let width = terminal.width().saturating_sub(BEFORE);
    for example in examples {
        let head = format!("  {:7.1}  {DIM}{:20}{DIM:#}  ", example.activation, index.place(example));
        let lines = if whole { example.lines(width) } else { vec![example.around_peak(width)] };
        for (at, line) in lines.into_iter().enumerate() {
            let text = lit(example, line, max);
            let text = text.trim_end();
            terminal.line(if at == 0 { format!("{head}{text}") } else { format!("{:BEFORE$}{text}", "") });
        }
    }
}

/// `model` is the model of the SAE if it is open already.
pub(crate) fn find(args: &FindArgs, model: Option<&LanguageModel>, terminal: &Terminal) -> anyhow::Result<Contrasts> {
    let FindArgs { list: ListArgs { features, top, max_density }, rank, .. } = args;
    let index = FeatureIndex::open(features)?;
    let groups = TextGroup::both(&args.positive, &args.negative, &index)?;
    let bench = || index.workbench(args.sae.sae.as_deref(), args.sae.activations.as_deref(), model, terminal);
    let fit = if args.fit.is_some() { args.fit_latents } else { 0 };
    let config = ContrastConfig { max_density: *max_density, rank: *rank, fit };
    let mut found = analyzer::find(&index, [&groups[0], &groups[1]], bench, &config, terminal)?;
    found.summary().iter().for_each(|line| terminal.line(format!("{DIM}{line}{DIM:#}")));
    found.latents.truncate(*top);
    terminal.table(&found.table(&index)?);
    if let (Some(probe), Some(out)) = (&found.probe, &args.fit) {
        probe.write(out)?;
        terminal.report(out.display(), &probe.summary());
    }
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

pub(crate) fn compare(args: &CompareArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [first, second] = [&args.saes[0], &args.saes[1]];
    let config = CompareConfig { tokens: args.tokens };
    let comparison = analyzer::compare_at([first, second], args.activations.as_deref(), &config, terminal)?;
    terminal.facts(&comparison.facts());
    for (heading, latents) in comparison.only_here(args.top) {
        terminal.heading(&heading);
        terminal.line(format!("  {latents}"));
    }
    terminal.json(&comparison)
}
