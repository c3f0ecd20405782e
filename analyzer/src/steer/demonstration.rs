//! [`Workbench::demonstrate`]: of the latents that tell two kinds of text apart, the one that moves what the model writes.

use std::path::Path;

use harvester::{Compute, Error as Harvester, Monitor};

use super::{generate::GenerateConfig, trial::Trial};
use crate::{Contrasts, DocumentContrast, FeatureIndex, Result, Workbench};

/// Latents that are tried.
const CANDIDATES: usize = 4;
/// A latent that only knows one token says little about a kind of text: its AUC without that token must be above this.
const WITHOUT_TOKEN: f64 = 0.65;
/// On these prompts a latent is chosen, and on the others its effect is reported.
const TRIED: [&str; 4] = [
    "What should I cook tonight?",
    "Describe a good friend.",
    "What is the best way to spend a weekend?",
    "Write a short note to a neighbor.",
];
const REPORTED: [&str; 8] = [
    "Tell me about your day.",
    "Describe the place where you live.",
    "What makes a good teacher?",
    "Why do people work?",
    "What did you learn this week?",
    "Tell me about a trip that you took.",
    "How should I start the morning?",
    "What is the sea like at night?",
];

/// The bundled corpora, file by file: in the working folder, or in the sources that this program was built from.
///
/// # Errors
/// When neither has them.
pub fn bundled_corpora() -> Result<Vec<String>> {
    let here = Path::new("data/corpora");
    let sources = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../data/corpora"));
    let folder = if here.is_dir() { here } else { sources };
    let entries = std::fs::read_dir(folder).map_err(Harvester::io("read", folder))?;
    let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    Ok(files.into_iter().map(|file| file.display().to_string()).collect())
}

impl Workbench {
    /// Tries the first latents of `found`, each at its own maximum in `index`, and returns a trial of the one that moves
    /// the text most, on other prompts. `None` if none of them moves it. The model writes with products in `compute`.
    ///
    /// # Errors
    /// As [`Self::trial`]; or a damaged table of `index`.
    pub fn demonstrate(
        &self,
        found: &Contrasts,
        index: &FeatureIndex,
        compute: Compute,
        monitor: &dyn Monitor,
    ) -> Result<Option<Trial>> {
        let max = index.column::<f32>("max")?;
        let is_kind = |contrast: &&DocumentContrast| contrast.auc_without_token > WITHOUT_TOKEN;
        let candidates = found.latents.iter().filter(is_kind).take(CANDIDATES).map(|contrast| contrast.latent);
        let candidates: Vec<_> = candidates.map(|latent| (latent, max[latent as usize])).collect();
        let config =
            GenerateConfig { max_new_tokens: 40, temperature: 0.7, top_p: 0.9, compute, ..GenerateConfig::default() };
        let (n, tried, reported) = (candidates.len(), TRIED.len(), REPORTED.len());
        monitor.say(&format!("{n} latents are tried on {tried} prompts; the best one is shown on {reported} others"));
        let baseline = self.baseline(&TRIED, true, &config, monitor)?;
        let Some(best) = self.best_trial(&baseline, &candidates, monitor)? else { return Ok(None) };
        let baseline = self.baseline(&REPORTED, true, &config, monitor)?;
        self.trial(&baseline, best.latent, best.value, monitor).map(Some)
    }
}
