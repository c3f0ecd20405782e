//! `refract show`: some latents, or those whose labels predict best.

use analyzer::{Example, FeatureIndex};
use harvester::Monitor;

use crate::{
    cli::ShowArgs,
    terminal::{DIM, Terminal, lit},
};

pub(crate) fn run(args: &ShowArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    let are_named = !args.latents.is_empty();
    let latents = if are_named { args.latents.clone() } else { index.best_labeled(args.top)? };
    if latents.is_empty() {
        terminal.say("no latent has a label that predicts it: index more text, or train longer");
    }
    for latent in latents {
        let portrait = index.portrait(latent, args.examples)?;
        let facts = if are_named { portrait.facts(&index.source_names()) } else { portrait.summary() };
        terminal.latent(latent, &portrait.label.to_string(), &facts);
        show_examples(&index, &portrait.examples, terminal);
        terminal.json(&portrait)?;
    }
    Ok(())
}

/// Examples, strongest first, highlighted by activation, with file and line.
fn show_examples(index: &FeatureIndex, examples: &[Example], terminal: &Terminal) {
    let max = examples.first().map_or(0.0, |example| example.activation);
    for example in examples {
        let (place, text) = (index.place(example), lit(&example.texts, &example.activations, max));
        terminal.line(format!("  {:7.1}  {DIM}{place:20}{DIM:#}  {text}", example.activation));
    }
}
