//! [`TextGroup`]: one side of a contrast, and [`find`]: the contrast of two.

use std::path::{Path, PathBuf};

use harvester::{Corpus, CorpusOptions, HarvestConfig, LiveModel, Monitor, Packing, human};

use super::documents::{ContrastConfig, Contrasts, contrast_documents};
use crate::{
    EncodedRows, Error, FeatureIndex, IndexText, Probe, Result, Workbench, index::encode_all, listed::check_density,
};

/// Most tokens of a file or folder that are run through the model.
const MOST_TOKENS: u64 = 100_000;
/// Most tokens of one document of a file.
const DOCUMENT_TOKENS: usize = 512;

/// A group of texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextGroup {
    /// Sources of the index's corpus, by their indices in its manifest. Their documents are in its sample.
    Sources(Vec<usize>),
    /// Files and folders of texts, which the model reads.
    Files(Vec<PathBuf>),
    /// Texts as they are.
    Texts(Vec<String>),
}

impl TextGroup {
    /// The two groups that are named by the settings `positive` and `negative`.
    ///
    /// # Errors
    /// Names of one group of which some, but not all, are sources or files.
    pub fn both(positive: &[String], negative: &[String], index: &FeatureIndex) -> Result<[Self; 2]> {
        Ok([Self::named("`positive`", positive, index)?, Self::named("`negative`", negative, index)?])
    }

    /// The group that the `names` of a setting name: sources of the index if all of them are; otherwise files and
    /// folders, if all exist; otherwise texts.
    ///
    /// # Errors
    /// Names of which some, but not all, are sources or files.
    fn named(setting: &str, names: &[String], index: &FeatureIndex) -> Result<Self> {
        let sources = index.source_names();
        let place = |name: &String| sources.iter().position(|source| source == name);
        if let Some(places) = names.iter().map(place).collect() {
            return Ok(Self::Sources(places));
        }
        let is_file = |name: &&String| Path::new(name).exists();
        let n_files = names.iter().filter(is_file).count();
        if n_files == names.len() {
            return Ok(Self::Files(names.iter().map(PathBuf::from).collect()));
        }
        let unknown = || names.iter().filter(|name| place(name).is_none() && !is_file(name));
        // A word that is neither is a source or a file that was misspelled, not a text.
        let of_files = unknown().find(|name| is_path(name));
        let word = of_files.or(unknown().find(|name| !name.contains(char::is_whitespace)));
        let is_mixed = n_files > 0 || names.iter().any(|name| place(name).is_some());
        let of_index = sources.join(", ");
        let (expected, found) = match word {
            None if is_mixed => (
                "names of one kind: sources of this index, files, or texts of several words".into(),
                "some of each".into(),
            ),
            None => return Ok(Self::Texts(names.to_vec())),
            Some(name) => {
                let meant =
                    similar(name, &sources).map_or_else(String::new, |source| format!("; did you mean `{source}`?"));
                match of_files {
                    Some(_) => (
                        format!("a file that exists, or one of the sources of this index: {of_index}"),
                        format!("no file of the name `{name}`{meant}"),
                    ),
                    None => (
                        format!("one of the sources of this index: {of_index}; or a file, or a text of several words"),
                        format!("no source and no file of the name `{name}`{meant}"),
                    ),
                }
            }
        };
        Err(Error::from(harvester::Error::invalid(setting, expected, found)))
    }
}

/// True for a name that is meant as a path: one with a folder and no space in it, or with the ending of a text file.
fn is_path(name: &str) -> bool {
    const ENDINGS: [&str; 9] = ["txt", "md", "jsonl", "json", "parquet", "csv", "gz", "zst", "bz2"];
    let ending = Path::new(name).extension().and_then(|ending| ending.to_str());
    let has_folder = name.contains(std::path::is_separator) && !name.contains(char::is_whitespace);
    has_folder || ending.is_some_and(|ending| ENDINGS.contains(&ending.to_lowercase().as_str()))
}

/// The source whose name a misspelled name, or a path's file name without its ending, is closest to; `None` if more than
/// half of the letters differ.
fn similar<'a>(name: &str, sources: &'a [String]) -> Option<&'a str> {
    let stem = Path::new(name).file_name().and_then(|name| name.to_str()).unwrap_or(name);
    let stem = stem.split('.').next().unwrap_or(stem).to_lowercase();
    let (edits, source) = sources.iter().map(|source| (edits(&stem, &source.to_lowercase()), source)).min()?;
    (2 * edits <= stem.chars().count()).then_some(source.as_str())
}

/// The least number of letters to insert, remove or replace between two words (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut before = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let replaced = before + usize::from(from != *to);
            before = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(before + 1);
        }
    }
    row[b.len()]
}

/// The latents that tell two groups of texts apart. `bench` is the SAE of the index with its model, needed for files and
/// texts.
///
/// # Errors
/// A group that is on both sides, or without a token that counts; files that cannot be read.
pub fn find(
    index: &FeatureIndex,
    groups: [&TextGroup; 2],
    bench: impl Fn() -> Result<Workbench>,
    config: &ContrastConfig,
    monitor: &dyn Monitor,
) -> Result<Contrasts> {
    if let [TextGroup::Sources(positive), TextGroup::Sources(negative)] = groups
        && let Some(both) = positive.iter().find(|place| negative.contains(place))
    {
        let expected = "sources that are not in `positive`: a source cannot be told apart from itself";
        let name = &index.manifest().sources[*both].name;
        return Err(harvester::Error::invalid("`negative`", expected, format!("`{name}`")).into());
    }
    let is_sources = |group: &&TextGroup| matches!(group, TextGroup::Sources(_));
    check_density(config.max_density)?;
    let bench = if groups.iter().all(is_sources) { None } else { Some(bench()?) };
    bench.iter().try_for_each(|bench| index.check_sae(bench.sae()))?;
    let sample = if groups.iter().any(is_sources) { Some(index.sample()?) } else { None };
    let sample = || sample.as_ref().expect("read above if a group is of sources");
    let bench = || bench.as_ref().expect("opened above if a group is not of sources");
    let rows = |group: &TextGroup| match group {
        TextGroup::Sources(places) => Ok(sample().of_sources(places)),
        TextGroup::Files(files) => encode_files(bench(), files, monitor),
        TextGroup::Texts(texts) => bench().encode_texts(texts, monitor),
    };
    let [positive, negative] = [rows(groups[0])?, rows(groups[1])?];
    let mut found = contrast_documents(&positive, &negative, &index.column::<f64>("density")?, config)?;
    if config.fit > 0 {
        let best: Vec<u32> = found.latents.iter().take(config.fit).map(|latent| latent.latent).collect();
        found.probe = Some(Probe::fitted([&positive, &negative], &best, found.is_split, index.manifest())?);
    }
    Ok(found)
}

/// The documents of some files, each in contexts of its own: what comes before a document does not change it, and none
/// is cut off because its context is not full.
fn encode_files(bench: &Workbench, files: &[PathBuf], monitor: &dyn Monitor) -> Result<EncodedRows> {
    monitor.say(&format!(
        "at most {} tokens of these files are read, and {DOCUMENT_TOKENS} of each document",
        human::grouped(MOST_TOKENS)
    ));
    let (sae, model) = (bench.sae(), bench.model(monitor)?);
    let defaults = HarvestConfig::default();
    let config = HarvestConfig {
        hook_points: vec![sae.hook_point],
        tokens: Some(MOST_TOKENS),
        document_tokens: Some(DOCUMENT_TOKENS),
        packing: Packing::Document,
        min_document_tokens: 1,
        ctx_len: sae.ctx_len().unwrap_or(defaults.ctx_len),
        bos: sae.prompt_bos(),
        ..defaults
    };
    let live = LiveModel::new(model, Corpus::open(files, &CorpusOptions::default())?, &config)?;
    encode_all(sae, IndexText::from(&live), monitor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_source_has_a_suggestion_and_a_word_of_its_own_has_none() {
        assert_eq!([edits("kitten", "sitting"), edits("", "abc"), edits("same", "same")], [3, 3, 0]);
        let sources = ["fiction".to_owned(), "speeches".to_owned(), "code".to_owned()];
        let meant =
            ["ficton", "Speech", "data/cdoe.jsonl", "code.txt", "poetry", "x"].map(|name| similar(name, &sources));
        assert_eq!(meant, [Some("fiction"), Some("speeches"), Some("code"), Some("code"), None, None]);
    }

    #[test]
    fn paths_are_told_from_texts() {
        assert!(["a/b", "my notes.txt", "x.JSONL", "x.jsonl.gz"].into_iter().all(is_path));
        assert!(!["code", "and/or is fine", "The cat sat. On the mat", "it ended."].into_iter().any(is_path));
    }
}
