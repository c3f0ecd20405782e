//! `refract show`: some latents, or those whose labels predict best.

use std::collections::BTreeSet;

use analyzer::{Example, FeatureIndex, Portrait, TokenWeight};
use harvester::{DocumentRecord, Monitor};

use crate::{
    cli::ShowArgs,
    terminal::{BOLD, DIM, Terminal, lit, on_one_line, quoted},
};

pub(crate) fn run(args: &ShowArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    let names = index.source_names();
    for &latent in &args.latents {
        let portrait = index.portrait(latent, args.examples)?;
        title(&portrait, terminal);
        for (name, value) in portrait.facts(&names).iter() {
            terminal.line(format!("  {DIM}{name:11}{DIM:#} {}", on_one_line(value)));
        }
        show_examples(&index, &portrait.examples, terminal);
        json(&index, &portrait, terminal)?;
    }
    if args.latents.is_empty() {
        show_best_labeled(&index, args.top, args.examples, terminal)?;
    }
    Ok(())
}

fn title(portrait: &Portrait, terminal: &Terminal) {
    let (latent, label) = (portrait.feature.latent, on_one_line(&portrait.label.to_string()));
    terminal.line(format!("\n{BOLD}latent {latent}{BOLD:#}  {label}"));
}

fn show_best_labeled(index: &FeatureIndex, n: usize, n_examples: usize, terminal: &Terminal) -> anyhow::Result<()> {
    let latents = index.best_labeled(n)?;
    if latents.is_empty() {
        terminal.say("no latent has a label that predicts it: index more text, or train longer");
    }
    for latent in latents {
        let portrait = index.portrait(latent, n_examples)?;
        title(&portrait, terminal);
        show_examples(index, &portrait.examples, terminal);
        let lens = ("lens raises", &portrait.feature.promoted);
        let (how, raised) = portrait.effect.as_ref().map_or(lens, |effect| ("raises", &effect.promoted));
        terminal.line(format!("  {DIM}{how}{DIM:#} {}", tokens(raised, 6)));
        json(index, &portrait, terminal)?;
    }
    Ok(())
}

/// The portrait and the documents of its examples, each once.
fn json(index: &FeatureIndex, portrait: &Portrait, terminal: &Terminal) -> anyhow::Result<()> {
    let numbers: BTreeSet<u64> = portrait.examples.iter().map(|example| example.document).collect();
    let documents: Vec<_> = numbers.into_iter().filter_map(|number| index.document(number)).collect();
    let mut value = serde_json::to_value(portrait)?;
    value["documents"] = serde_json::to_value(documents)?;
    terminal.json(&value)
}

/// Examples, strongest first, highlighted by activation, with file and line.
pub(crate) fn show_examples(index: &FeatureIndex, examples: &[Example], terminal: &Terminal) {
    let max = examples.first().map_or(0.0, |example| example.activation);
    for example in examples {
        let (place, text) = (place(index, example), lit(&example.texts, &example.activations, max));
        terminal.line(format!("  {:7.1}  {DIM}{place:20}{DIM:#}  {text}", example.activation));
    }
}

/// File and line of an example in 20 characters, or its source if that is all that is known. The end is what tells
/// lines apart, so a longer name loses its beginning.
fn place(index: &FeatureIndex, example: &Example) -> String {
    const WIDTH: usize = 20;
    let known = index.document(example.document).map(DocumentRecord::place);
    let place = known.unwrap_or_else(|| index.source_of(example.document).unwrap_or("?").to_owned());
    match place.chars().count() {
        0..=WIDTH => place,
        length => format!("…{}", place.chars().skip(length + 1 - WIDTH).collect::<String>()),
    }
}

/// `"the"  "a"  ..`
pub(crate) fn tokens(tokens: &[TokenWeight], n: usize) -> String {
    tokens.iter().take(n).map(|token| quoted(&token.text)).collect::<Vec<_>>().join("  ")
}
