//! [`begin_harvest`]: decides from the activations in an output folder whether to begin, continue, extend, or leave
//! them unchanged.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    documents::DOCUMENTS,
    earlier::keep_earlier,
    journal::Journal,
    manifest::{HarvestManifest, Part, as_setting},
    part_names::{is_journal_of, journal_file},
    schema::ShardSchema,
};
use crate::{
    Error, Location, Result,
    store::{Manifest, OutputFolder, RESUME_FOLDER, differences},
};

impl Manifest for HarvestManifest {
    const FORMAT: &'static str = "refract.activations";
    const COMMAND: &'static str = "harvest";

    fn leaves(_folder: &OutputFolder, name: &str) -> bool {
        name == RESUME_FOLDER
    }

    /// Paths may differ as long as the bytes are the same. A larger token budget is not a difference: the run
    /// continues.
    fn differences(&self, wanted: &Self) -> Vec<String> {
        let changed = self.changed_sources(wanted);
        let is_told = |line: &String| changed.iter().any(|(index, _)| line.starts_with(&format!("corpus[{index}].")));
        let others = differences("", &self.identity(), &wanted.identity()).into_iter().filter(|line| !is_told(line));
        let mut lines: Vec<_> = others.map(as_setting).collect();
        let name = |path: &str| if path == "-" { "standard input".to_string() } else { path.to_string() };
        lines.extend(changed.iter().map(|(_, path)| format!("{} has changed since", name(path))));
        if wanted.config.context_budget() < self.counts.contexts {
            let here = wanted.config.tokens.unwrap_or_default();
            lines.push(format!("`tokens`: {} are there already, {here} here", self.counts.tokens));
        }
        lines
    }

    fn located(self, folder: &Location) -> Self {
        Self { model: self.model.clone().located(folder), ..self }
    }

    fn is_begun(&self, folder: &OutputFolder) -> Result<bool> {
        Ok(!self.parts.is_empty() || Journal::has_batches(&folder.resume().join(journal_file(0))))
    }
}

impl HarvestManifest {
    /// Tokens that the run into `folder` has computed beyond its finished parts. They are in its journal.
    pub fn journaled_tokens(&self, folder: impl Into<Location>) -> u64 {
        let journal = |it: OutputFolder| it.resume().join(journal_file(self.parts.len()));
        OutputFolder::at(folder).map_or(0, |it| Journal::tokens(&journal(it), &ShardSchema::of(self)))
    }

    /// The files of the corpus that have another content here, by index and path.
    fn changed_sources<'a>(&self, wanted: &'a Self) -> Vec<(usize, &'a str)> {
        let is_comparable = self.corpus.len() == wanted.corpus.len();
        let pairs = self.corpus.iter().zip(&wanted.corpus).enumerate().filter(|_| is_comparable);
        let changed = pairs.filter(|(_, (there, here))| there.sha256 != here.sha256);
        changed.map(|(index, (_, here))| (index, here.path.as_str())).collect()
    }
}

/// The manifest from which a run into `folder` continues; it is written there. `wanted` is a manifest without parts.
/// Removes leftovers of a killed run, except the journal of the part that it was making. A run that knows its files
/// beforehand lists them in `planned`: those left by a killed run are kept, for the caller to check.
///
/// # Errors
/// If the folder holds another run or something else, or a file cannot be written or removed.
pub(crate) fn begin_harvest(
    folder: &OutputFolder,
    wanted: HarvestManifest,
    planned: &[Part],
) -> Result<HarvestManifest> {
    let manifest = match folder.find_run(&wanted)? {
        Some(found) if !found.parts.is_empty() && found.config.tokens == wanted.config.tokens => found,
        Some(found) if !found.parts.is_empty() => {
            // Written before any file is replaced: a manifest never lists a part that is about to change.
            if found.complete {
                let part = found.short_part().map(|part| part.file.as_str());
                let documents = found.documents.as_ref().map(|documents| documents.file.as_str());
                keep_earlier(folder.location(), part.into_iter().chain(documents))?;
            }
            let extended = extended(found, wanted.config.tokens);
            extended.write(folder.location())?;
            extended
        }
        _ => {
            wanted.write(folder.location())?;
            wanted
        }
    };
    remove_leftovers(folder, &manifest, planned)?;
    Ok(manifest)
}

/// The manifest of a run with another budget. If a finished folder is extended, the manifest is marked incomplete and
/// loses a last part shorter than the others.
fn extended(found: HarvestManifest, tokens: Option<u64>) -> HarvestManifest {
    let mut extended = found;
    extended.config.tokens = tokens;
    // Tokens were left over only if the corpus ended, and then there is nothing to extend with.
    if extended.complete && extended.counts.dropped_tokens == 0 {
        extended.complete = false;
        extended.documents = None;
        extended.drop_short_part();
    }
    extended
}

/// Removes temporary files, parts that were published but not listed yet when the run was killed, and unfinished files
/// except the next part's journal. Parts in `planned` are kept.
fn remove_leftovers(folder: &OutputFolder, manifest: &HarvestManifest, planned: &[Part]) -> Result<()> {
    folder.remove_leftovers::<HarvestManifest>(|name| {
        let ours = name.strip_suffix(".tmp").unwrap_or(name);
        let is_part = ours.starts_with("part-") && ours.ends_with(".parquet");
        let is_documents =
            ours == DOCUMENTS.file && manifest.documents.as_ref().is_none_or(|listed| listed.file != name);
        is_documents || is_part && !manifest.parts.iter().chain(planned).any(|part| part.file == name)
    })?;
    if manifest.complete {
        return folder.remove_unfinished();
    }
    for path in unfinished_parts(folder.resume())? {
        if !is_journal_of(&path, manifest.parts.len()) {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

/// The parts and journals in the folder of unfinished files, which holds other files too.
fn unfinished_parts(resume: &Path) -> Result<Vec<PathBuf>> {
    let entries = Location::from(resume).list()?.into_iter().filter(|entry| entry.name.starts_with("part-"));
    Ok(entries.filter_map(|entry| entry.location.local().map(Path::to_path_buf)).collect())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::{
        Compute, HarvestConfig, StorageDtype,
        activations::{manifest::tests::example, testing::manifest},
    };

    #[test]
    fn a_run_that_finished_no_part_gives_way_to_another() {
        let dir = tempfile::tempdir().unwrap();
        let folder = OutputFolder::open(dir.path()).unwrap();
        begin_harvest(&folder, manifest(3, 4, 8, StorageDtype::F16), &[]).unwrap();
        let other = manifest(3, 4, 8, StorageDtype::F32);
        assert_eq!(begin_harvest(&folder, other.clone(), &[]).unwrap(), other);
    }

    #[test]
    fn a_folder_killed_while_its_first_manifest_was_written_is_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("manifest.json.tmp"), "{").unwrap();
        let folder = OutputFolder::open(dir.path()).unwrap();
        begin_harvest(&folder, manifest(3, 4, 8, StorageDtype::F16), &[]).unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["manifest.json"]);
    }

    #[test]
    fn differences_name_what_there_and_here() {
        let there = example(4, HarvestConfig::default());
        let mut here = example(4, HarvestConfig { seed: Some(7), tokens: Some(1 << 20), ..HarvestConfig::default() });
        here.model.sha256 = "cc".into();
        here.model.source = "elsewhere.gguf".into();
        here.corpus[0].path = "moved/a.txt".into();
        here.corpus_options.max_document_bytes *= 2;
        let differences = there.differences(&here);
        assert_eq!(differences, ["model.sha256: \"aa\" there, \"cc\" here", "`seed`: 0 there, 7 here"]);
        here = example(4, HarvestConfig::default());
        here.corpus[1].sha256 = "11".into();
        here.corpus[1].bytes = 11;
        assert_eq!(there.differences(&here), ["corpora/empty.txt has changed since"]);
        here.corpus.pop();
        assert_eq!(there.differences(&here), ["corpus: 3 there, 2 here"]);
        for compute in [Compute::F32, Compute::Int8] {
            let batch = |batch| example(4, HarvestConfig { batch, compute, ..HarvestConfig::default() });
            let said = "`batch`: 4 there, 8 here (on this processor it changes the last bits)".to_string();
            let said = if compute.has_own_products() { vec![] } else { vec![said] };
            assert_eq!(batch(4).differences(&batch(8)), said, "{compute}");
        }
    }

    #[test]
    fn a_budget_below_what_is_there_is_a_difference_and_one_above_is_not() {
        let mut there = example(4, HarvestConfig { tokens: Some(1024), ..HarvestConfig::default() });
        there.counts.contexts = 4;
        let with = |tokens| example(4, HarvestConfig { tokens, ..HarvestConfig::default() });
        there.counts.tokens = 1024;
        assert_eq!(there.differences(&with(Some(512))), ["`tokens`: 1024 are there already, 512 here"]);
        assert!(there.differences(&with(Some(2048))).is_empty());
        assert!(there.differences(&with(None)).is_empty());
    }
}
