//! [`TrainResults`]: the results of a run, and the checksums of its files, with which an SAE is verified.

use std::{collections::BTreeMap, path::Path};

use harvester::{Location, sha256_file};
use serde::{Deserialize, Serialize};

use crate::{Error, Result, TrainConfig, formats::saelens, sae::metrics::Reconstruction};

/// The results of a training run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainResults {
    /// SHA-256 of `sae_weights.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of `cfg.json` and `sparsity.safetensors`, by name.
    pub files_sha256: BTreeMap<String, String>,
    /// Steps done.
    pub steps: u64,
    /// Tokens seen; a token seen in several epochs counts each time.
    pub tokens: u64,
    /// Fraction of variance unexplained of the last batch.
    pub last_fvu: f64,
    /// Latents dead at the end: not active for `dead_after_tokens`.
    pub dead: usize,
    /// Metrics of the saved SAE on the first held-out rows: whole row groups until they have 131,072 tokens. `None` if
    /// no rows are held out, or if they do not vary.
    pub held_out: Option<Reconstruction>,
}

/// Largest ratio between k and the L0 of held-out rows, in either direction, without a warning.
const FAR_FROM_K: f64 = 1.5;

impl TrainResults {
    /// As [`super::SaeManifest::doubts`].
    pub(super) fn doubts(&self, config: &TrainConfig) -> Vec<String> {
        let Some(Reconstruction { l0, fvu, .. }) = self.held_out else { return vec![] };
        if l0 < 0.5 {
            return vec!["hardly a latent is active: try a smaller `sparsity_coefficient`, or a smaller `lr`".into()];
        }
        let mut doubts = vec![];
        if fvu > 1.0 {
            doubts.push("it is worse than the mean: train on more `tokens`, or with a smaller `lr`".into());
        }
        let times = l0 / config.k as f64;
        if config.sparsity_coefficient.is_none() && !(1.0 / FAR_FROM_K..=FAR_FROM_K).contains(&times) {
            let k = config.k;
            doubts
                .push(format!("L0 is {l0:.1} where {k} was asked for: train on more `tokens`, or with a smaller `lr`"));
        }
        doubts
    }

    /// Hashes the files of the SAE in `dir`.
    pub(crate) fn hash_files(dir: &Path) -> Result<(String, BTreeMap<String, String>)> {
        let hash = |name: &str| Ok::<_, Error>((name.to_string(), sha256_file(&dir.join(name))?));
        Ok((hash(saelens::WEIGHTS_FILE)?.1, saelens::OTHER_FILES.into_iter().map(hash).collect::<Result<_>>()?))
    }

    /// Every file of the SAE, with its SHA-256.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.files_sha256.iter().map(|(name, sha256)| (name.as_str(), sha256.as_str()));
        std::iter::once((saelens::WEIGHTS_FILE, self.weights_sha256.as_str())).chain(others)
    }

    /// Compares the files in `dir` with the recorded checksums. The file of latent densities may be missing.
    pub(crate) fn verify(&self, dir: &Path) -> Result<()> {
        let needed = |name: &str| name != saelens::SPARSITY_FILE || dir.join(name).is_file();
        let mut files = self.files().filter(|(name, _)| needed(name));
        let hint = "Put back the file that training wrote, or remove the folder and train again";
        files.try_for_each(|(name, sha256)| Ok(Location::from(dir.join(name)).check_sha256(sha256, hint)?))
    }
}
