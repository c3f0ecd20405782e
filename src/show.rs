//! `refract show`: some latents, or those whose labels predict best; and `refract find`: the latents that distinguish two
//! sources of the corpus.

use analyzer::{Example, FeatureIndex, Portrait, TokenWeight};
use harvester::Monitor;

use crate::{
    cli::{FindArgs, ShowArgs},
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
        terminal.json(&portrait)?;
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
        let raised = portrait.effect.as_ref().map_or(&portrait.feature.promoted, |effect| &effect.promoted);
        terminal.line(format!("  {DIM}raises{DIM:#} {}", tokens(raised, 6)));
        terminal.json(&portrait)?;
    }
    Ok(())
}

/// Examples, strongest first, highlighted by activation, with their sources.
pub(crate) fn show_examples(index: &FeatureIndex, examples: &[Example], terminal: &Terminal) {
    let max = examples.first().map_or(0.0, |example| example.activation);
    for example in examples {
        let source = index.source_of(example.document).unwrap_or("?");
        let text = lit(&example.texts, &example.activations, max);
        terminal.line(format!("  {:7.1}  {DIM}{source:10.10}{DIM:#}  {text}", example.activation));
    }
}

/// `"the"  "a"  ..`
pub(crate) fn tokens(tokens: &[TokenWeight], n: usize) -> String {
    tokens.iter().take(n).map(|token| quoted(&token.text)).collect::<Vec<_>>().join("  ")
}

pub(crate) fn find(args: &FindArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    let contrasts = analyzer::contrast(&index, &args.positive, &args.negative)?;
    let (positive, negative) = (args.positive.join(" + "), args.negative.join(" + "));
    terminal.line(format!("{BOLD}latent  separation  {positive} / {negative}  promotes{BOLD:#}"));
    for contrast in contrasts.iter().take(args.top) {
        terminal.line(format!(
            "{:6}  {:10.2}  {:.2} % / {:.2} %  {}",
            contrast.latent,
            contrast.separation,
            100.0 * contrast.positive,
            100.0 * contrast.negative,
            tokens(&index.feature(contrast.latent)?.promoted, 5),
        ));
        terminal.json(contrast)?;
    }
    Ok(())
}
