//! [`found_at`]: finds the SAEs in a folder by the names of its files, before any file is opened.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::format::{ANY_PT, SaeFormat};
use crate::{Error, Result};

/// The formats whose files all exist, if `path` is one of these files or their folder.
pub(super) fn found_at(path: &Path) -> Vec<SaeFormat> {
    let name = path.file_name().unwrap_or_default();
    let dir = folder_of(path);
    let is_there = |file: &&str| match *file {
        // A model's folder may contain such a file too.
        ANY_PT => only_pt(path).is_ok() && (path.is_file() || !dir.join("config.json").is_file()),
        file => dir.join(file).is_file(),
    };
    let is_named = |file: &&str| match *file {
        ANY_PT => is_pt(path),
        file => Path::new(file).file_name() == Some(name),
    };
    let is_meant = |format: &SaeFormat| !path.is_file() || format.files().iter().any(is_named);
    let mut found: Vec<_> = SaeFormat::ALL.into_iter().filter(is_meant).collect();
    found.retain(|format| format.files().iter().all(is_there));
    // Any tool may have saved a .pt file beside an SAE's files.
    if found.len() > 1 {
        found.retain(|format| *format != SaeFormat::OpenAi);
    }
    found
}

/// The folder of an SAE's files, given the folder itself or one of the files.
pub(crate) fn folder_of(path: &Path) -> PathBuf {
    if !path.is_file() {
        return path.to_path_buf();
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    // Llama Scope's weights are in a subfolder.
    let is_deeper = path.file_name() == Path::new(SaeFormat::LlamaScope.weights_file()).file_name();
    if is_deeper { folder.join("..") } else { folder.to_path_buf() }
}

/// The file itself, or the only .pt file of a folder.
pub(super) fn only_pt(path: &Path) -> Result<PathBuf> {
    let found = if path.is_file() { vec![path.to_path_buf()] } else { entries(path)? };
    match &found.into_iter().filter(|path| is_pt(path)).collect::<Vec<_>>()[..] {
        [one] => Ok(one.clone()),
        found => {
            Err(Error::malformed(path, "one .pt file", format!("{} of them", found.len()), "Give the path of the file"))
        }
    }
}

/// True if a file may be one of OpenAI's, which can have any name except the one that dictionary_learning uses.
pub(super) fn is_pt(path: &Path) -> bool {
    let is_pt = path.extension().is_some_and(|extension| extension == "pt");
    is_pt && path.is_file() && path.file_name() != Some(SaeFormat::DictionaryLearning.weights_file().as_ref())
}

pub(super) fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    list.map(|entry| Ok(entry.map_err(Error::io("list", dir))?.path())).collect()
}
