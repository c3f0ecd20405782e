//! `refract demo`: the whole pipeline in one command. It prints the command of each stage and runs it.

use analyzer::{FeatureIndex, PlacedSae, Workbench, on_one_line};
use clap::FromArgMatches;

use crate::{
    cli::DemoArgs,
    harvest, look, sae, settings, steer,
    terminal::{DIM, Terminal},
    train,
};

/// The middle of the default model: late enough for topics, early enough to steer the text that follows.
const HOOK_POINT: &str = "blocks.14.hook_resid_post";
/// Most tokens used of one document, so that many documents are read.
const DOCUMENT_TOKENS: &str = "512";
/// The two kinds of text that the steered latent tells apart.
const POSITIVE: &str = "fiction";
const NEGATIVE: &str = "prose";
/// Texts shown of the steered latent.
const SHOWN: usize = 3;

pub(crate) fn run(args: &DemoArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [activations, sae, features] =
        &["activations", "sae", "features"].map(|name| args.out.join(name).display().to_string());
    let (tokens, train_tokens) = (&args.tokens.to_string(), &args.train_tokens.to_string());

    let corpus = analyzer::bundled_corpora()?;
    let mut words = vec!["harvest", "--corpus"];
    words.extend(corpus.iter().map(String::as_str));
    words.extend(["--hook-point", HOOK_POINT, "--tokens", tokens, "--document-tokens", DOCUMENT_TOKENS]);
    words.extend(["--compute", "int8", "--out", activations]);
    let title = "1. Harvest: the model reads, its residual stream is kept (int8 products read 2.4 times faster)";
    harvest::run(&step(title, &words, terminal)?, terminal)?;

    let passes = args.train_tokens as f64 / args.tokens as f64;
    let title = &format!("2. Train: a sparse autoencoder learns to write it with few latents, in {passes:.0} passes");
    let words = ["train", "--activations", activations, "--d-sae", "4608", "--k", "32", "--tokens", train_tokens];
    train::train(&step(title, &[&words[..], &["--out", sae]].concat(), terminal)?, None, terminal)?;

    let bench = Workbench::new(PlacedSae::trained(sae.as_ref())?, None)?;
    let model = Some(bench.model(terminal)?);
    let title = "3. Evaluate: how much of the model it keeps, on text that it has not seen";
    sae::evaluate(&step(title, &["evaluate", "--sae", sae], terminal)?, model, terminal)?;

    let title = "4. Index: when each latent fires, on what, and what it does to the next token";
    sae::index(&step(title, &["index", "--sae", sae, "--out", features], terminal)?, model, None, terminal)?;

    let title = "5. Show: latents whose label predicts them best, on text that it was not chosen on";
    let words = ["show", "--features", features, "--top", "12", "--examples", "2"];
    look::show(&step(title, &words, terminal)?, terminal)?;

    let title = &format!("6. Find: the latents that tell {POSITIVE} from {NEGATIVE}");
    let words = ["find", "--features", features, "--positive", POSITIVE, "--negative", NEGATIVE, "--top", "8"];
    let found = look::find(&step(title, &words, terminal)?, model, terminal)?;
    let index = FeatureIndex::open(features.as_ref())?;
    terminal.heading("7. Steer: the model answers with a latent driven to its own maximum");
    if let Some(trial) = bench.demonstrate(&found, &index, args.compute, terminal)? {
        let (latent, value) = (trial.latent, trial.value);
        terminal.line(format!("latent {latent}, {}, at {value:.1}", on_one_line(&index.label(latent)?.to_string())));
        terminal.facts(&trial.facts(SHOWN));
        trial.summary().iter().for_each(|line| terminal.line(line));
        let clamp = format!("{latent}={value:.1}");
        let words = ["steer", "--sae", sae, "--chat", "--prompt", &trial.texts[0].prompt, "--clamp", &clamp];
        steer::run(&step("8. The same by hand: one prompt, with what moves", &words, terminal)?, model, terminal)?;
    } else {
        terminal.line("none of them moves the text without making it repeat itself");
    }

    terminal.heading("Next: look for what you care about");
    terminal.line(format!("  refract search --features {features} whale"));
    terminal.line(format!("  refract explain --sae {sae} --features {features} --text 'The capital of France is'"));
    terminal.line(format!("  refract find --features {features} --positive code --negative prose"));
    terminal.line("  refract --help");
    Ok(())
}

/// Prints a heading and the command below it, and parses the command.
fn step<A: FromArgMatches>(title: &str, words: &[&str], terminal: &Terminal) -> anyhow::Result<A> {
    let words: Vec<&str> = std::iter::once("refract").chain(words.iter().copied()).collect();
    terminal.heading(title);
    terminal.line(format!("{DIM}$ {}{DIM:#}", harvester::human::shell_command(&words)));
    settings::parse(words.into_iter().map(Into::into).collect())
}
