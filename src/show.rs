//! `refract show`: one latent, or the most interpretable ones; and `refract find`: the latents that distinguish two
//! sources of the corpus.

use std::collections::BTreeSet;

use analyzer::{Example, Feature, FeatureIndex, TokenWeight};
use harvester::{DocumentRecord, Monitor, human::grouped};

use crate::{
    cli::{FindArgs, ShowArgs},
    terminal::{BOLD, DIM, Terminal, lit, on_one_line, quoted},
};

pub(crate) fn run(args: &ShowArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let index = FeatureIndex::open(&args.features)?;
    if args.latents.is_empty() {
        return show_most_interpretable(&index, args.top, args.examples, terminal);
    }
    for &latent in &args.latents {
        let feature = index.feature(latent)?;
        let examples = first(index.examples(latent), args.examples);
        show_feature(&index, feature, examples, terminal);
        let documents = documents(&index, examples);
        terminal.json(&serde_json::json!({ "feature": feature, "examples": examples, "documents": documents }))?;
    }
    Ok(())
}

/// The documents of the examples, each once.
fn documents<'a>(index: &'a FeatureIndex, examples: &[Example]) -> Vec<&'a DocumentRecord> {
    let numbers: BTreeSet<u64> = examples.iter().map(|example| example.document).collect();
    numbers.into_iter().filter_map(|number| index.document(number)).collect()
}

fn show_most_interpretable(
    index: &FeatureIndex,
    n: usize,
    n_examples: usize,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let picks = index.most_interpretable(n);
    if picks.is_empty() {
        terminal.say("no latent has enough agreeing examples: index more text, or train longer");
    }
    for pick in &picks {
        let feature = index.feature(pick.latent)?;
        let about = on_one_line(&pick.about.to_string());
        let about = format!("{about} ({:.0} % of its strongest examples)", 100.0 * pick.agreement);
        terminal.line(format!("\n{BOLD}latent {}{BOLD:#}  {about}", pick.latent));
        let examples = first(index.examples(pick.latent), n_examples);
        show_examples(index, examples, terminal);
        terminal.line(format!("  {DIM}promotes{DIM:#} {}", tokens(&feature.promoted, 6)));
        let documents = documents(index, examples);
        terminal.json(&serde_json::json!({
            "pick": pick, "feature": feature, "examples": examples, "documents": documents
        }))?;
    }
    Ok(())
}

fn show_feature(index: &FeatureIndex, feature: &Feature, examples: &[Example], terminal: &Terminal) {
    terminal.heading(&format!("latent {}", feature.latent));
    if feature.n_active == 0 {
        terminal.line("  never active: it fires on no token of the index");
    } else {
        terminal.line(format!(
            "  fires on {:.3} % of tokens ({}), mean {:.1}, max {:.1}",
            100.0 * feature.density,
            grouped(feature.n_active),
            feature.mean,
            feature.max
        ));
        terminal.line(format!("  {DIM}strength{DIM:#}   {}", feature.histogram_line()));
        terminal.line(format!("  {DIM}where{DIM:#}      {}", by_source(index, feature)));
    }
    terminal.line(format!("  {DIM}promotes{DIM:#}   {}", tokens(&feature.promoted, 10)));
    terminal.line(format!("  {DIM}suppresses{DIM:#} {}", tokens(&feature.suppressed, 10)));
    let near: Vec<_> = feature.nearest.iter().map(|(latent, cosine)| format!("{latent} ({cosine:.2})")).collect();
    terminal.line(format!("  {DIM}nearest{DIM:#}    {}", near.join("  ")));
    let max = examples.first().map_or(0.0, |example| example.activation);
    for example in examples {
        let place = place(index, example);
        let text = lit(&example.texts, &example.activations, max);
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

/// The strongest examples of a latent, at most `n`.
fn first(examples: &[Example], n: usize) -> &[Example] {
    &examples[..n.min(examples.len())]
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

/// Sources sorted by how often the latent fires in them, with its density in each.
fn by_source(index: &FeatureIndex, feature: &Feature) -> String {
    let mut sources: Vec<_> = index.source_names().into_iter().zip(&feature.density_by_source).collect();
    sources.sort_by(|a, b| b.1.total_cmp(a.1));
    let shown = sources.iter().filter(|(_, density)| **density > 0.0).take(4);
    shown.map(|(name, density)| format!("{name} {:.2} %", 100.0 * **density)).collect::<Vec<_>>().join("  ")
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
