//! `refract demo`: the whole pipeline in one command, which prints the command of each stage as it goes.

use std::path::{Path, PathBuf};

use analyzer::{EvaluationConfig, Example, FeatureIndex, GenerateConfig, IndexConfig, Intervention, SaeSource};
use anyhow::Context;
use harvester::{CorpusOptions, HarvestConfig, HookPoint, LanguageModel, MANIFEST_FILE, ModelSource};
use serde::{Deserialize, Serialize};
use trainer::TrainConfig;

use crate::{
    cli::DemoArgs,
    evaluate::{self, Measured},
    harvest, index, show,
    steer::Steering,
    terminal::{DIM, Terminal, grouped},
    train,
};

/// The middle of the default model: late enough for topics, early enough to steer what comes.
const LAYER: usize = 14;
const D_SAE: usize = 4608;
const K: usize = 32;
/// Tokens used of a document at most, so that few tokens show many documents.
const DOCUMENT_TOKENS: usize = 768;
/// The two kinds of text that the steered latent tells apart.
const POSITIVE: &str = "fiction";
const NEGATIVE: &str = "code";
/// How far a latent is driven, in units of the largest activation seen.
const DRIVE: f32 = 2.0;
/// A prompt that could go anywhere.
const OPEN_PROMPT: &str = "Here is what I wrote this morning:";

/// Where each stage writes.
struct Folders {
    activations: PathBuf,
    sae: PathBuf,
    features: PathBuf,
    evaluation: PathBuf,
}

impl Folders {
    fn under(out: &Path) -> Self {
        Self {
            activations: out.join("activations"),
            sae: out.join("sae"),
            features: out.join("features"),
            evaluation: out.join("evaluation.json"),
        }
    }
}

pub(crate) fn run(args: &DemoArgs, terminal: &Terminal) -> anyhow::Result<()> {
    let folders = Folders::under(&args.out);
    let corpus = bundled_corpora()?;
    let model = harvest_step(args, &corpus, &folders, terminal)?;
    train_step(args, &folders, terminal)?;
    evaluate_step(&model, &folders, terminal)?;
    let index = index_step(&model, &folders, terminal)?;
    show_step(&index, &folders, terminal)?;
    steer_step(&model, &index, &folders, terminal)?;
    terminal.heading("Next");
    terminal.line(format!("  refract inspect {}", folders.activations.display()));
    terminal.line(format!(
        "  refract find --features {} --positive languages --negative prose",
        folders.features.display()
    ));
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
fn harvest_step(
    args: &DemoArgs,
    corpus: &[PathBuf],
    folders: &Folders,
    terminal: &Terminal,
) -> anyhow::Result<LanguageModel> {
    let hook_point = HookPoint::resid_post(LAYER);
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
        folders.activations.display()
    );
    step(terminal, "1. Harvest: the model reads, its residual stream is kept", &command);
    let out = &folders.activations;
    let model = LanguageModel::open(&ModelSource::Default.resolve(terminal)?, config.compute)?;
    let manifest = harvest::harvest(&model, corpus, &CorpusOptions::default(), &config, out, terminal)?;
    harvest::report(&manifest, out, terminal)?;
    Ok(model)
}

fn train_step(args: &DemoArgs, folders: &Folders, terminal: &Terminal) -> anyhow::Result<()> {
    let config = TrainConfig { d_sae: Some(D_SAE), k: K, tokens: args.train_tokens, ..TrainConfig::default() };
    let command = format!(
        "refract train --activations {} --d-sae {D_SAE} --k {K} --tokens {} --out {}",
        folders.activations.display(),
        args.train_tokens,
        folders.sae.display()
    );
    step(terminal, "2. Train: a sparse autoencoder learns to write it with few latents", &command);
    let manifest = train::train(&folders.activations, &config, &folders.sae, terminal)?;
    train::report(&manifest, &folders.sae, terminal);
    Ok(())
}

/// An evaluation kept for a second run, with the SAE that it is of.
#[derive(Serialize, Deserialize)]
struct Kept {
    sae_manifest_sha256: String,
    evaluation: Measured,
}

fn evaluate_step(model: &LanguageModel, folders: &Folders, terminal: &Terminal) -> anyhow::Result<()> {
    let command = format!("refract evaluate --sae {}", folders.sae.display());
    step(terminal, "3. Evaluate: what it keeps of text it has not seen", &command);
    let sae_manifest_sha256 = harvester::sha256_file(&folders.sae.join(MANIFEST_FILE))?;
    let text = std::fs::read_to_string(&folders.evaluation).unwrap_or_default();
    let kept = serde_json::from_str::<Kept>(&text).ok().filter(|kept| kept.sae_manifest_sha256 == sae_manifest_sha256);
    let kept = match kept {
        Some(kept) => kept,
        None => {
            let source = SaeSource::trained(&folders.sae);
            let evaluation = evaluate::measure(&source, Some(model), &EvaluationConfig::default(), terminal)?;
            let kept = Kept { sae_manifest_sha256, evaluation };
            harvester::write_atomically(&folders.evaluation, &serde_json::to_vec_pretty(&kept)?)?;
            kept
        }
    };
    evaluate::print(&kept.evaluation, terminal);
    terminal.json(&kept.evaluation)
}

fn index_step(model: &LanguageModel, folders: &Folders, terminal: &Terminal) -> anyhow::Result<FeatureIndex> {
    let command = format!("refract index --sae {} --out {}", folders.sae.display(), folders.features.display());
    step(terminal, "4. Index: when each latent fires, and what it writes", &command);
    index::build(&SaeSource::trained(&folders.sae), Some(model), &IndexConfig::default(), &folders.features, terminal)?;
    let index = FeatureIndex::open(&folders.features)?;
    let active = index.features().iter().filter(|feature| feature.n_active > 0).count();
    let all = index.features().len() as u64;
    terminal.line(format!("{} of {} latents fire on this text", grouped(active as u64), grouped(all)));
    Ok(index)
}

fn show_step(index: &FeatureIndex, folders: &Folders, terminal: &Terminal) -> anyhow::Result<()> {
    let command = format!("refract show --features {} --top 12 --examples 3", folders.features.display());
    step(terminal, "5. Show: a dozen latents whose strongest examples agree", &command);
    show::show_most_interpretable(index, 12, 3, terminal)
}

/// Suppresses and drives the latent that best tells two of the corpora apart.
fn steer_step(
    model: &LanguageModel,
    index: &FeatureIndex,
    folders: &Folders,
    terminal: &Terminal,
) -> anyhow::Result<()> {
    let command =
        format!("refract find --features {} --positive {POSITIVE} --negative {NEGATIVE}", folders.features.display());
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
    let here = |example: &&Example| {
        let source = index.source_of(example.document).map(|place| index.manifest().sources[place].name.as_str());
        source == Some(POSITIVE)
    };
    let examples: Vec<Example> = index.examples(latent).iter().filter(here).cloned().collect();
    show::show_examples(index, &examples[..examples.len().min(3)], terminal);
    let steering = Steering::open(&SaeSource::trained(&folders.sae), Some(model), terminal)?;
    let prompt = steering.text_before(&examples, &folders.activations)?;
    let runs = [("suppressed", prompt.as_str(), 0.0), ("driven", OPEN_PROMPT, DRIVE * feature.max)];
    for (what, prompt, value) in runs {
        let command = format!(
            "refract steer --sae {} --prompt {} --clamp {latent}={value:.1}",
            folders.sae.display(),
            shell_quoted(prompt),
        );
        step(terminal, &format!("latent {latent} {what}"), &command);
        let edit = Intervention::Clamp { latent, value };
        let result = steering.side_by_side(prompt, &[edit], &GenerateConfig::default(), terminal)?;
        result.print(terminal);
        terminal.json(&result)?;
    }
    Ok(())
}

/// A prompt as a shell takes it, line breaks included.
fn shell_quoted(text: &str) -> String {
    if text.contains(char::is_control) {
        let escaped = text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n").replace('\t', "\\t");
        return format!("$'{escaped}'");
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}
