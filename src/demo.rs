//! `refract demo`: the whole pipeline in one command. It prints the command of each stage and runs it.

use std::path::{Path, PathBuf};

use analyzer::{FeatureIndex, PlacedSae, Workbench};
use anyhow::Context;
use clap::FromArgMatches;
use harvester::ActivationDataset;

use crate::{
    cli::{DemoArgs, FindArgs},
    evaluate, harvest, index, settings, show, steer,
    terminal::{DIM, Terminal},
    train,
};

/// The middle of the default model: late enough for topics, early enough to steer the text that follows.
const HOOK_POINT: &str = "blocks.14.hook_resid_post";
/// Most tokens used of one document, so that few tokens show many documents.
const DOCUMENT_TOKENS: &str = "768";
/// The two kinds of text that the steered latent distinguishes.
const POSITIVE: &str = "fiction";
const NEGATIVE: &str = "code";
/// Value to which a latent is driven, in units of its largest activation.
const DRIVE: f32 = 2.0;
/// A prompt that could go anywhere.
const OPEN_PROMPT: &str = "Here is what I wrote this morning:";

pub(crate) fn run(args: &DemoArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [activations, sae, features] =
        &["activations", "sae", "features"].map(|name| args.out.join(name).display().to_string());
    let (tokens, train_tokens) = (&args.tokens.to_string(), &args.train_tokens.to_string());

    let corpus = bundled_corpora()?;
    let mut words = vec!["harvest", "--corpus"];
    words.extend(corpus.iter().map(String::as_str));
    words.extend(["--hook-point", HOOK_POINT, "--tokens", tokens, "--document-tokens", DOCUMENT_TOKENS]);
    words.extend(["--out", activations]);
    let title = "1. Harvest: the model reads, its residual stream is kept";
    let model = harvest::run(&step(title, &words, terminal)?, terminal)?;

    let passes = args.train_tokens as f64 / args.tokens as f64;
    let title = &format!("2. Train: a sparse autoencoder learns to write it with few latents, in {passes:.0} passes");
    let words = ["train", "--activations", activations, "--d-sae", "4608", "--k", "32", "--tokens", train_tokens];
    train::run(&step(title, &[&words[..], &["--out", sae]].concat(), terminal)?, None, terminal)?;

    let title = "3. Evaluate: how much of the model it keeps, on text that it has not seen";
    evaluate::run(&step(title, &["evaluate", "--sae", sae], terminal)?, Some(&model), terminal)?;

    let title = "4. Index: when each latent fires, and what it does to the next token";
    let words = ["index", "--sae", sae, "--out", features];
    index::run(&step(title, &words, terminal)?, Some(&model), None, terminal)?;
    let index = FeatureIndex::open(features.as_ref())?;

    let title = "5. Show: a dozen latents whose labels predict best on text they were not chosen on";
    let words = ["show", "--features", features, "--top", "12", "--examples", "3"];
    show::run(&step(title, &words, terminal)?, terminal)?;

    let title = "6. Find: the latent that tells two of the corpora apart best";
    let words = ["find", "--features", features, "--positive", POSITIVE, "--negative", NEGATIVE, "--top", "1"];
    let find: FindArgs = step(title, &words, terminal)?;
    show::find(&find, terminal)?;
    let contrasts = analyzer::contrast(&index, &find.positive, &find.negative)?;
    let latent = contrasts.first().context("the SAE has no latents")?.latent;
    let examples = index.examples_from(latent, POSITIVE)?;
    terminal
        .line(format!("\nThe first of them, latent {latent}, is steered below. Its strongest examples in {POSITIVE}:"));
    show::show_examples(&index, &examples[..examples.len().min(3)], terminal);

    let bench = Workbench::new(PlacedSae::trained(sae.as_ref())?, Some(&model))?;
    let dataset = ActivationDataset::open(Path::new(activations))?;
    let prompt = bench.prompt_before_peak(&examples, &dataset, terminal)?.context("the latent fires nowhere")?;
    let driven = DRIVE * index.feature(latent)?.max;
    for (number, what, prompt, value) in [(7, "suppressed", &*prompt, 0.0), (8, "driven", OPEN_PROMPT, driven)] {
        let title = format!("{number}. Steer: the latent {what} while the model writes");
        let words = ["steer", "--sae", sae, &format!("--prompt={prompt}"), "--clamp", &format!("{latent}={value:.1}")];
        steer::run(&step(&title, &words, terminal)?, Some(&model), terminal)?;
    }
    terminal.heading("Next");
    terminal.line(format!("  refract inspect {activations}"));
    terminal.line(format!("  refract find --features {features} --positive languages --negative prose"));
    terminal.line("  refract --help");
    Ok(())
}

/// The bundled corpora: in the working folder, or in the sources that this program was built from.
fn bundled_corpora() -> anyhow::Result<Vec<String>> {
    let places = [Path::new("data/corpora"), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpora"))];
    let folder = places.into_iter().find(|folder| folder.is_dir());
    let folder = folder.context("data/corpora is not here: run the demo in the repository")?;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files.into_iter().map(|file| file.display().to_string()).collect())
}

/// Prints a heading and the command below it, and parses the command.
fn step<A: FromArgMatches>(title: &str, words: &[&str], terminal: &Terminal) -> anyhow::Result<A> {
    let words: Vec<&str> = std::iter::once("refract").chain(words.iter().copied()).collect();
    terminal.heading(title);
    terminal.line(format!("{DIM}$ {}{DIM:#}", harvester::human::shell_command(&words)));
    settings::parse(words.into_iter().map(Into::into).collect())
}
