//! [`no_sae`]: the error for a path without an SAE. It looks for the closest match to an SAE there, so that the message
//! names the missing file instead of every format.

use std::path::{Path, PathBuf};

use super::{
    find::{entries, folder_of, found_at, is_pt},
    format::SaeFormat,
};
use crate::Error;

/// Largest number of names in a message.
const SHOWN: usize = 8;
/// SAEs below a folder are searched to the depth of Gemma Scope's, in so few folders that it takes only a moment.
const LEVELS: usize = 3;
const MOST_FOLDERS: usize = 500;

pub(super) fn no_sae(path: &Path) -> Error {
    let near = if path.is_file() {
        other_name(path).or_else(|| companion(path))
    } else {
        companion(path).or_else(|| several_pt(path)).or_else(|| further_down(path))
    };
    near.unwrap_or_else(|| {
        let files = |format: SaeFormat| format!("{} ({format})", format.files().join(" and "));
        let looked_for = SaeFormat::ALL.map(files);
        let hint = "Give the path of the folder that contains the SAE's files, or of the file itself";
        Error::malformed(path, format!("an SAE: {}", looked_for.join(", ")), what_is_there(path), hint)
    })
}

/// The error for a file with an unknown name; it lists the names of files with the same extension.
fn other_name(path: &Path) -> Option<Error> {
    let names = |format: SaeFormat| format.files().iter().map(move |name| (Path::new(name), format));
    let known = || SaeFormat::ALL.into_iter().flat_map(names);
    if is_pt(path) || known().any(|(name, _)| name.file_name() == path.file_name()) {
        return None;
    }
    let alike: Vec<_> = known()
        .filter(|(name, _)| name.extension() == path.extension())
        .map(|(name, format)| format!("{} ({format})", name.display()))
        .collect();
    let expected = format!("one of the names of an SAE's files: {}", alike.join(", "));
    let hint = "Rename the file, or give the path of the folder that contains the SAE's files";
    (!alike.is_empty()).then(|| Error::malformed(path, expected, "a file of another name", hint))
}

/// Weights without the config that describes their computation.
fn companion(path: &Path) -> Option<Error> {
    let dir = folder_of(path);
    let there = |name: &str| dir.join(name).is_file();
    let weights = SaeFormat::ALL.map(SaeFormat::weights_file).into_iter().find(|name| there(name))?;
    let missing: Vec<_> = SaeFormat::ALL
        .into_iter()
        .filter(|format| format.weights_file() == weights)
        .flat_map(|format| format.files().iter().map(move |name| (name, format)))
        .filter(|(name, _)| !there(name))
        .map(|(name, format)| format!("{name} ({format})"))
        .collect();
    let expected = format!("{} beside {weights}, which describes the computation of the weights", missing.join(" or "));
    let hint = "Copy it there from the folder in which the SAE was saved";
    (!missing.is_empty()).then(|| Error::malformed(&dir, expected, what_is_there(&dir), hint))
}

/// Several files that could each be one of OpenAI's SAEs.
fn several_pt(dir: &Path) -> Option<Error> {
    let files: Vec<PathBuf> = entries(dir).ok()?.into_iter().filter(|path| is_pt(path)).collect();
    let several = files.len() > 1 && !dir.join("config.json").is_file();
    several.then(|| Error::malformed(dir, "one .pt file", list(&files, dir), "Give the path of one of them"))
}

/// Subfolders with SAEs, the nearest ones first.
fn further_down(dir: &Path) -> Option<Error> {
    let (mut found, mut level, mut seen) = (vec![], vec![dir.to_path_buf()], 0);
    for _ in 0..LEVELS {
        let mut folders: Vec<PathBuf> =
            level.iter().filter_map(|dir| entries(dir).ok()).flatten().filter(|path| path.is_dir()).collect();
        folders.sort_unstable();
        folders.truncate(MOST_FOLDERS - seen);
        seen += folders.len();
        let (saes, others) = folders.into_iter().partition(|dir: &PathBuf| !found_at(dir).is_empty());
        found.extend::<Vec<PathBuf>>(saes);
        level = others;
    }
    let first = found.first()?;
    let hint = format!("Give the path of one of them, such as {}", first.display());
    Some(Error::malformed(dir, "the folder of one SAE", format!("SAEs in subfolders: {}", list(&found, dir)), hint))
}

/// A description of the content of `path`.
fn what_is_there(path: &Path) -> String {
    if !path.exists() {
        return "no such file or folder".into();
    }
    if path.is_file() {
        return "a file of another name".into();
    }
    match entries(path) {
        Ok(paths) if paths.is_empty() => "an empty folder".into(),
        Ok(paths) => list(&paths, path),
        Err(_) => "a folder that cannot be listed".into(),
    }
}

/// Some of `paths`, relative to `dir`.
fn list(paths: &[PathBuf], dir: &Path) -> String {
    let name = |path: &PathBuf| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    let mut names: Vec<String> = paths.iter().map(name).collect();
    names.sort_unstable();
    match names.len() {
        n if n > SHOWN => format!("{} and {} more", names[..SHOWN].join(", "), n - SHOWN),
        _ => names.join(", "),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fs;

    use crate::SaeFormat;

    /// The error for `path` in a folder of empty files.
    fn said(files: &[&str], path: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            fs::create_dir_all(dir.path().join(file).parent().unwrap()).unwrap();
            fs::write(dir.path().join(file), "").unwrap();
        }
        let message = SaeFormat::of(&dir.path().join(path)).unwrap_err().to_string();
        message.replace(&dir.path().display().to_string(), "DIR")
    }

    #[test]
    fn the_config_that_is_missing_is_named() {
        let message = said(&["ae.pt", "notes.txt"], "");
        assert!(message.contains("expected config.json (dictionary-learning) beside ae.pt"), "{message}");
        assert!(message.contains("found ae.pt, notes.txt"), "{message}");
        assert_eq!(said(&["ae.pt", "notes.txt"], "ae.pt"), message.replace("DIR/:", "DIR:"));
        let message = said(&["sae_weights.safetensors"], "");
        assert!(message.contains("expected cfg.json (saelens) or config.json (llamascopium) beside"), "{message}");
    }

    #[test]
    fn a_file_of_another_name_is_told_the_names_of_its_kind() {
        let message = said(&["foo.npz"], "foo.npz");
        assert!(
            message
                .contains("DIR/foo.npz: expected one of the names of an SAE's files: params.npz (gemma-scope), found")
        );
        assert!(message.contains("Rename the file, or"), "{message}");
        let message = said(&["foo.safetensors"], "foo.safetensors");
        assert!(message.contains("files: sae_weights.safetensors (saelens), sae.safetensors (sparsify)"), "{message}");
        assert!(said(&["foo.bin"], "foo.bin").contains("params.npz (gemma-scope)"));
    }

    #[test]
    fn several_torch_files_are_named() {
        let message = said(&["4.pt", "3.pt"], "");
        assert!(message.contains("expected one .pt file, found 3.pt, 4.pt. Give the path of one of them"), "{message}");
    }

    #[test]
    fn a_folder_of_saes_lists_them() {
        let files: Vec<String> =
            (0..10).flat_map(|l| ["cfg.json", "sae.safetensors"].map(|name| format!("layers.{l}/{name}"))).collect();
        let message = said(&files.iter().map(String::as_str).collect::<Vec<_>>(), "");
        assert!(message.contains("found SAEs in subfolders: layers.0, layers.1,"), "{message}");
        assert!(
            message.contains("layers.7 and 2 more. Give the path of one of them, such as DIR/layers.0"),
            "{message}"
        );
        let message = said(&["layer_3/width_16k/average_l0_5/params.npz"], "");
        assert!(message.contains("found SAEs in subfolders: layer_3/width_16k/average_l0_5."), "{message}");
    }
}
