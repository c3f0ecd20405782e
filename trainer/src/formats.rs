//! [`SaeFormat`]: how SAEs are written to disk by the tools of the field, a file each, and how the format of a folder
//! is found out: from the names of the files in it, before any is opened.
//!
//! Tensors and shapes are exact: one that a reader does not know is refused, since a silently dropped tensor is how
//! SAEs come out wrong in this field. Of the configs beside them, what shapes the computation is checked; what records
//! the training is passed over.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use self::no_sae::no_sae;
use crate::{Error, Result, sae::Sae};

mod dictionary_learning;
mod fits;
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
mod sparsify;
mod torch_file;
mod transpose;
mod zip_file;

/// A way of writing SAEs to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaeFormat {
    /// `saelens`: SAELens 6, and ours; older folders are read too.
    SaeLens,
    /// `sparsify`: EleutherAI's sparsify.
    Sparsify,
    /// `dictionary-learning`: the dictionary_learning package.
    DictionaryLearning,
    /// `gemma-scope`: Gemma Scope, of Gemma 2.
    GemmaScope,
    /// `gemma-scope-2`: Gemma Scope 2, of Gemma 3.
    GemmaScope2,
    /// `openai`: OpenAI's sparse_autoencoder.
    OpenAi,
    /// `llamascopium`: OpenMOSS' Language-Model-SAEs.
    Llamascopium,
    /// `llama-scope`: the folders of Llama Scope, which the same tool wrote before; read only.
    LlamaScope,
}

/// A format's files and functions.
struct Layout {
    format: SaeFormat,
    name: &'static str,
    /// The files by which a folder is recognised; all of them must be there. `*.pt` stands for one file of that
    /// extension.
    files: &'static [&'static str],
    read: fn(&Path) -> Result<Sae>,
    write: fn(&Sae, &Path) -> Result<()>,
}

/// Every format, the surer signs first.
const LAYOUTS: [Layout; 8] = [
    Layout {
        format: SaeFormat::SaeLens,
        name: "saelens",
        files: &["cfg.json", "sae_weights.safetensors"],
        read: saelens::load,
        write: saelens::save,
    },
    Layout {
        format: SaeFormat::Sparsify,
        name: "sparsify",
        files: &["cfg.json", "sae.safetensors"],
        read: sparsify::load,
        write: sparsify::save,
    },
    Layout {
        format: SaeFormat::DictionaryLearning,
        name: "dictionary-learning",
        files: &["config.json", "ae.pt"],
        read: dictionary_learning::load,
        write: dictionary_learning::save,
    },
    Layout {
        format: SaeFormat::Llamascopium,
        name: "llamascopium",
        files: &["config.json", "sae_weights.safetensors"],
        read: llamascopium::load,
        write: llamascopium::save,
    },
    Layout {
        format: SaeFormat::LlamaScope,
        name: "llama-scope",
        files: &["hyperparams.json", "checkpoints/final.safetensors"],
        read: llama_scope::load,
        write: llama_scope::save,
    },
    Layout {
        format: SaeFormat::GemmaScope2,
        name: "gemma-scope-2",
        files: &["config.json", "params.safetensors"],
        read: gemma_scope_2::load,
        write: gemma_scope_2::save,
    },
    Layout {
        format: SaeFormat::GemmaScope,
        name: "gemma-scope",
        files: &["params.npz"],
        read: gemma_scope::load,
        write: gemma_scope::save,
    },
    Layout { format: SaeFormat::OpenAi, name: "openai", files: &["*.pt"], read: openai::load, write: openai::save },
];

impl SaeFormat {
    /// Every format.
    pub const ALL: [Self; 8] = [
        Self::SaeLens,
        Self::Sparsify,
        Self::DictionaryLearning,
        Self::GemmaScope,
        Self::GemmaScope2,
        Self::OpenAi,
        Self::Llamascopium,
        Self::LlamaScope,
    ];

    /// The formats that are written as well as read, as `--to` has them.
    pub fn written() -> String {
        let written = Self::ALL.into_iter().filter(|format| *format != Self::LlamaScope);
        written.map(|format| format.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The format of an SAE: of a folder by the files in it, of a file by its name.
    ///
    /// # Errors
    /// When it is none that is known: says what was looked for.
    pub fn of(path: &Path) -> Result<Self> {
        Ok(detect(path)?.format)
    }

    fn layout(self) -> &'static Layout {
        LAYOUTS.iter().find(|layout| layout.format == self).expect("every format has a layout")
    }
}

impl fmt::Display for SaeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.layout().name)
    }
}

impl FromStr for SaeFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = LAYOUTS.iter().find(|layout| layout.name == text).map(|layout| layout.format);
        found.ok_or_else(|| Error::invalid("format", Self::written(), format!("`{text}`")))
    }
}

impl Sae {
    /// Writes `cfg.json` and `sae_weights.safetensors` into `dir`, each of them whole or not at all.
    ///
    /// # Errors
    /// When a tensor has the wrong length, or a file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_as(SaeFormat::SaeLens, dir)
    }

    /// Writes the files of `format` into the folder `dir`, which exists.
    ///
    /// # Errors
    /// When the format has no place for what this SAE is, a tensor has the wrong length, or a file cannot be written.
    pub fn save_as(&self, format: SaeFormat, dir: &Path) -> Result<()> {
        self.check(dir, dir)?;
        (format.layout().write)(self, dir)
    }
}

/// Reads an SAE of any format.
pub(crate) fn read(path: &Path) -> Result<Sae> {
    let sae = (detect(path)?.read)(path)?;
    // Here, after every reader has folded what it folds.
    let files = files_of(path)?;
    let [first, last] = [files.first(), files.last()].map(|file| file.expect("every layout has files"));
    sae.check(first, last)?;
    Ok(sae)
}

/// The files that make an SAE, its weights last: what a checksum of it must cover.
///
/// # Errors
/// When its format is none that is known.
pub fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let layout = detect(path)?;
    let dir = folder_of(path);
    layout.files.iter().map(|name| if *name == "*.pt" { only_pt(path) } else { Ok(dir.join(name)) }).collect()
}

fn detect(path: &Path) -> Result<&'static Layout> {
    match &found_at(path)[..] {
        [] => Err(no_sae(path)),
        // Any tool may have left a .pt file.
        [one] | [one, Layout { format: SaeFormat::OpenAi, .. }] => Ok(*one),
        [first, second, ..] => Err(two_formats(path, first, second)),
    }
}

/// The formats of which all files are there, and `path` is one of them or their folder.
fn found_at(path: &Path) -> Vec<&'static Layout> {
    let name = path.file_name().unwrap_or_default();
    let dir = folder_of(path);
    let is_there = |file: &&str| match *file {
        // A model's folder may hold one too.
        "*.pt" => only_pt(path).is_ok() && (path.is_file() || !dir.join("config.json").is_file()),
        file => dir.join(file).is_file(),
    };
    let named = |layout: &&Layout| {
        let is_named = |file: &&str| match *file {
            "*.pt" => is_pt(path),
            file => Path::new(file).file_name() == Some(name),
        };
        !path.is_file() || layout.files.iter().any(is_named)
    };
    LAYOUTS.iter().filter(named).filter(|layout| layout.files.iter().all(is_there)).collect()
}

/// A folder in which two tools, or one after the other, left an SAE.
fn two_formats(path: &Path, first: &Layout, second: &Layout) -> Error {
    let own = |layout: &Layout, other: &Layout| {
        let own = layout.files.iter().find(|name| !other.files.contains(name)).unwrap_or(&layout.files[0]);
        format!("{own} ({})", layout.name)
    };
    let (own_of_first, own_of_second) = (own(first, second), own(second, first));
    let found = format!("those of two: {own_of_first} and {own_of_second}");
    let hint = "Name the one of these files that is meant, or move the other away";
    Error::malformed(folder_of(path), "the files of one SAE", found, hint)
}

/// The folder in which an SAE's files are, for the folder itself or one of them.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    if !path.is_file() {
        return path.to_path_buf();
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    // Llama Scope's weights are a folder further down.
    let is_deeper = path.file_name() == Path::new(llama_scope::WEIGHTS_FILE).file_name();
    if is_deeper { folder.join("..") } else { folder.to_path_buf() }
}

/// The file itself, or the one .pt file of a folder.
fn only_pt(path: &Path) -> Result<PathBuf> {
    let found = if path.is_file() { vec![path.to_path_buf()] } else { entries(path)? };
    match &found.into_iter().filter(|path| is_pt(path)).collect::<Vec<_>>()[..] {
        [one] => Ok(one.clone()),
        found => Err(Error::malformed(path, "one .pt file", format!("{} of them", found.len()), "Name the file")),
    }
}

/// Whether a file may be one of OpenAI's, which have any name but the one that dictionary_learning gives.
fn is_pt(path: &Path) -> bool {
    let is_pt = path.extension().is_some_and(|extension| extension == "pt");
    is_pt && path.is_file() && path.file_name() != Some(dictionary_learning::WEIGHTS_FILE.as_ref())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    list.map(|entry| Ok(entry.map_err(Error::io("list", dir))?.path())).collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_one_layout_and_its_name_is_read_back() {
        for format in SaeFormat::ALL {
            assert_eq!(format.to_string().parse::<SaeFormat>().unwrap(), format);
            assert_eq!(LAYOUTS.iter().filter(|layout| layout.format == format).count(), 1);
        }
        assert!("pickle".parse::<SaeFormat>().unwrap_err().to_string().contains("llamascopium"));
    }

    #[test]
    fn a_folder_is_known_by_its_files_and_what_was_looked_for_is_said() {
        for layout in &LAYOUTS {
            let dir = tempfile::tempdir().unwrap();
            for file in layout.files {
                let path = dir.path().join(file.replace('*', "7"));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, "").unwrap();
                // A file is not enough where two are needed.
                let known = SaeFormat::of(dir.path()).ok();
                assert_eq!(known == Some(layout.format), *file == *layout.files.last().unwrap(), "{file}");
            }
        }
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("model.bin"), "").unwrap();
        let message = SaeFormat::of(dir.path()).unwrap_err().to_string();
        for part in ["cfg.json and sae.safetensors (sparsify)", "params.npz (gemma-scope)", "found model.bin"] {
            assert!(message.contains(part), "{message}");
        }
        // Of two formats, one is named by a file of its own.
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
