//! SAEs on disk: readers and writers for the formats of other tools, one file each, and the detection of a folder's
//! format.
//!
//! Tensors and shapes must match exactly. An unknown tensor is refused, because silently dropped tensors are a common
//! cause of wrong SAEs. In the configs, keys that change the computation are checked, and records of the training are
//! ignored.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

pub(crate) use self::find::folder_of;
pub use self::format::SaeFormat;
use self::{
    find::{found_at, only_pt},
    format::ANY_PT,
    no_sae::no_sae,
};
use crate::{
    Error, Result,
    sae::{Flaw, Part, Sae, SaeConfig, SaeWeights},
    tensors::SAE_HINT,
};

mod dictionary_learning;
mod find;
mod fits;
mod format;
mod gemma_scope;
mod gemma_scope_2;
mod json;
mod llama_scope;
mod llamascopium;
mod named_tensors;
mod no_sae;
mod npz;
mod openai;
mod pickle;
pub(crate) mod saelens;
mod saelens_cfg;
mod saelens_legacy;
mod settings;
mod sparsify;
mod torch_file;
mod transpose;
mod zip_file;

/// Reads the parts of an SAE; [`read`] checks that they fit together.
type Reader = fn(&Path) -> Result<(SaeConfig, SaeWeights)>;
/// Writes an SAE into a folder that exists, or refuses it before anything is written.
type Writer = fn(&Sae, &Path) -> Result<()>;

impl SaeFormat {
    /// The format of an SAE, found from the names of the files in a folder, or from a file's name.
    ///
    /// # Errors
    /// When no known format matches; the message lists the expected files.
    pub fn of(path: &Path) -> Result<Self> {
        match found_at(path)[..] {
            [] => Err(no_sae(path)),
            [one] => Ok(one),
            [first, second, ..] => Err(two_formats(path, first, second)),
        }
    }

    /// The files of an SAE, its weights last. A checksum of the SAE must cover all of them.
    ///
    /// # Errors
    /// When no known format matches.
    pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
        let files = Self::of(path)?.files().iter();
        let dir = folder_of(path);
        files.map(|name| if *name == ANY_PT { only_pt(path) } else { Ok(dir.join(name)) }).collect()
    }

    fn functions(self) -> (Reader, Writer) {
        match self {
            Self::SaeLens => (saelens::load, saelens::save),
            Self::Sparsify => (sparsify::load, sparsify::save),
            Self::DictionaryLearning => (dictionary_learning::load, dictionary_learning::save),
            Self::GemmaScope => (gemma_scope::load, gemma_scope::save),
            Self::GemmaScope2 => (gemma_scope_2::load, gemma_scope_2::save),
            Self::OpenAi => (openai::load, openai::save),
            Self::Llamascopium => (llamascopium::load, llamascopium::save),
            Self::LlamaScope => (llama_scope::load, llama_scope::save),
        }
    }
}

impl Sae {
    /// Writes `cfg.json` and `sae_weights.safetensors` into `dir`. Each file is written completely or not at all.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_as(SaeFormat::SaeLens, dir)
    }

    /// Writes the files of `format` into the folder `dir`, which exists.
    ///
    /// # Errors
    /// When the format cannot express this SAE, or a file cannot be written.
    pub fn save_as(&self, format: SaeFormat, dir: &Path) -> Result<()> {
        let (_, write) = format.functions();
        write(self, dir)
    }
}

/// Reads an SAE of any format. Errors about parts that do not fit together name their file.
pub(crate) fn read(path: &Path) -> Result<Sae> {
    let (read, _) = SaeFormat::of(path)?.functions();
    let (config, weights) = read(path)?;
    config.notes.iter().for_each(|note| warn_once(format!("{}: {note}", path.display())));
    let files = SaeFormat::files_of(path)?;
    Sae::checked(config, weights).map_err(|Flaw { part, expected, found }| {
        let file = if part == Part::Config { files.first() } else { files.last() };
        Error::malformed(file.expect("every format has files"), expected, found, SAE_HINT)
    })
}

/// Warns, but only once: some commands read an SAE several times.
fn warn_once(text: String) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
        tracing::warn!("{text}");
    }
}

/// The error for a folder with the SAEs of two tools.
fn two_formats(path: &Path, first: SaeFormat, second: SaeFormat) -> Error {
    let own = |format: SaeFormat, other: SaeFormat| {
        let own = format.files().iter().find(|name| !other.files().contains(name)).unwrap_or(&format.files()[0]);
        format!("{own} ({format})")
    };
    let (own_of_first, own_of_second) = (own(first, second), own(second, first));
    let found = format!("those of two: {own_of_first} and {own_of_second}");
    let hint = "Give the path of one of these files, or move the other away";
    Error::malformed(folder_of(path), "the files of one SAE", found, hint)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_formats_name_is_its_own_and_is_read_back() {
        for format in SaeFormat::ALL {
            assert_eq!(format.to_string().parse::<SaeFormat>().unwrap(), format);
            assert_eq!(SaeFormat::ALL.iter().filter(|other| other.name() == format.name()).count(), 1);
        }
        assert!("pickle".parse::<SaeFormat>().unwrap_err().to_string().contains("llamascopium"));
    }

    #[test]
    fn a_folder_is_known_by_its_files_and_what_was_looked_for_is_said() {
        for format in SaeFormat::ALL {
            let dir = tempfile::tempdir().unwrap();
            for file in format.files() {
                let path = dir.path().join(file.replace('*', "7"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
                // One file is not enough for a format with two.
                let known = SaeFormat::of(dir.path()).ok();
                assert_eq!(known == Some(format), *file == *format.files().last().unwrap(), "{file}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.bin"), "").unwrap();
        let message = SaeFormat::of(dir.path()).unwrap_err().to_string();
        for part in ["cfg.json and sae.safetensors (sparsify)", "params.npz (gemma-scope)", "found model.bin"] {
            assert!(message.contains(part), "{message}");
        }
        // If a folder has two formats, the path of a file chooses one.
        for name in ["cfg.json", "sae_weights.safetensors", "sae.safetensors", "trainer_state.pt"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let message = SaeFormat::of(dir.path()).unwrap_err().to_string();
        assert!(message.contains("sae_weights.safetensors (saelens) and sae.safetensors (sparsify)"), "{message}");
        assert!(SaeFormat::of(&dir.path().join("cfg.json")).is_err());
        let of = |name: &str| SaeFormat::of(&dir.path().join(name)).unwrap();
        assert_eq!((of("sae_weights.safetensors"), of("sae.safetensors")), (SaeFormat::SaeLens, SaeFormat::Sparsify));
        fs::remove_file(dir.path().join("sae.safetensors")).unwrap();
        assert_eq!(of(""), SaeFormat::SaeLens);
        assert!(SaeFormat::of(&dir.path().join("none")).unwrap_err().to_string().contains("no such file or folder"));
    }
}
