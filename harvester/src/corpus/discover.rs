//! [`sources`]: the paths of a command become named sources, each a list of files in a fixed order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// What a file's bytes mean, told by its extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileKind {
    /// The whole file is a document.
    Text,
    /// Each line is a JSON object with a document in one field.
    JsonLines,
}

impl FileKind {
    fn of(path: &Path) -> Self {
        let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
        if extension.is_some_and(|extension| extension == "jsonl") { Self::JsonLines } else { Self::Text }
    }
}

/// A source whose files have not been read yet.
#[derive(Debug)]
pub(super) struct FoundSource {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// A file that was named is refused when it is no text; one met in a folder is left out and counted.
    pub(super) is_folder: bool,
    /// Path, path relative to the source with `/`, kind.
    pub(super) files: Vec<(PathBuf, String, FileKind)>,
    /// Folder entries left out already: hidden files and links to folders.
    pub(super) skipped: u64,
}

/// The sources at `paths`: one for a file; for a folder one for the loose files in it, then one for each subfolder and
/// each `.jsonl` file.
pub(super) fn sources(paths: &[PathBuf]) -> Result<Vec<FoundSource>> {
    let mut sources = vec![];
    for path in paths {
        let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
        if metadata.is_dir() { sources.extend(folder_sources(path)?) } else { sources.push(file_source(path)) }
    }
    make_names_distinct(&mut sources);
    Ok(sources)
}

fn file_source(path: &Path) -> FoundSource {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let files = vec![(path.to_path_buf(), String::new(), FileKind::of(path))];
    FoundSource { name, path: path.to_path_buf(), is_folder: false, files, skipped: 0 }
}

fn folder_sources(path: &Path) -> Result<Vec<FoundSource>> {
    let mut loose = empty_folder_source(path);
    let mut others = vec![];
    for entry in entries(path)? {
        match entry {
            Entry::Skipped => loose.skipped += 1,
            Entry::Folder(path) => {
                let mut source = empty_folder_source(&path);
                collect(&path, &path, &mut source)?;
                others.push(source);
            }
            Entry::File(path) if FileKind::of(&path) == FileKind::JsonLines => others.push(file_source(&path)),
            Entry::File(file) => push_file(&mut loose, path, file),
        }
    }
    let mut sources = if loose.files.is_empty() && loose.skipped == 0 { vec![] } else { vec![loose] };
    sources.extend(others);
    Ok(sources)
}

fn empty_folder_source(path: &Path) -> FoundSource {
    // `.` and `..` have no file name of their own.
    let resolved = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let name = resolved.file_name().unwrap_or_default().to_string_lossy().into_owned();
    FoundSource { name, path: path.to_path_buf(), is_folder: true, files: vec![], skipped: 0 }
}

fn push_file(source: &mut FoundSource, root: &Path, file: PathBuf) {
    let relative = file.strip_prefix(root).unwrap_or(&file);
    let parts: Vec<_> = relative.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let relative = parts.join("/");
    let kind = FileKind::of(&file);
    source.files.push((file, relative, kind));
}

/// Adds everything below `folder`: its files first, then its subfolders', each sorted by name.
fn collect(root: &Path, folder: &Path, source: &mut FoundSource) -> Result<()> {
    let mut subfolders = vec![];
    for entry in entries(folder)? {
        match entry {
            Entry::Skipped => source.skipped += 1,
            Entry::Folder(path) => subfolders.push(path),
            Entry::File(path) => push_file(source, root, path),
        }
    }
    subfolders.iter().try_for_each(|path| collect(root, path, source))
}

enum Entry {
    File(PathBuf),
    Folder(PathBuf),
    Skipped,
}

fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let read = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let paths: std::io::Result<Vec<PathBuf>> = read.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.map_err(Error::io("list", folder))?;
    paths.sort();
    paths.into_iter().map(entry).collect()
}

fn entry(path: PathBuf) -> Result<Entry> {
    let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
    let link = fs::symlink_metadata(&path).map_err(Error::io("read", &path))?.is_symlink();
    let folder = fs::metadata(&path).map_err(Error::io("read", &path))?.is_dir();
    if hidden || (link && folder) {
        // A link to a folder could lead back up, for ever.
        let why = if hidden { "its name starts with a dot" } else { "it is a link to a folder" };
        tracing::warn!("left out of the corpus: {}, because {why}", path.display());
        return Ok(Entry::Skipped);
    }
    Ok(if folder { Entry::Folder(path) } else { Entry::File(path) })
}

/// Where two sources share a name, both take their whole path instead.
fn make_names_distinct(sources: &mut [FoundSource]) {
    let names: Vec<String> = sources.iter().map(|source| source.name.clone()).collect();
    for source in sources {
        if names.iter().filter(|name| **name == source.name).count() > 1 {
            source.name = source.path.display().to_string();
        }
    }
}
