//! [`sources`]: turns the paths of a command into named sources, each a list of files in a fixed order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::CorpusSource;
use crate::{
    Error, Location, Result,
    source::{HubDataset, HubFile, HubSettings},
};

/// Standard input as a path: one text, or one document per line.
const STDIN: &str = "-";
const STDIN_LINES: &str = "jsonl:-";

/// Its name for errors.
const STDIN_NAME: &str = "standard input";

/// Format of a file, from its extension without that of its compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum FileKind {
    /// The whole file is a document.
    Text,
    /// Each line is a JSON object with a document in one field.
    JsonLines,
    /// Each row has a document in one column.
    Parquet,
}

impl FileKind {
    /// `lines.jsonl.gz` -> [`Self::JsonLines`].
    fn of(name: &str) -> Self {
        match ending(name).as_str() {
            "jsonl" | "ndjson" => Self::JsonLines,
            "parquet" => Self::Parquet,
            _ => Self::Text,
        }
    }
}

/// Endings of packed files.
const PACKED: [&str; 5] = [".gz", ".zst", ".zstd", ".bz2", ".xz"];

/// `Lines.JSONL.gz` -> `jsonl`.
fn ending(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let plain = PACKED.iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    plain.rsplit_once('.').map(|(_, ending)| ending.to_owned()).unwrap_or_default()
}

/// True if the name of the file says of what kind it is; `data.gz` does not.
pub(super) fn has_ending(path: &str) -> bool {
    path == STDIN_NAME || !ending(path.rsplit('/').next().unwrap_or_default()).is_empty()
}

/// The hint for a file that holds texts in a format that is not supported. Read as plain text, its braces or commas
/// would be harvested too.
fn in_another_form(name: &str) -> Option<&'static str> {
    match ending(name).as_str() {
        "json" => Some(
            "Rename it to .jsonl if each line is a JSON object with a document, convert it to such lines, or rename it \
             to .txt to harvest its characters as they are",
        ),
        "csv" | "tsv" => {
            Some("Write its rows as .jsonl or .parquet, or rename it to .txt to harvest its characters as they are")
        }
        _ => None,
    }
}

/// Source of a file's bytes.
#[derive(Debug, Clone)]
pub(super) enum Origin {
    At(Location),
    OnHub(HubFile),
    Stdin,
}

/// A file that has not been read yet.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    pub(super) origin: Origin,
    /// Path within the source, with `/`; empty for a file that the user named.
    pub(super) relative: String,
    pub(super) kind: FileKind,
}

impl FoundFile {
    fn at(location: Location, relative: String) -> Self {
        let kind = FileKind::of(&location.file_name());
        Self { origin: Origin::At(location), relative, kind }
    }

    /// Refuses a compressed parquet file: parquet is read from its end, so it would have to be decompressed first.
    pub(super) fn check_not_packed(&self) -> Result<()> {
        let Origin::At(location) = &self.origin else { return Ok(()) };
        if location.file_name().to_ascii_lowercase().ends_with(".parquet") {
            return Ok(());
        }
        let hint = "Unpack it: the content of a parquet file is already compressed";
        Err(Error::malformed(self.name(), "an uncompressed .parquet file", "a compressed one", hint))
    }

    /// A stamp that changes when the file does. Standard input and pipes have no stamp: they always count as changed.
    pub(super) fn stamp(&self) -> Result<String> {
        match &self.origin {
            Origin::At(location) if location.is_pipe() => Ok(String::new()),
            Origin::At(location) => location.stamp(),
            Origin::OnHub(file) => Ok(file.hash.clone()),
            Origin::Stdin => Ok(String::new()),
        }
    }

    /// The file as a source.
    pub(super) fn as_source(&self) -> FoundSource {
        let name = match &self.origin {
            Origin::At(location) => stem(&location.file_name()),
            Origin::OnHub(_) | Origin::Stdin => self.within(),
        };
        let (path, files) = (self.name(), vec![self.clone()]);
        FoundSource { name, path, is_folder: false, is_split: false, files, skipped: 0, named: None }
    }

    /// Path within its source: for a source that is a file, the file's name.
    pub(super) fn within(&self) -> String {
        match &self.origin {
            Origin::At(location) if self.relative.is_empty() => location.file_name(),
            Origin::Stdin => self.name(),
            _ => self.relative.clone(),
        }
    }

    /// Name for errors.
    pub(super) fn name(&self) -> String {
        match &self.origin {
            Origin::At(location) => location.to_string(),
            Origin::OnHub(file) => file.url().to_string(),
            Origin::Stdin => STDIN_NAME.into(),
        }
    }
}

/// A source whose files have not been read yet.
#[derive(Debug)]
pub(super) struct FoundSource {
    pub(super) name: String,
    pub(super) path: String,
    /// A named file that is not text is refused; in a folder, such a file is left out and counted.
    pub(super) is_folder: bool,
    /// True if each file becomes a source of its own.
    pub(super) is_split: bool,
    pub(super) files: Vec<FoundFile>,
    /// Folder entries already left out: hidden files, unsupported formats, links to folders and broken links.
    pub(super) skipped: u64,
    /// For a dataset on the Hub: its address as given by the user; `path` has the commit.
    pub(super) named: Option<String>,
}

/// Most text files side by side that are a source each; more are one source together. Every manifest and every latent has
/// a number for each source.
const MOST_FILE_SOURCES: usize = 1000;

/// The sources at `paths`. A file gives one source. A folder gives one source for each file, and one for each subfolder. Datasets come from the Hub that `hub` describes, or from the
/// environment's Hub. A dataset that `earlier` lists under the same address is read at the same commit.
pub(super) fn sources(
    paths: &[PathBuf],
    hub: Option<&HubSettings>,
    earlier: &[CorpusSource],
) -> Result<Vec<FoundSource>> {
    let mut sources = vec![];
    for path in paths {
        let stdin = [(STDIN, FileKind::Text), (STDIN_LINES, FileKind::JsonLines)];
        if let Some((_, kind)) = stdin.into_iter().find(|(name, _)| path.as_os_str() == *name) {
            if sources.iter().any(|source: &FoundSource| source.path == STDIN) {
                let expected =
                    format!("standard input (`{STDIN}` or `{STDIN_LINES}`) only once: it cannot be read again");
                return Err(Error::invalid("corpus", expected, "it twice"));
            }
            sources.push(stdin_source(kind));
            continue;
        }
        if let Some(text) = path.to_str().filter(|text| HubDataset::is_named(text)) {
            let before = earlier.iter().find(|source| source.named.as_deref() == Some(text));
            let commit = before.and_then(|source| HubDataset::commit_of(&source.path));
            if let Some(commit) = &commit {
                tracing::info!("{text} is read at commit {commit}, as before");
            }
            let dataset = match hub {
                Some(hub) => HubDataset::open(text, commit.as_deref(), hub)?,
                None => HubDataset::open(text, commit.as_deref(), &HubSettings::from_env()?)?,
            };
            sources.push(hub_source(text, dataset));
            continue;
        }
        let location = Location::named(path)?;
        if location.is_folder()? {
            sources.extend(folder_sources(&location)?)
        } else {
            sources.push(named_file(&location)?)
        }
    }
    Ok(sources)
}

fn stdin_source(kind: FileKind) -> FoundSource {
    let file = FoundFile { origin: Origin::Stdin, relative: String::new(), kind };
    let (name, path) = ("stdin".into(), STDIN.into());
    FoundSource { name, path, is_folder: false, is_split: false, files: vec![file], skipped: 0, named: None }
}

fn hub_source(named: &str, dataset: HubDataset) -> FoundSource {
    let file =
        |file: HubFile| FoundFile { relative: file.path.clone(), origin: Origin::OnHub(file), kind: FileKind::Parquet };
    let files = dataset.files.into_iter().map(file).collect();
    let (name, path, named) = (dataset.name, dataset.pinned, Some(named.to_owned()));
    FoundSource { name, path, is_folder: true, is_split: false, files, skipped: 0, named }
}

/// The name of a file without its extensions: `lines.jsonl.gz` -> `lines`.
fn stem(name: &str) -> String {
    let plain = PACKED.iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(name);
    Path::new(plain).file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The source for a file that the user named.
fn named_file(location: &Location) -> Result<FoundSource> {
    let name = location.file_name();
    match in_another_form(&name) {
        None => Ok(file_source(location)),
        Some(hint) => {
            let expected = "a text, .jsonl or .parquet file";
            Err(Error::malformed(location.to_string(), expected, format!("a .{} file", ending(&name)), hint))
        }
    }
}

fn file_source(location: &Location) -> FoundSource {
    FoundFile::at(location.clone(), String::new()).as_source()
}

fn folder_sources(folder: &Location) -> Result<Vec<FoundSource>> {
    let mut loose = empty_folder_source(folder);
    let mut others = vec![];
    for entry in entries(folder)? {
        match entry {
            Entry::Skipped => loose.skipped += 1,
            Entry::Folder(location, name) => {
                let mut source = empty_folder_source(&location);
                source.name = name;
                collect(&location, "", &mut source)?;
                others.push(source);
            }
            Entry::File(file, name) if FileKind::of(&name) != FileKind::Text => others.push(file_source(&file)),
            Entry::File(file, name) => loose.files.push(FoundFile::at(file, name)),
        }
    }
    loose.is_split = loose.files.len() <= MOST_FILE_SOURCES;
    let mut sources = if loose.files.is_empty() && loose.skipped == 0 { vec![] } else { vec![loose] };
    sources.extend(others);
    Ok(sources)
}

fn empty_folder_source(folder: &Location) -> FoundSource {
    // `.` and `..` have no file name of their own.
    let resolved = folder.local().and_then(|path| fs::canonicalize(path).ok()).map_or(folder.clone(), Location::from);
    let (name, path) = (resolved.file_name(), folder.to_string());
    FoundSource { name, path, is_folder: true, is_split: false, files: vec![], skipped: 0, named: None }
}

/// Adds all files below `folder`: first its own, then those of its subfolders, each sorted by name.
fn collect(folder: &Location, before: &str, source: &mut FoundSource) -> Result<()> {
    let mut subfolders = vec![];
    for entry in entries(folder)? {
        match entry {
            Entry::Skipped => source.skipped += 1,
            Entry::Folder(location, name) => subfolders.push((location, format!("{before}{name}/"))),
            Entry::File(file, name) => source.files.push(FoundFile::at(file, format!("{before}{name}"))),
        }
    }
    subfolders.iter().try_for_each(|(location, before)| collect(location, before, source))
}

/// An entry of a folder, with its name.
enum Entry {
    File(Location, String),
    Folder(Location, String),
    Skipped,
}

fn entries(folder: &Location) -> Result<Vec<Entry>> {
    folder.list()?.into_iter().map(entry).collect()
}

fn entry(found: crate::store::Entry) -> Result<Entry> {
    if let Some(why) = why_skipped(&found)? {
        tracing::warn!("left out of the corpus: {}, because {why}", found.location);
        return Ok(Entry::Skipped);
    }
    let (location, name) = (found.location, found.name);
    Ok(if found.is_folder { Entry::Folder(location, name) } else { Entry::File(location, name) })
}

/// The reason why an entry of a folder is left out; `None` if it is kept.
fn why_skipped(found: &crate::store::Entry) -> Result<Option<String>> {
    if found.name.starts_with('.') {
        return Ok(Some("its name starts with a dot".into()));
    }
    if let Some(hint) = in_another_form(&found.name).filter(|_| !found.is_folder) {
        return Ok(Some(format!("it is a .{} file. {hint}", ending(&found.name))));
    }
    let Some(path) = found.location.local() else { return Ok(None) };
    if !fs::symlink_metadata(path).map_err(Error::io("read", path))?.is_symlink() {
        return Ok(None);
    }
    if found.is_folder {
        return Ok(Some("it is a link to a folder".into())); // which could form a cycle
    }
    Ok(fs::metadata(path).err().map(|error| format!("it is a broken link ({error})")))
}
