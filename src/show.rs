//! `refract show`: some latents, or those whose labels predict best.

use std::collections::BTreeSet;

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
