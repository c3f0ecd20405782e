//! `refract demo`: the whole pipeline in one command, which prints the command of each stage as it goes.

use std::path::{Path, PathBuf};

use analyzer::{EvaluationConfig, FeatureIndex, GenerateConfig, IndexConfig, Intervention, PlacedSae, Workbench};
use anyhow::Context;
use harvester::{ActivationDataset, CorpusOptions, HarvestConfig, HookPoint, LanguageModel, ModelSource};
use trainer::TrainConfig;

use crate::{
    cli::DemoArgs,
    evaluate, harvest, show, steer,
    terminal::{DIM, Terminal, grouped},
    train,
};

/// The middle of the default model: late enough for topics, early enough to steer the text that follows.
const LAYER: usize = 14;
const D_SAE: usize = 4608;
const K: usize = 32;
/// Most tokens used of one document, so that few tokens show many documents.
const DOCUMENT_TOKENS: usize = 768;
/// The two kinds of text that the steered latent distinguishes.
const POSITIVE: &str = "fiction";
const NEGATIVE: &str = "code";
/// Value to which a latent is driven, in units of its largest activation.
const DRIVE: f32 = 2.0;
/// A prompt that could go anywhere.
const OPEN_PROMPT: &str = "Here is what I wrote this morning:";

pub(crate) fn run(args: &DemoArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let [activations, sae, features] = ["activations", "sae", "features"].map(|folder| args.out.join(folder));
    let model = harvest_step(args, &activations, terminal)?;
    let dataset = ActivationDataset::open(activations.as_path())?;
    train_step(args, &dataset, &sae, terminal)?;
    let bench = Workbench::new(PlacedSae::trained(&sae)?, Some(&model))?;
    evaluate_step(&bench, &dataset, terminal)?;
    let index = index_step(&bench, &dataset, &features, terminal)?;
    show_step(&index, &features, terminal)?;
    steer_step(&bench, &dataset, &index, &features, terminal)?;
    terminal.heading("Next");
    terminal.line(format!("  refract inspect {}", activations.display()));
    terminal.line(format!("  refract find --features {} --positive languages --negative prose", features.display()));
    terminal.line("  refract --help");
    Ok(())
}

/// The bundled corpora: in the working folder, or in the sources that this program was built from.
fn bundled_corpora() -> anyhow::Result<Vec<PathBuf>> {
    let places = [Path::new("data/corpora"), Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/corpora"))];
    let folder = places.into_iter().find(|folder| folder.is_dir());
    let folder = folder.context("data/corpora is not here: run the demo in the repository")?;
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files)
}

/// A numbered heading, with the command that does the same.
fn step(terminal: &Terminal, title: &str, command: &str) {
    terminal.heading(title);
    terminal.line(format!("{DIM}$ {command}{DIM:#}"));
}

/// Returns the model, for the later steps.
fn harvest_step(args: &DemoArgs, out: &Path, terminal: &Terminal) -> anyhow::Result<LanguageModel> {
    let (corpus, hook_point) = (bundled_corpora()?, HookPoint::resid_post(LAYER));
    let config = HarvestConfig {
        hook_points: vec![hook_point],
        tokens: Some(args.tokens),
        document_tokens: Some(DOCUMENT_TOKENS),
        ..HarvestConfig::default()
    };
    let texts = corpus.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    let command = format!(
        "refract harvest --corpus {texts} --hook-point {hook_point} --tokens {} \
         --document-tokens {DOCUMENT_TOKENS} --out {}",
        args.tokens,
        out.display()
    );
    step(terminal, "1. Harvest: the model reads, its residual stream is kept", &command);
    let model = LanguageModel::open(&ModelSource::Default.resolve(terminal)?, config.compute)?;
    let manifest = harvest::harvest(&model, &corpus, &CorpusOptions::default(), &config, out, terminal)?;
    harvest::report(&manifest, out, terminal)?;
    Ok(model)
}

fn train_step(args: &DemoArgs, dataset: &ActivationDataset, out: &Path, terminal: &Terminal) -> anyhow::Result<()> {
    let config = TrainConfig { d_sae: Some(D_SAE), k: K, tokens: args.train_tokens, ..TrainConfig::default() };
    let command = format!(
        "refract train --activations {} --d-sae {D_SAE} --k {K} --tokens {} --out {}",
        dataset.dir().display(),
        args.train_tokens,
        out.display()
    );
    step(terminal, "2. Train: a sparse autoencoder learns to write it with few latents", &command);
    let manifest = train::train(dataset.into(), &config, out, terminal)?;
    train::report(&manifest, out, terminal);
    Ok(())
}

fn evaluate_step(bench: &Workbench, dataset: &ActivationDataset, terminal: &Terminal) -> anyhow::Result<()> {
    let command = format!("refract evaluate --sae {}", bench.sae().path.display());
    step(terminal, "3. Evaluate: how much of the model it keeps, on text that it has not seen", &command);
    let measured = bench.evaluate(dataset, &EvaluationConfig::default(), terminal)?;
    evaluate::print(&measured, terminal);
    terminal.json(&measured)
}

fn index_step(
    bench: &Workbench,
    dataset: &ActivationDataset,
    out: &Path,
    terminal: &Terminal,
) -> anyhow::Result<FeatureIndex> {
    let command = format!("refract index --sae {} --out {}", bench.sae().path.display(), out.display());
    step(terminal, "4. Index: when each latent fires, and what it promotes", &command);
    analyzer::index(bench, dataset, &IndexConfig::default(), out, terminal)?;
    let index = FeatureIndex::open(out)?;
    let active = index.features().iter().filter(|feature| feature.n_active > 0).count();
    let all = index.features().len() as u64;
    terminal.line(format!("{} of {} latents fire on this text", grouped(active as u64), grouped(all)));
    Ok(index)
}

fn show_step(index: &FeatureIndex, features: &Path, terminal: &Terminal) -> anyhow::Result<()> {
    let command = format!("refract show --features {} --top 12 --examples 3", features.display());
    step(terminal, "5. Show: a dozen latents whose strongest examples agree", &command);
    show::show_most_interpretable(index, 12, 3, terminal)
}

/// Suppresses and drives the latent that best distinguishes two of the corpora.
fn steer_step(
    bench: &Workbench,
    dataset: &ActivationDataset,
    index: &FeatureIndex,
    features: &Path,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let command = format!("refract find --features {} --positive {POSITIVE} --negative {NEGATIVE}", features.display());
    step(terminal, "6. Steer: one latent, suppressed and driven while the model writes", &command);
    let contrasts = analyzer::contrast(index, &[POSITIVE.to_string()], &[NEGATIVE.to_string()])?;
    let contrast = contrasts.first().context("the SAE has no latents")?;
    let (latent, feature) = (contrast.latent, index.feature(contrast.latent)?);
    terminal.line(format!(
        "latent {latent} fires on {:.1} % of tokens in {POSITIVE} and {:.2} % in {NEGATIVE}; it promotes {}",
        100.0 * contrast.positive,
        100.0 * contrast.negative,
        show::tokens(&feature.promoted, 6)
    ));
    let examples = index.examples_from(latent, POSITIVE);
    show::show_examples(index, &examples[..examples.len().min(3)], terminal);
    let prompt = bench.prompt_before_peak(&examples, dataset, terminal)?.context("the latent fires nowhere")?;
    let runs = [("suppressed", prompt.as_str(), 0.0), ("driven", OPEN_PROMPT, DRIVE * feature.max)];
    for (what, prompt, value) in runs {
        let (sae, prompt_word) = (bench.sae().path.display(), shell_quoted(prompt));
        let command = format!("refract steer --sae {sae} --prompt {prompt_word} --clamp {latent}={value:.1}");
        step(terminal, &format!("latent {latent} {what}"), &command);
        let edit = Intervention::Clamp { latent, value };
        let result = bench.side_by_side(prompt, &[edit], &GenerateConfig::default(), terminal)?;
        steer::print(&result, terminal);
        terminal.json(&result)?;
    }
    Ok(())
}

/// A prompt quoted for a shell, with its line breaks.
fn shell_quoted(text: &str) -> String {
    if text.contains(char::is_control) {
        let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
        return format!("$'{escaped}'");
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
