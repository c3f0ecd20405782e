//! [`TrainResults`]: how a run ended, and the checksums of the files that it wrote: by them an SAE is verified, and what
//! was removed of one is put back.

use std::{collections::BTreeMap, fs, path::Path};

use harvester::sha256_file;
use serde::{Deserialize, Serialize};

use crate::{Error, Result, formats::saelens, sae::metrics::Reconstruction};

/// Folder in an SAE's own in which files that were removed are made again.
const AGAIN_FOLDER: &str = "made-again";

/// How a training run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainResults {
    /// SHA-256 of `sae_weights.safetensors`.
    pub weights_sha256: String,
    /// SHA-256 of `cfg.json` and `sparsity.safetensors`, by name.
    pub files_sha256: BTreeMap<String, String>,
    /// Steps done.
    pub steps: u64,
    /// Tokens seen, each as often as it was.
    pub tokens: u64,
    /// The last batch's fraction of variance unexplained.
    pub last_fvu: f64,
    /// Latents dead at the end: silent for `dead_after_tokens`.
    pub dead: usize,
    /// The saved SAE on the first held-out rows: whole row groups until they have 131,072 tokens. Absent where nothing
    /// is held out, or what is held out does not vary.
    pub held_out: Option<Reconstruction>,
}

impl TrainResults {
    /// The files of the SAE in `dir`, hashed.
    pub(crate) fn hash_files(dir: &Path) -> Result<(String, BTreeMap<String, String>)> {
        let hash = |name: &str| Ok::<_, Error>((name.to_string(), sha256_file(&dir.join(name))?));
        Ok((hash(saelens::WEIGHTS_FILE)?.1, saelens::OTHER_FILES.into_iter().map(hash).collect::<Result<_>>()?))
    }

    /// Every file of the SAE, with its SHA-256.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        let others = self.files_sha256.iter().map(|(name, sha256)| (name.as_str(), sha256.as_str()));
        std::iter::once((saelens::WEIGHTS_FILE, self.weights_sha256.as_str())).chain(others)
    }

    /// Puts files that were removed from `dir` back: `write` makes all of them in another folder. Nothing is put back
    /// that is not what was recorded, and nothing that is there is written over.
    pub(crate) fn put_back(&self, dir: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let (there, removed): (Vec<_>, Vec<_>) = self.files().partition(|(name, _)| dir.join(name).is_file());
        there.iter().try_for_each(|(name, sha256)| verify_file(&dir.join(name), sha256))?;
        let again = dir.join(AGAIN_FOLDER);
        fs::create_dir_all(&again).map_err(Error::io("create", &again))?;
        write(&again)?;
        for (name, sha256) in &removed {
            let found = sha256_file(&again.join(name))?;
            if found != *sha256 {
                let hint = "Another machine, or another version of refract, computes other last digits than the one \
                            that trained it; the new file is left where it is";
                return Err(Error::malformed(again.join(name), format!("SHA-256 {sha256}"), found, hint));
            }
        }
        for (name, _) in &removed {
            fs::rename(again.join(name), dir.join(name)).map_err(Error::io("rename to", dir.join(name)))?;
        }
        fs::remove_dir_all(&again).map_err(Error::io("remove", &again))
    }

    /// Compares the files in `dir` with what was recorded. An SAE is whole without the densities of its latents.
    pub(crate) fn verify(&self, dir: &Path) -> Result<()> {
        let needed = |name: &str| name != saelens::SPARSITY_FILE || dir.join(name).is_file();
        let mut files = self.files().filter(|(name, _)| needed(name));
        files.try_for_each(|(name, sha256)| verify_file(&dir.join(name), sha256))
    }
}

fn verify_file(path: &Path, sha256: &str) -> Result<()> {
    const AGAIN: &str = "the command that made this folder writes it again from the last checkpoint";
    if !path.is_file() {
        return Err(Error::malformed(path, "the file that training wrote", "none", format!("Repeated, {AGAIN}")));
    }
    let found = sha256_file(path)?;
    if found != sha256 {
        let hint = format!("The file has changed since training ended: remove it; repeated, {AGAIN}");
        return Err(Error::malformed(path, format!("SHA-256 {sha256}"), found, hint));
    }
    Ok(())
}
